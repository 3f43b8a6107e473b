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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def decode(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Images (N, 32, 32, 3) of the JPEG files in ``data``, with ``offsets`` (N + 1,) in bytes."""
    images = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    for i, (start, end) in enumerate(pairwise(offsets)):
        images[i] = Image.open(BytesIO(data[start:end].tobytes())).convert("RGB")  # type: ignore[call-overload]
    return images


def main() -> None:
    """Convert, and print the SHA-256 of the decoded pixels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="IN.npz")
    parser.add_argument("target", type=Path, metavar="OUT.npz")
    arguments = parser.parse_args()
    arrays: dict[str, Any] = {}
    with np.load(arguments.source, allow_pickle=False) as source:
        for subset in ("train", "test"):
            x = decode(source[f"{subset}_jpeg"], source[f"{subset}_offsets"])
            arrays[f"x_{subset}"] = x
            arrays[f"y_{subset}"] = source[f"{subset}_labels"].astype(np.int64)
            print(subset, len(x), "images, sha256", hashlib.sha256(x.tobytes()).hexdigest())
    # The output is written to a temporary file and renamed, so that no run leaves a partial output.
    half = arguments.target.with_name(arguments.target.name + ".part")
    with half.open("wb") as file:
        np.savez(file, **arrays)
    half.replace(arguments.target)


if __name__ == "__main__":
    main()
