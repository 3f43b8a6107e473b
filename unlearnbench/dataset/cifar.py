"""CIFAR-10 and CIFAR-100, read by torchvision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, image

SETS = {"cifar10": (datasets.CIFAR10, 10), "cifar100": (datasets.CIFAR100, 100)}


def cifar(
    *,
    name: str,
    mean: Sequence[float],
    std: Sequence[float],
    augment: str,
    root: str,
    fingerprint: str,
) -> Dataset:
    """50,000 + 10,000 colour images of 32×32 pixels (Krizhevsky 2009).

    In torchvision's layout, ``<root>/cifar-10-batches-py`` and ``<root>/cifar-100-python``;
    downloaded if missing. No other pickles are loaded; torchvision compares the MD5 of each first.

    Args:
        name: ``cifar10`` or ``cifar100``.
        mean: per channel, of pixels in [0, 1].
        std: likewise.
        augment: ``none``, ``flip`` or ``crop_flip``.
        root: folder of downloaded sets.
        fingerprint: MD5 of the official archive.

    Raises:
        FileNotFoundError: files are missing or broken and the download failed.
        ValueError: the fingerprint differs from the archive of torchvision, or the name is
            unknown.
    """
    if name not in SETS:
        raise ValueError(f"dataset.call.name={name}: must be one of {', '.join(SETS)}")
    source, n_classes = SETS[name]
    files.check(name, "torchvision's archive", source.tgz_md5, fingerprint)
    train, test = _obtain(name, Path(root).expanduser())
    x = np.concatenate([train.data, test.data])
    return image.dataset(
        torch.from_numpy(x),
        torch.tensor(train.targets + test.targets),
        parts=holdout.official(len(train.data), len(x)),
        n_classes=n_classes,
        mean=mean,
        std=std,
        augment=augment,
    )


def _obtain(name: str, root: Path) -> tuple[Any, Any]:
    source = SETS[name][0]

    def read() -> tuple[Any, Any]:
        return source(root, train=True), source(root, train=False)

    def fetch() -> None:
        with files.downloading(root):
            source(root, download=True)

    try:
        return read()
    except RuntimeError:  # torchvision's error for files that are missing or broken
        why = files.attempt(fetch)
    if why:
        raise files.missing(name, root, [f"{source.filename} (or unpacked)"], why)
    return read()
