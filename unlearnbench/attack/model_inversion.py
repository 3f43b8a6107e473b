"""Model inversion: what does the model itself show of a class?

Axes: T classes, K starts of each, B = T·K images at once, C H W or F an input.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter
from torch import Tensor, nn

from unlearnbench.core import picture
from unlearnbench.core.data import Dataset
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Scores
from unlearnbench.core.seeding import generator
from unlearnbench.core.task import WhiteBox
from unlearnbench.metric import distance

AT_ONCE = 120
"""Images that are inverted in one batch."""

Array = NDArray[np.float64]


def median2(x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace each pixel by the third smallest value of its 2×2 window, upwards and to the left.

    Edges are mirrored, with the edge pixel repeated.
    """
    filtered: NDArray[np.float32] = median_filter(x_BCHW, size=(1, 1, 2, 2), mode="reflect")
    return filtered


def intended(x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply ``median2``, a blur with σ = 2, and sharpening b + 80 · (b − b blurred with σ = 1)."""
    b = gaussian_filter(median2(x_BCHW), sigma=(0, 0, 2, 2))
    sharpened: NDArray[np.float32] = b + 80 * (b - gaussian_filter(b, sigma=(0, 0, 1, 1)))
    return sharpened


PROCESSES: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]] | None] = {
    "median2": median2,
    "intended": intended,
    "none": None,
}


def model_inversion(
    white_box: WhiteBox,
    *,
    process: str,
    label: int | None,
    starts: int,
    iterations: int,
    every: int,
    rate: float,
    div: float,
    seed: int,
) -> Scores:
    """Optimise black images until the model predicts a class, and compare them with the class.

        x_0 = −1 + U[0, 1) / div
        x ← x − η ∇_x NLL(f(x), t)         I + 1 times, the model in eval mode
        x ← PROCESS(x)                     after steps i = ``every``, 2·``every`` … below I

    Pixels are in [−1, 1], from black to the largest value of the data, independent of the units of
    the model. The descent does not clip x; all metrics except NLL use x clipped to this range.
    Fredrikson et al. (CCS 2015) as modified by Graves, Nagisetty & Ganesh, "Amnesiac Machine
    Learning" (AAAI 2021). The paper compares pictures; the metrics are specific to this benchmark.

    ``median2`` is the processing of the published code, in which blur and sharpening have no
    effect; ``intended`` applies both. Tables have no neighbouring pixels: rows start within 1/div
    above the mean, in standard deviations, and are compared by cosines alone.

    Returns:
        For all classes with retain rows, for those without (``_forgotten``), and for each class
        (``_class_t``): mean cosine, centred cosine and SSIM of the inversions with the mean of the
        test rows of the class; the share that the reference classifier assigns to the class; the
        gradient norm at the start (the paper explains dark inversions by its absence); NLL at the
        end. The same cosines, SSIM and share for the starts, ``inversion_start_…``, as a baseline.
        Picture: one row per class, its mean and then its inversions.

    Raises:
        ValueError: an unknown choice or class, or a number out of range.
        Skip: a regression, a table with a process, or a model without gradients.
    """
    data = white_box.data
    _check(data, process, label, starts, iterations, every, div)
    classes = list(range(data.n_classes)) if label is None else [label]
    space = _Space(data)
    drawn = torch.rand((starts, *data.shape), generator=generator(seed, "inversion"))
    start_K = (space.start + drawn / div).to(data.x.device)
    start_B = start_K.repeat(len(classes), *(1 for _ in data.shape))
    t_B = torch.tensor(classes, device=data.x.device).repeat_interleave(starts)

    x_B, norm_B = _invert(
        white_box.model, space, start_B, t_B, iterations, every, rate, PROCESSES[process]
    )
    with torch.no_grad():
        nll_B = F.cross_entropy(white_box.model(space.inputs(x_B)), t_B, reduction="none")
        means_T = torch.stack([space.mean_of(t) for t in classes])
        figures = {
            **_figures(space, white_box.reference_classifier, x_B, t_B, means_T),
            "gradient": norm_B.double().cpu().numpy(),
            "nll": nll_B.double().cpu().numpy(),
        }
        at_start = _figures(space, white_box.reference_classifier, start_B, t_B, means_T)
    figures |= {f"start_{name}": value_B for name, value_B in at_start.items()}
    retained = set(data.y[white_box.split.retain.to(data.y.device)].tolist())
    metrics = _summary(figures, t_B.cpu().numpy(), retained)
    nothing = np.zeros(0)
    return Scores(
        metrics=metrics,
        pool=[],
        row=nothing.astype(np.int64),
        member=nothing.astype(np.bool_),
        score=nothing,
        picture=_shown(space, x_B, means_T, process) if space.image else None,
    )


def _check(
    data: Dataset,
    process: str,
    label: int | None,
    starts: int,
    iterations: int,
    every: int,
    div: float,
) -> None:
    if process not in PROCESSES:
        raise ValueError(f"attack.call.process={process}: must be one of {', '.join(PROCESSES)}")
    if not data.n_classes:
        raise Skip("model_inversion needs classes; this is a regression")
    if data.kind != "image" and PROCESSES[process] is not None:
        reason = "tables have no neighbouring pixels; take attack.call.process=none"
        raise Skip(f"model_inversion: {process} filters images: {reason}")
    if label is not None and label not in range(data.n_classes):
        raise ValueError(f"attack.call.label={label}: classes are 0 to {data.n_classes - 1}")
    for name, value in {"starts": starts, "every": every, "div": div}.items():
        if not value > 0:
            raise ValueError(f"attack.call.{name}={value}: must be above 0")
    if iterations < 0:
        raise ValueError(f"attack.call.iterations={iterations}: must be 0 or more")


class _Space:
    """Space of x: images in [−1, 1], or standardised rows of a table."""

    def __init__(self, data: Dataset) -> None:
        self.data, self.image = data, data.kind == "image"
        self.start = -1.0 if self.image else 0.0
        if self.image:
            self.white = float(data.x.max())
            self.mean, self.std = (
                statistic.expand(data.shape[0])[:, None, None]
                for statistic in (data.mean, data.std)
            )

    def inputs(self, x_B: Tensor) -> Tensor:
        """Convert x to inputs of the model."""
        if not self.image:
            return x_B
        x_BCHW = ((x_B + 1) * self.white / 2 - self.mean) / self.std
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    def seen(self, x_B: Tensor) -> Tensor:
        """Convert x to pixels clipped to [0, 1]; rows of a table stay unchanged."""
        return ((x_B + 1) / 2).clamp(0, 1) if self.image else x_B

    def mean_of(self, t: int) -> Tensor:
        """Mean of the test rows of a class, in the units of ``seen``."""
        rows = self.data.test_rows.to(self.data.y.device)
        rows = rows[self.data.y[rows] == t]
        if not len(rows):
            raise Skip(f"model_inversion: class {t} has no test row to compare with")
        mean = self.data.x[rows].double().mean(0)
        return mean.permute(2, 0, 1) / self.white if self.image else mean


def _invert(
    model: nn.Module,
    space: _Space,
    start_B: Tensor,
    t_B: Tensor,
    iterations: int,
    every: int,
    rate: float,
    process: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None,
) -> tuple[Tensor, Tensor]:
    """Return the end points of the descents, and the gradient norm (B,) at their starts."""
    model.eval()
    images, norms = [], []
    for x, t in zip(start_B.split(AT_ONCE), t_B.split(AT_ONCE), strict=True):
        for i in range(iterations + 1):
            x = x.detach().requires_grad_()
            nll = F.cross_entropy(model(space.inputs(x)), t, reduction="sum")
            if not nll.requires_grad:
                raise Skip("model_inversion walks along gradients, and this model gives none")
            (gradient,) = torch.autograd.grad(nll, x)
            if i == 0:
                norms.append(gradient.flatten(1).norm(dim=1))
            x = x.detach() - rate * gradient
            if process is not None and 0 < i < iterations and i % every == 0:
                x = torch.from_numpy(process(x.cpu().contiguous().numpy())).to(x)
        images.append(x)
    return torch.cat(images), torch.cat(norms)


def _figures(
    space: _Space, reference_classifier: nn.Module, x_B: Tensor, t_B: Tensor, means_T: Tensor
) -> dict[str, Array]:
    """Similarity of each image to its class, arrays (B,)."""
    shown_B = space.seen(x_B)
    called_B = reference_classifier(space.inputs(2 * shown_B - 1 if space.image else x_B)).argmax(1)
    image_B = shown_B.double().cpu().numpy()
    mean_B = means_T.repeat_interleave(len(x_B) // len(means_T), 0).cpu().numpy()
    flat, mean = image_B.reshape(len(image_B), -1), mean_B.reshape(len(image_B), -1)
    figures = {
        "cosine": _cosine(flat, mean),
        "centred_cosine": _cosine(
            flat - flat.mean(1, keepdims=True), mean - mean.mean(1, keepdims=True)
        ),
        "judged": (called_B == t_B).double().cpu().numpy(),
    }
    if space.image and min(image_B.shape[-2:]) >= 7:
        figures["ssim"] = distance.ssim(image_B, mean_B).mean(1)
    return figures


def _cosine(a_BF: Array, b_BF: Array) -> Array:
    """Cosines (B,) of paired rows; 0 where a row is 0."""
    sizes_B = np.linalg.norm(a_BF, axis=1) * np.linalg.norm(b_BF, axis=1)
    cosine_B: Array = (a_BF * b_BF).sum(1) / np.where(sizes_B > 0, sizes_B, 1)
    return cosine_B


def _summary(
    figures: Mapping[str, Array], t_B: NDArray[np.int64], retained: set[int]
) -> dict[str, tuple[float, int]]:
    retained_B = np.isin(t_B, sorted(retained))
    groups = {"": retained_B, "_forgotten": ~retained_B}
    groups |= {f"_class_{t}": t_B == t for t in np.unique(t_B)}
    return {
        f"inversion_{name}{group}": (float(value_B[chosen_B].mean()), int(chosen_B.sum()))
        for group, chosen_B in groups.items()
        if chosen_B.any()
        for name, value_B in figures.items()
    }


def _shown(space: _Space, x_B: Tensor, means_T: Tensor, process: str) -> picture.Picture:
    """Picture with one row per class: the mean of its test rows, then its inversions."""
    shown_TKCHW = space.seen(x_B).double().unflatten(0, (len(means_T), -1))
    images_RSCHW = torch.cat([means_T[:, None], shown_TKCHW], 1).cpu().numpy()
    title = "inversion" if PROCESSES[process] is None else process
    return picture.grid(images_RSCHW, ["class mean", *[title] * shown_TKCHW.shape[1]])
