"""Distances between models, their outputs and their pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import log_softmax

from unlearnbench.metric.utility import Floats


def js_divergence(logits_NC: Floats, others_NC: Floats) -> NDArray[np.float64]:
    """Jensen–Shannon divergence (N,) of two models' posteriors on each record, in bits.

        ½ KL(p ‖ m) + ½ KL(q ‖ m),   m = (p + q) / 2

    In [0, 1], symmetric; 0 = the same posteriors, 1 = no class in common. Lin (IEEE Transactions
    on Information Theory 1991).
    """
    log_p, log_q = (log_softmax(z.astype(np.float64), axis=-1) for z in (logits_NC, others_NC))
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    sides = (np.exp(log) * (log - log_m) for log in (log_p, log_q))
    nats = np.sum([side.sum(axis=-1) for side in sides], axis=0) / 2
    divergence_N: NDArray[np.float64] = np.clip(
        nats / np.log(2), 0.0, 1.0
    )  # removes rounding errors
    return divergence_N


def zrf(logits_NC: Floats, others_NC: Floats) -> float:
    """Zero retrain forgetting 1 − mean JS(p_U, p) over the forget set, in [0, 1].

    1 = both models have the same outputs. In Chundawat et al. (AAAI 2023, arXiv 2205.08096) the
    other model is a net of fresh random weights, and higher is considered better; but a retrained
    model is not random either, so compare with its ZRF. NaN for no record.
    """
    if not len(logits_NC):
        return float("nan")
    return float(1 - js_divergence(logits_NC, others_NC).mean())


KLOM_MODELS, KLOM_BINS, KLOM_MARGIN = 50, 20, 100.0
"""Minimum number of models per side (NaN below it); bins; limit of the absolute margin."""


def klom(from_MN: Floats, to_KN: Floats) -> NDArray[np.float64]:
    """KL divergence of margins (N,) in nats, KL(from ‖ to) over models, record by record.

        Σ_b P_b log(P_b / Q_b),   P_b = (1 + models of ``from`` in bin b) / (M + 20)

    At least 0, 0 = alike; lower is better. Margins are log p_y − log Σ_{c≠y} p_c, clipped to ±100,
    in 20 equal bins over the range of the margins of both sides for that record; the last bin
    includes its right limit, and one is added to each bin. It is no distance: the arguments define
    the direction, and KL(retrained ‖ unlearned) differs from KL(unlearned ‖ retrained). Two samples
    of one distribution are above 0 too. After Georgiev et al., "Attribute-to-delete" (2024, arXiv
    2410.23232).

    Args:
        from_MN: margins of M independently trained models on N records.
        to_KN: margins of K other models.

    Returns:
        NaN with fewer than 50 models on a side; 0 where all margins are the same.
    """
    sides = [
        np.clip(margins.astype(np.float64), -KLOM_MARGIN, KLOM_MARGIN)
        for margins in (from_MN, to_KN)
    ]
    if min(map(len, sides)) < KLOM_MODELS:
        return np.full(from_MN.shape[1], np.nan)
    low_N = np.minimum(*(side.min(axis=0) for side in sides))
    width_N = np.maximum(*(side.max(axis=0) for side in sides)) - low_N
    records = np.arange(len(low_N))
    log_share = []
    for side in sides:
        place = KLOM_BINS * (side - low_N) / np.where(width_N > 0, width_N, 1)
        bin_MN = np.minimum(place.astype(np.int64), KLOM_BINS - 1)
        count = np.bincount(
            (records * KLOM_BINS + bin_MN).ravel(), minlength=len(low_N) * KLOM_BINS
        )
        log_share.append(np.log(count.reshape(-1, KLOM_BINS) + 1.0) - np.log(len(side) + KLOM_BINS))
    log_p, log_q = log_share
    apart = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    divergence_N: NDArray[np.float64] = np.where(width_N > 0, apart, 0.0)
    return divergence_N


def weight_distance(
    unlearned: Mapping[str, Floats], retrained: Mapping[str, Floats]
) -> dict[str, tuple[float, float]]:
    """Distance ‖θ_U − θ_R‖₂ of the parameters, of each layer and of all, and its share of ‖θ_R‖₂.

    At least 0, 0 = the same weights; the share is NaN if θ_R is 0. Two retrainings from different
    initial weights are far apart even if their outputs are indistinguishable: compare with theirs.

    Args:
        unlearned: arrays by name, ``layer.weight`` and ``layer.bias`` of one layer.
        retrained: the same of the retrained model, of the same shapes.

    Returns:
        (distance, share of the norm) by layer, and under ``""`` of all parameters.

    Raises:
        ValueError: the names differ.
    """
    if unlearned.keys() != retrained.keys():
        wrong = min(unlearned.keys() ^ retrained.keys())
        raise ValueError(f"weight_distance: {wrong} is in one model alone")
    squares: dict[str, list[float]] = {}
    for name, theta_U in unlearned.items():
        theta_R = retrained[name].astype(np.float64)
        both = np.sum((theta_U - theta_R) ** 2), np.sum(theta_R**2)
        for layer in (name.rpartition(".")[0] or name, ""):
            so_far = squares.setdefault(layer, [0.0, 0.0])
            so_far[0] += float(both[0])
            so_far[1] += float(both[1])
    return {
        layer: (float(np.sqrt(d)), float(np.sqrt(d / norm)) if norm else float("nan"))
        for layer, (d, norm) in squares.items()
    }


def relearn_time(losses: Sequence[float], target: float) -> float:
    """Steps of finetuning on the forget set after which its loss is at most ``target``.

        k + (L_k − target) / (L_k − L_{k+1})      where L_{k+1} is the first at or below it

    At least 0; 0 = the initial loss is at most ``target``. Fewer steps than for the retrained model
    indicate remaining knowledge. NaN if the target is never reached, or an earlier loss is not
    finite. Golatkar et al., "Eternal Sunshine" (CVPR 2020, arXiv 1911.04933), count full epochs.

    Args:
        losses: mean loss on the forget set after 0, 1, 2 … steps.
        target: the loss of the original, or slightly above.
    """
    for step, loss in enumerate(losses):
        if not np.isfinite(loss):
            break
        if loss <= target:
            if step == 0:
                return 0.0
            before = losses[step - 1]
            return float(step - 1 + (before - target) / (before - loss))
    return float("nan")


def ssim(images: Floats, other: Floats) -> NDArray[np.float64]:
    """Structural similarity of images of pixels in [0, 1]: 1 = the same, 0 or less = unlike.

        mean over windows of  (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / (μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)

    Windows of 7×7 pixels with equal weights, completely inside the image; C₁ = .01², C₂ = .03².
    Wang et al., "Image Quality Assessment" (IEEE Transactions on Image Processing 2004).

    Args:
        images: images (…, H, W), at least 7×7; each channel is an image of its own.
        other: images to compare with, of the same shape or broadcast to it.
    """
    x, y = (
        sliding_window_view(image.astype(np.float64), (7, 7), axis=(-2, -1))
        for image in np.broadcast_arrays(images, other)
    )
    mean_x, mean_y = (side.mean(axis=(-2, -1)) for side in (x, y))
    var_x, var_y = (side.var(axis=(-2, -1)) for side in (x, y))
    covariance = (x * y).mean(axis=(-2, -1)) - mean_x * mean_y
    C1, C2 = 0.01**2, 0.03**2
    alike = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    scale = (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
    similarity: NDArray[np.float64] = (alike / scale).mean(axis=(-2, -1))
    return similarity
