"""MNIST and the sets in its file format (IDX)."""

import gzip
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import datasets

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, image

FILES = tuple(
    f"{prefix}-{content}-ubyte.gz"
    for prefix in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
)

# Folder under the root, and the class of torchvision that can download it.
SETS = {
    "mnist": ("MNIST", datasets.MNIST),
    "fashion_mnist": ("FashionMNIST", datasets.FashionMNIST),
    "fashion_mnist_10k": ("FashionMNIST-10k/FashionMNIST", None),
}


def mnist(
    *,
    name: str,
    size: int,
    channels: int,
    mean: Sequence[float],
    std: Sequence[float],
    augment: str,
    root: str,
    fingerprint: Mapping[str, str],
) -> Dataset:
    """MNIST, Fashion-MNIST, or a subset of it: 28×28 grey images of 10 classes, resized.

    Packed files in torchvision's layout, ``<root>/<set>/raw/*.gz``, downloaded if missing.
    Preprocessing is that of Deep Unlearn (arXiv 2410.01276).

    Args:
        name: ``mnist``, ``fashion_mnist`` or ``fashion_mnist_10k``.
        size: height and width to resize to.
        channels: number of repetitions of the grey channel, which is stored once.
        mean: mean of pixels in [0, 1].
        std: likewise.
        augment: ``none``, ``flip`` or ``crop_flip``.
        root: folder of downloaded sets.
        fingerprint: MD5 of each packed file.

    Raises:
        FileNotFoundError: files are missing and the download failed.
        ValueError: the checksum of a file differs from the fingerprint, or the name is unknown.
    """
    if name not in SETS:
        raise ValueError(f"dataset.call.name={name}: must be one of {', '.join(SETS)}")
    folder = Path(root).expanduser() / SETS[name][0] / "raw"
    _obtain(name, Path(root).expanduser(), folder)
    parts = []
    for file in FILES:
        packed = (folder / file).read_bytes()
        files.check(name, folder / file, files.md5(packed), fingerprint[file])
        parts.append(_parse(gzip.decompress(packed)))
    x_train, y_train, x_test, y_test = parts
    x = _resize(torch.cat([x_train, x_test]), size)
    return image.dataset(
        x.expand(-1, -1, -1, channels),
        torch.cat([y_train, y_test]).long(),
        parts=holdout.official(len(x_train), len(x)),
        n_classes=10,
        mean=mean,
        std=std,
        augment=augment,
    )


def _obtain(name: str, root: Path, folder: Path) -> None:
    source = SETS[name][1]

    def absent() -> list[str]:
        return [file for file in FILES if not (folder / file).exists()]

    def fetch() -> None:
        # Into a temporary folder, then renamed: a file in its place is always complete.
        with files.downloading(root), TemporaryDirectory(dir=root) as fresh:
            if not absent():
                return
            raw = Path(source(fresh, download=True).raw_folder)
            folder.mkdir(parents=True, exist_ok=True)
            for file in absent():
                os.replace(raw / file, folder / file)

    why = files.attempt(fetch) if absent() and source else ""
    if absent():
        raise files.missing(name, folder, absent(), why)


def _parse(data: bytes) -> torch.Tensor:
    # IDX: two zero bytes, the type (8 is uint8), the number of axes; the axes' lengths; the values.
    _, _, n_axes = struct.unpack_from(">HBB", data)
    shape = struct.unpack_from(f">{n_axes}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * n_axes)
    return torch.from_numpy(values.reshape(shape).copy())


def _resize(x: torch.Tensor, size: int) -> torch.Tensor:
    """From (N, h, w) to (N, size, size, 1), like the bilinear resize of Pillow.

    On 8-bit integers, antialiased: 28 to 32 is identical, other sizes differ by one grey level in
    one pixel of a hundred (28 to 20); rounded floats would differ in four of a hundred.
    """
    larger = F.interpolate(x[:, None], size=(size, size), mode="bilinear", antialias=True)
    return larger.permute(0, 2, 3, 1)
