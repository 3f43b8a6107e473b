"""Image sets: from an array of images to a data set."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import augment as augmentation
from unlearnbench.dataset.holdout import Parts


def dataset(
    x: Tensor,
    y: Tensor,
    *,
    parts: Parts,
    n_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    augment: str,
    unit: float = 255.0,
) -> Dataset:
    """Images in memory as a data set.

    Args:
        x: uint8 images (N, H, W, C), in the order of the user's files.
        y: int64 classes or float32 targets (N,).
        parts: training and test rows, as of ``holdout.parts`` or ``holdout.official``.
        n_classes: 0 for regression.
        mean: one value, or one per channel, in units of ``unit``.
        std: like ``mean``, positive.
        augment: ``none``, ``flip`` or ``crop_flip``.
        unit: the pixel value that counts as 1 in ``mean`` and ``std``.

    Raises:
        ValueError: ``mean`` or ``std`` has the wrong length, ``std`` is not positive, or the
            augmentation is unknown.
    """
    channels = x.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            wanted = f"one value or {channels}, one per channel"
            raise ValueError(f"dataset.call.{name}: must be {wanted}, not {len(values)} values")
    if not all(0 < value < math.inf for value in std):
        raise ValueError(f"dataset.call.std={list(std)}: must be positive and finite")
    if not all(math.isfinite(value) for value in mean):
        raise ValueError(f"dataset.call.mean={list(mean)}: must be finite")
    mean_C = unit * torch.tensor(list(mean), dtype=torch.float32).expand(channels)
    std_C = unit * torch.tensor(list(std), dtype=torch.float32).expand(channels)
    # Bit for bit the value that Dataset.inputs computes for 0.
    black = tuple((-mean_C * (1 / std_C)).tolist())
    train_rows, test_rows = parts
    return Dataset(
        x=x,
        y=y,
        n_classes=n_classes,
        kind="image",
        train_rows=torch.from_numpy(train_rows),
        test_rows=torch.from_numpy(test_rows),
        mean=mean_C,
        std=std_C,
        augment=augmentation.named(augment, black),
    )
