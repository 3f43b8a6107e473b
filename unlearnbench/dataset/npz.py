"""A user's own arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.core import headers
from unlearnbench.core.data import Dataset
from unlearnbench.dataset import holdout, image, tabular
from unlearnbench.dataset.holdout import Parts

Arrays = dict[str, NDArray[Any]]
NAMES = ("x_train", "y_train", "x_test", "y_test")


def npz(
    *,
    task: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    augment: str,
    path: str,
) -> Dataset:
    """A NumPy archive with ``x_train``, ``y_train`` and optionally ``x_test``, ``y_test``.

    ``x``: uint8 images (N, H, W) or (N, H, W, C), or numbers (N, F), which are standardised.
    ``y``: integers 0..C-1 for classes, or floats for regression, which are standardised.
    Statistics are computed on the training part alone. Without a test part a fifth is held out.

    Args:
        task: ``classes``, ``regression``, or null to use the type of ``y``; required for floats
            that are all integers, which are ambiguous.
        mean: per channel, of pixels in [0, 1]; null computes it. Not used for tables.
        std: likewise.
        augment: ``none``, ``flip`` or ``crop_flip``; ``none`` for tables.
        path: the archive.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: an array is missing, does not fit the others, or has other content.
    """
    arrays = _read(Path(path).expanduser())
    n_train = len(arrays["y_train"]) if "y_train" in arrays else 0
    x, y, parts = _parts(arrays)
    n_classes = headers.n_classes(y, task, n_train)
    if x.ndim == 2:
        headers.no_image({"augment": augment, "mean": mean, "std": std})
        headers.check_all_finite("x", x)
        x = tabular.standardise(x, parts[0])
        return tabular.dataset(x, y, parts=parts, n_classes=n_classes)
    x = x[..., None] if x.ndim == 3 else x
    train_mean, train_std = _moments(x[parts[0]])
    return image.dataset(
        torch.from_numpy(np.ascontiguousarray(x)),
        tabular.labels(y, train_rows=parts[0], n_classes=n_classes),
        parts=parts,
        n_classes=n_classes,
        mean=train_mean if mean is None else mean,
        std=train_std if std is None else std,
        augment=augment,
    )


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise FileNotFoundError(f"dataset=npz: there is no file {path}: set dataset.path")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in NAMES if name in archive}
    except headers.UNREADABLE as error:
        raise headers.unreadable(path, error) from error


def _parts(arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any], Parts]:
    parts = headers.check_arrays({name: (a.shape, a.dtype) for name, a in arrays.items()})
    x, y = (np.concatenate([arrays[f"{name}_{subset}"] for subset in parts]) for name in "xy")
    n = len(arrays["y_train"])
    return x, y, holdout.official(n, len(y)) if len(parts) > 1 else holdout.parts(n)


def _moments(x: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    # Sums of integers are exact and use a fraction of the memory of floats.
    pixels = x[..., 0].size
    mean_C = x.sum((0, 1, 2), dtype=np.int64) / pixels
    square_C = np.square(x, dtype=np.uint16).sum((0, 1, 2), dtype=np.int64) / pixels
    std_C = np.sqrt(np.maximum(square_C - mean_C**2, 0))
    return (mean_C / 255).tolist(), (np.where(std_C > 0, std_C, 255) / 255).tolist()
