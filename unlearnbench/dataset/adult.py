"""Adult: whether a person of the 1994 census earns more than 50,000 dollars."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, tabular
from unlearnbench.dataset.holdout import Rows

FILES = ("adult.data", "adult.test")
NUMBERS = (
    "age",
    "fnlwgt",
    "education-num",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
)
COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
CATEGORIES = tuple(name for name in COLUMNS[:-1] if name not in NUMBERS)


def adult(*, missing: str, encoding: str, root: str, fingerprint: Mapping[str, str]) -> Dataset:
    """UCI Adult (Becker & Kohavi 1996): 32,561 + 16,281 persons, 14 features, class 1 is >50K.

    ``adult.data`` and ``adult.test`` as distributed, packed (``.gz``) or not, in ``<root>/adult``.
    Features: first the six numbers, standardised, then the eight categories, whose values are
    those of the training part in alphabetical order.

    Args:
        missing: ``category``: a ``?`` is a separate category. ``drop``: persons with a ``?`` are
            excluded (30,162 + 15,060 remain, with unchanged numbers).
        encoding: ``onehot``: categories become columns of 0 and 1; a value of test rows only is 0
            in all of them. ``label``: one column per category, the standardised number of the value
            (-1 before that for such a value).
        root: folder of downloaded sets.
        fingerprint: MD5 of each file, unpacked.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not the one of the fingerprint, or an argument is none of the above.
    """
    if missing not in ("category", "drop"):
        raise ValueError(f"dataset.call.missing={missing}: must be category or drop")
    if encoding not in ("onehot", "label"):
        raise ValueError(f"dataset.call.encoding={encoding}: must be onehot or label")
    folder = Path(root).expanduser() / "adult"
    train, test = (_read(folder, name, fingerprint[name]) for name in FILES)
    persons = pd.concat([train, test], ignore_index=True)
    parts = holdout.official(len(train), len(persons))
    if missing == "drop":
        is_complete_N = ~(persons == "?").any(axis=1).to_numpy()
        parts = parts[0][is_complete_N[parts[0]]], parts[1][is_complete_N[parts[1]]]
    numbers = persons[list(NUMBERS)].to_numpy(np.float64)
    columns = [_encode(persons[name], parts[0], encoding) for name in CATEGORIES]
    if encoding == "label":
        x = tabular.standardise(np.hstack([numbers, *columns]), parts[0])
    else:
        x = np.hstack([tabular.standardise(numbers, parts[0]), *columns]).astype(np.float32)
    y = persons["income"].str.startswith(">50K").to_numpy()
    return tabular.dataset(x, y, parts=parts, n_classes=2)


def _read(folder: Path, name: str, md5: str) -> pd.DataFrame:
    neither = files.missing("adult", folder, FILES, "UCI's files, packed (.gz) or not")
    data = files.unpacked("adult", folder, name, md5, neither)
    # The test file begins with a comment, "|1x3 Cross validator".
    return pd.read_csv(
        BytesIO(data), names=COLUMNS, comment="|", skipinitialspace=True, na_filter=False
    )


def _encode(values: "pd.Series[str]", train_rows: Rows, encoding: str) -> NDArray[np.float64]:
    names = values.to_numpy(str)
    categories = np.unique(names[train_rows])
    equal: NDArray[np.bool_] = names[:, None] == categories
    if encoding == "onehot":
        return equal.astype(np.float64)
    return np.where(equal.any(1), equal.argmax(1), -1.0)[:, None]
