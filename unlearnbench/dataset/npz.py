"""A user's own arrays."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench import headers
from unlearnbench.dataset import files, holdout, image, tabular
from unlearnbench.dataset.holdout import Parts
from unlearnbench.values import Dataset

Arrays = dict[str, NDArray[Any]]
NAMES = ("x_train", "y_train", "x_test", "y_test")
UNREADABLE = (ValueError, TypeError, OSError, EOFError, BadZipFile, zlib.error)


def npz(
    *,
    task: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    augment: str,
    path: str,
) -> Dataset:
    """A NumPy archive with ``x_train``, ``y_train`` and, if there are any, ``x_test``, ``y_test``.

    ``x``: uint8 images (N, H, W) or (N, H, W, C), or numbers (N, F), which are standardised.
    ``y``: whole numbers 0..C-1 for classes, or floats for regression, which are standardised.
    All is fitted on the training part alone. Without a test part a fifth is held out.

    Args:
        task: null for what the type of ``y`` says, or ``classes`` or ``regression``: floats that
            are all whole numbers may be either, and are refused without it.
        mean: per channel, of pixels in [0, 1]; null computes it. Of no meaning for tables.
        std: likewise.
        augment: ``none``, ``flip`` or ``crop_flip``; ``none`` for tables.
        path: the archive.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an array is missing, does not fit the others, or holds none of the above.
    """
    x, y, parts = _parts(_read(Path(path).expanduser()))
    n_classes = _n_classes(y, task)
    if x.ndim == 2:
        if augment != "none":
            raise ValueError(f"dataset.call.augment={augment}: a table takes none")
        _check_numbers("x", x)
        x = tabular.standardise(x, parts[0])
        return tabular.dataset(x, y, parts=parts, n_classes=n_classes)
    headers.images(x.dtype, x.shape)
    x = x[..., None] if x.ndim == 3 else x
    found_mean, found_std = _moments(x[parts[0]])
    return image.dataset(
        torch.from_numpy(np.ascontiguousarray(x)),
        tabular.labels(y, train_rows=parts[0], n_classes=n_classes),
        parts=parts,
        n_classes=n_classes,
        mean=found_mean if mean is None else mean,
        std=found_std if std is None else std,
        augment=augment,
    )


def _wrong(what: str) -> ValueError:
    return ValueError(f"dataset=npz: {what}")


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise FileNotFoundError(f"dataset=npz: there is no file {path}: set dataset.path")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in NAMES if name in archive}
    except UNREADABLE as error:
        raise _wrong(f"{path} is no archive of plain arrays: {files.one_line(error)}") from error


def _parts(arrays: Arrays) -> tuple[NDArray[Any], NDArray[Any], Parts]:
    tested = "x_test" in arrays or "y_test" in arrays
    if absent := [name for name in NAMES[: 4 if tested else 2] if name not in arrays]:
        raise _wrong(f"the archive lacks {', '.join(absent)}")
    for part in ("train", "test") if tested else ("train",):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not len(y):
            raise _wrong(f"x_{part} and y_{part} do not fit: shapes {x.shape} and {y.shape}")
    n = len(arrays["y_train"])
    if not tested:
        return arrays["x_train"], arrays["y_train"], holdout.parts(n)
    for name in ("x", "y"):
        train, test = arrays[f"{name}_train"], arrays[f"{name}_test"]
        if train.shape[1:] != test.shape[1:] or train.dtype.kind != test.dtype.kind:
            raise _wrong(f"{name}_train and {name}_test differ in shape or type")
    x, y = (np.concatenate([arrays[f"{name}_train"], arrays[f"{name}_test"]]) for name in "xy")
    return x, y, holdout.official(n, len(y))


def _check_numbers(name: str, values: NDArray[Any]) -> None:
    if values.dtype.kind not in "iuf":
        raise _wrong(f"{name} must hold numbers, not {values.dtype}")
    if not np.isfinite(values).all():
        raise _wrong(f"{name} has values that are not finite")
    if 0 in values.shape:
        raise _wrong(f"{name} has the shape {values.shape}: there is nothing in it")


def _n_classes(y: NDArray[Any], task: str | None) -> int:
    if task not in (None, "classes", "regression"):
        raise ValueError(f"dataset.call.task={task}: must be null, classes or regression")
    _check_numbers("y", y)
    whole = y.dtype.kind != "f" or bool(
        ((y == np.round(y)) & (np.abs(y.astype(float)) < 2.0**53)).all()
    )
    if task is None and y.dtype.kind == "f" and whole:
        told = "y holds whole numbers as floats: say dataset.call.task=classes or"
        raise _wrong(f"{told} dataset.call.task=regression, or store y.astype(int) for classes")
    if task == "classes" and not whole:
        raise _wrong("dataset.call.task=classes: y holds numbers that are not whole")
    if task == "regression" or not whole:
        if (y == y[0]).all():
            raise _wrong(f"all targets are {y[0]}: there is nothing to learn")
        return 0
    present = np.unique(y)
    if len(present) < 2:
        raise _wrong(f"all labels are {present[0]}: there must be two classes at least")
    for expected, label in enumerate(present.tolist()):
        if label != expected:
            raise _wrong(f"labels must be 0, 1, 2, …: there is {label:g} but no {expected}")
    return len(present)


def _moments(x: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    # Sums of whole numbers are exact and take a fraction of the memory of floats.
    pixels = x[..., 0].size
    mean_C = x.sum((0, 1, 2), dtype=np.int64) / pixels
    square_C = np.square(x, dtype=np.uint16).sum((0, 1, 2), dtype=np.int64) / pixels
    std_C = np.sqrt(np.maximum(square_C - mean_C**2, 0))
    return (mean_C / 255).tolist(), (np.where(std_C > 0, std_C, 255) / 255).tolist()
