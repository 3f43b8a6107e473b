"""UTKFace: ages of faces."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, image

N_CLASSES = 5


def utkface(
    *, size: int, mean: Sequence[float], std: Sequence[float], augment: str, path: str
) -> Dataset:
    """Faces by age: under 20, under 40, under 60, under 80, and older (Zhang et al. 2017).

    A flat folder of the "aligned & cropped" images, in the order of their names (Deep Unlearn uses
    the order of the folder, which differs between machines). The test part is a random fifth. The
    23,708 images use 3.6 GB of memory at 224×224.

    Args:
        size: height and width to resize to, bilinear.
        mean: per channel, of pixels in [0, 1].
        std: likewise.
        augment: ``none``, ``flip`` or ``crop_flip``.
        path: the folder; hidden files in it are ignored.

    Raises:
        FileNotFoundError: the folder does not exist, or holds no image.
        ValueError: a file name does not begin with an age and an underscore, or it is no image.
    """
    folder = Path(path).expanduser()
    images = [file for file in folder.glob("*") if file.is_file() and file.name[0] != "."]
    faces = sorted(images, key=lambda file: file.name)
    if not faces:
        raise files.missing("utkface", folder, ["the aligned and cropped images"])
    classes = np.array([_class(file) for file in faces])
    x = np.empty((len(faces), size, size, 3), np.uint8)
    for row, face in enumerate(faces):
        x[row] = _pixels(face, size)
    return image.dataset(
        torch.from_numpy(x),
        torch.from_numpy(classes),
        parts=holdout.parts(len(faces)),
        n_classes=N_CLASSES,
        mean=mean,
        std=std,
        augment=augment,
    )


def _class(file: Path) -> int:
    age = re.match(r"([0-9]+)_", file.name)
    if age is None:
        raise ValueError(
            f"dataset=utkface: {file} does not begin with an age and an underscore: "
            "rename it or take it out of the folder"
        )
    return min(int(age[1]) // 20, N_CLASSES - 1)


def _pixels(file: Path, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as face:
            resized = face.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(resized)
    except OSError as error:
        raise ValueError(
            f"dataset=utkface: {file} cannot be read: {files.one_line(error)}"
        ) from error
