"""Wine quality: expert grades of Portuguese wines, from laboratory measurements."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, tabular

COLOURS = {"red": ("red",), "white": ("white",), "both": ("red", "white")}


def wine_quality(*, colour: str, target: str, root: str, fingerprint: Mapping[str, str]) -> Dataset:
    """UCI Wine Quality (Cortez et al. 2009): 1,599 red and 4,898 white wines, 11 features.

    ``winequality-red.csv`` and ``winequality-white.csv`` as distributed, packed (``.gz``) or not,
    in ``<root>/wine_quality``; features standardised, and a fifth of the rows held out for testing.
    240 of the red and 937 of the white rows repeat an earlier row and are not removed: a forget row
    may have an equal row in the retain set.

    Args:
        colour: ``red``, ``white``, or ``both``: red first, and a twelfth feature that is 1 for
            white before it is standardised.
        target: the grades, 0 to 10, as ``class``, where those that occur become 0, 1, 2, … in
            order (3 to 8 become 0 to 5 for red, 3 to 9 become 0 to 6 for white and both), or as
            ``score``: a regression, standardised.
        root: folder of downloaded sets.
        fingerprint: MD5 of each file, unpacked.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not the one of the fingerprint, or an argument is none of the above.
    """
    if colour not in COLOURS:
        raise ValueError(f"dataset.call.colour={colour}: must be one of {', '.join(COLOURS)}")
    if target not in ("class", "score"):
        raise ValueError(f"dataset.call.target={target}: must be class or score")
    folder = Path(root).expanduser() / "wine_quality"
    names = [f"winequality-{each}.csv" for each in COLOURS[colour]]
    tables = [_read(folder, name, fingerprint[name], names) for name in names]
    wines = np.concatenate(tables)
    features, grades = wines[:, :-1], wines[:, -1]
    if colour == "both":
        white = np.repeat([0.0, 1.0], [len(table) for table in tables])
        features = np.column_stack([features, white])
    grades_C = np.unique(grades)
    y, n_classes = (
        (np.searchsorted(grades_C, grades), len(grades_C)) if target == "class" else (grades, 0)
    )
    parts = holdout.parts(len(grades))
    x = tabular.standardise(features, parts[0])
    return tabular.dataset(x, y, parts=parts, n_classes=n_classes)


def _read(folder: Path, name: str, md5: str, names: list[str]) -> NDArray[np.float64]:
    neither = files.missing("wine_quality", folder, names, "UCI's files, packed (.gz) or not")
    data = files.unpacked("wine_quality", folder, name, md5, neither)
    return pd.read_csv(BytesIO(data), sep=";").to_numpy(np.float64)
