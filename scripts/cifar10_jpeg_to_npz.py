"""Decode a JPEG-coded CIFAR-10 archive into the arrays that ``dataset=npz`` reads.

The input holds ``{train,test}_jpeg`` (uint8, the JPEG files one after another),
``{train,test}_offsets`` (image i is bytes offsets[i]:offsets[i+1]) and ``{train,test}_labels``. The
pixels are lossy: call the set "CIFAR-10 (JPEG q75)" in tables.

    python scripts/cifar10_jpeg_to_npz.py cifar10_jpeg_q75.npz cifar10_jpeg.npz
    unlearnbench dataset=npz dataset.path=cifar10_jpeg.npz dataset.call.augment=crop_flip
"""

import argparse
import hashlib
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def decode(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Images (N, 32, 32, 3) of the JPEG files that lie in ``data`` at ``offsets`` (N + 1,)."""
    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    for i, (start, end) in enumerate(pairwise(offsets)):
        images[i] = Image.open(BytesIO(data[start:end].tobytes())).convert("RGB")
    return images


def main() -> None:
    """Convert, and print the SHA-256 of the decoded pixels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="IN.npz")
    parser.add_argument("target", type=Path, metavar="OUT.npz")
    arguments = parser.parse_args()
    arrays = {}
    with np.load(arguments.source, allow_pickle=False) as source:
        for part in ("train", "test"):
            x = decode(source[f"{part}_jpeg"], source[f"{part}_offsets"])
            arrays[f"x_{part}"] = x
            arrays[f"y_{part}"] = source[f"{part}_labels"].astype(np.int64)
            print(part, len(x), "images, sha256", hashlib.sha256(x.tobytes()).hexdigest())
    # Written beside it and renamed: an interrupted run leaves no file that looks whole.
    half = arguments.target.with_name(arguments.target.name + ".part")
    with half.open("wb") as file:
        np.savez(file, **arrays)
    half.replace(arguments.target)


if __name__ == "__main__":
    main()
