"""Tabular sets: from features and labels to a data set.

Axes: N rows, F features.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.values import Dataset


def standardise(values: NDArray[Any], n_train: int) -> NDArray[np.float32]:
    """Zero mean and unit variance per column over the training rows, which alone are looked at.

    A column that is constant over them is only centred.

    Args:
        values: (N, F) or (N,), the training part first.
        n_train: how many rows are for training.
    """
    values = np.asarray(values, np.float64)
    mean, std = values[:n_train].mean(0), values[:n_train].std(0)
    scaled: NDArray[Any] = (values - mean) / np.where(std > 0, std, 1)
    return scaled.astype(np.float32)


def labels(y: NDArray[Any], *, n_train: int, n_classes: int) -> torch.Tensor:
    """Labels as a data set takes them: int64 classes, or standardised float32 for regression."""
    if n_classes:
        return torch.from_numpy(np.asarray(y, np.int64))
    return torch.from_numpy(standardise(y, n_train))


def dataset(x: NDArray[np.float32], y: NDArray[Any], *, n_train: int, n_classes: int) -> Dataset:
    """Features and labels as a data set.

    Args:
        x: features (N, F) that are standardised already, the training part first.
        y: classes or raw targets (N,).
        n_train: how many rows are for training.
        n_classes: 0 for regression.
    """
    return Dataset(
        x=torch.from_numpy(np.ascontiguousarray(x)),
        y=labels(y, n_train=n_train, n_classes=n_classes),
        n_classes=n_classes,
        kind="tabular",
        train_rows=torch.arange(n_train),
        test_rows=torch.arange(n_train, len(x)),
    )
