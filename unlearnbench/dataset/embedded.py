"""The small sets of scikit-learn, without files or downloads."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, image, tabular

# Diabetes in its own units: the scaling of scikit-learn depends on the test rows too.
TABLES = {
    "breast_cancer": lambda: (*load_breast_cancer(return_X_y=True), 2),
    "wine": lambda: (*load_wine(return_X_y=True), 3),
    "diabetes": lambda: (*load_diabetes(return_X_y=True, scaled=False), 0),
}


def _check(name: str, x: NDArray[Any], y: NDArray[Any], fingerprint: str) -> None:
    # In one number format, since the integer type of labels depends on the platform.
    arrays = b"".join(np.ascontiguousarray(array, "<f8").tobytes() for array in (x, y))
    files.check(name, "scikit-learn's copy", hashlib.sha256(arrays).hexdigest(), fingerprint)


def digits(
    *, mean: Sequence[float], std: Sequence[float], augment: str, fingerprint: str
) -> Dataset:
    """1,797 handwritten digits of 8×8 grey pixels from 0 to 16 (UCI, Alpaydin & Kaynak 1998).

    Args:
        mean: mean of the pixels, in their own units.
        std: likewise.
        augment: ``none``, ``flip`` or ``crop_flip``.
        fingerprint: SHA-256 of images and labels as little-endian float64.

    Raises:
        ValueError: scikit-learn's copy has another fingerprint.
    """
    pixels, y = load_digits(return_X_y=True)
    _check("digits", pixels, y, fingerprint)
    parts = holdout.parts(len(y))
    return image.dataset(
        torch.from_numpy(pixels.astype(np.uint8).reshape(-1, 8, 8, 1)),
        tabular.labels(y, train_rows=parts[0], n_classes=10),
        parts=parts,
        n_classes=10,
        mean=mean,
        std=std,
        augment=augment,
        unit=1.0,
    )


def table(*, name: str, fingerprint: str) -> Dataset:
    """A table of scikit-learn's: features (and a regression's target) standardised.

    Args:
        name: ``breast_cancer`` (569 rows, 30 features, 2 classes), ``wine`` (178, 13, 3) or
            ``diabetes`` (442, 10, regression).
        fingerprint: SHA-256 of features and labels as little-endian float64.

    Raises:
        ValueError: scikit-learn's copy has another fingerprint, or the name is unknown.
    """
    if name not in TABLES:
        raise ValueError(f"dataset.call.name={name}: must be one of {', '.join(TABLES)}")
    x, y, n_classes = TABLES[name]()
    _check(name, x, y, fingerprint)
    parts = holdout.parts(len(y))
    x = tabular.standardise(x, parts[0])
    return tabular.dataset(x, y, parts=parts, n_classes=n_classes)
