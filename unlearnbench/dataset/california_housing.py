"""California housing: median house values of the block groups of the 1990 census."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, tabular

FILE = "housing.csv"
NUMBERS = (
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
)
OCEAN = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")
TARGET = "median_house_value"


def california_housing(
    *, missing: str, ocean_proximity: str, root: str, fingerprint: str
) -> Dataset:
    """California housing (Pace & Barry 1997): 20,640 block groups, 8 numbers, regression.

    ``housing.csv`` of Géron's "Hands-On Machine Learning" (handson-ml, ``datasets/housing``),
    packed (``.gz``) or not, in ``<root>/california_housing``. Its numbers are those of StatLib's
    ``cal_housing.data``, except for 207 emptied ``total_bedrooms``; unlike that file it has column
    names and ``ocean_proximity``, and its bytes are published unchanged.
    Target: the median house value, standardised; it is capped at 500,001 dollars. A fifth of the
    rows is held out for testing.

    Args:
        missing: ``median``: an empty ``total_bedrooms`` becomes the median of the training rows.
            ``drop``: such rows are excluded before the split (20,433 remain, numbers unchanged).
        ocean_proximity: ``onehot`` for five columns of 0 and 1, after the numbers and in
            alphabetical order, or ``none``.
        root: folder of downloaded sets.
        fingerprint: MD5 of the file, unpacked.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is not the one of the fingerprint, or an argument is none of the above.
    """
    if missing not in ("median", "drop"):
        raise ValueError(f"dataset.call.missing={missing}: must be median or drop")
    if ocean_proximity not in ("onehot", "none"):
        raise ValueError(f"dataset.call.ocean_proximity={ocean_proximity}: must be onehot or none")
    blocks = _read(Path(root).expanduser() / "california_housing", fingerprint)
    numbers = blocks[list(NUMBERS)].to_numpy(np.float64)
    empty = np.isnan(numbers).any(axis=1)
    retained_rows = np.flatnonzero(~empty) if missing == "drop" else np.arange(len(blocks))
    train_rows, test_rows = (retained_rows[places] for places in holdout.parts(len(retained_rows)))
    median = np.nanmedian(numbers[train_rows], axis=0)
    x = tabular.standardise(np.where(np.isnan(numbers), median, numbers), train_rows)
    if ocean_proximity == "onehot":
        near = blocks["ocean_proximity"].to_numpy(str)[:, None] == np.array(OCEAN)
        x = np.hstack([x, near.astype(np.float32)])
    y = blocks[TARGET].to_numpy(np.float64)
    return tabular.dataset(x, y, parts=(train_rows, test_rows), n_classes=0)


def _read(folder: Path, md5: str) -> pd.DataFrame:
    neither = files.missing("california_housing", folder, [FILE], "handson-ml's, .gz or not")
    data = files.unpacked("california_housing", folder, FILE, md5, neither)
    return pd.read_csv(BytesIO(data))
