"""Tabular sets: from features and labels to a data set.

Axes: N rows, F features.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.core.data import Dataset
from unlearnbench.dataset.holdout import Parts, Rows


def standardise(values: NDArray[Any], train_rows: Rows) -> NDArray[np.float32]:
    """Scale columns to zero mean and unit variance over the training rows.

    A column that is constant over them is only centred.

    Args:
        values: (N, F) or (N,).
        train_rows: the training rows (n,).

    Raises:
        ValueError: the values of a column are too large or too small.
    """
    values = np.asarray(values, np.float64)
    train = values[train_rows]
    with np.errstate(all="ignore"):
        mean, std = train.mean(0), train.std(0)
        scaled: NDArray[np.float32] = ((values - mean) / np.where(std > 0, std, 1)).astype(
            np.float32
        )
        flat = (std == 0) & (train.max(0) > train.min(0))  # its squares are too small for a float
        wrong = flat | ~np.isfinite(std) | ~np.isfinite(scaled).all(0)
    if wrong.any():
        column = values.reshape(len(values), -1)[:, np.flatnonzero(wrong)[0]]
        where = f"column {np.flatnonzero(wrong)[0]}" if values.ndim > 1 else "the target"
        message = f"its values, {column.min():g} to {column.max():g}, are too large or too small"
        raise ValueError(f"data set: {where} cannot be standardised: {message}; scale them first")
    return scaled


def labels(y: NDArray[Any], *, train_rows: Rows, n_classes: int) -> torch.Tensor:
    """Labels for ``Dataset``: int64 classes, or standardised float32 for regression."""
    if n_classes:
        return torch.from_numpy(np.asarray(y, np.int64))
    return torch.from_numpy(standardise(y, train_rows))


def dataset(x: NDArray[np.float32], y: NDArray[Any], *, parts: Parts, n_classes: int) -> Dataset:
    """Features and labels as a data set.

    Args:
        x: standardised features (N, F), in the order of the user's file.
        y: classes or raw targets (N,).
        parts: training and test rows, as of ``holdout.parts`` or ``holdout.official``.
        n_classes: 0 for regression.
    """
    train_rows, test_rows = parts
    return Dataset(
        x=torch.from_numpy(np.ascontiguousarray(x)),
        y=labels(y, train_rows=train_rows, n_classes=n_classes),
        n_classes=n_classes,
        kind="tabular",
        train_rows=torch.from_numpy(train_rows),
        test_rows=torch.from_numpy(test_rows),
    )
