"""Tabular sets: from features and labels to a data set.

Axes: N rows, F features.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.dataset.holdout import Parts, Rows
from unlearnbench.values import Dataset


def standardise(values: NDArray[Any], train_rows: Rows) -> NDArray[np.float32]:
    """Zero mean and unit variance per column over the training rows, which alone are looked at.

    A column that is constant over them is only centred.

    Args:
        values: (N, F) or (N,).
        train_rows: the rows (n,) that are for training.
    """
    values = np.asarray(values, np.float64)
    train = values[train_rows]
    mean, std = train.mean(0), train.std(0)
    scaled: NDArray[Any] = (values - mean) / np.where(std > 0, std, 1)
    return scaled.astype(np.float32)


def labels(y: NDArray[Any], *, train_rows: Rows, n_classes: int) -> torch.Tensor:
    """Labels as a data set takes them: int64 classes, or standardised float32 for regression."""
    if n_classes:
        return torch.from_numpy(np.asarray(y, np.int64))
    return torch.from_numpy(standardise(y, train_rows))


def dataset(x: NDArray[np.float32], y: NDArray[Any], *, parts: Parts, n_classes: int) -> Dataset:
    """Features and labels as a data set.

    Args:
        x: features (N, F) that are standardised already, in the order of the user's file.
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
