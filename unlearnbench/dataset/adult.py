"""Adult: whether a person of the 1994 census earns more than 50,000 dollars."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearnbench.dataset import files, tabular
from unlearnbench.values import Dataset

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
        missing: a ``?`` is a ``category`` of its own, or ``drop`` leaves such persons out
            (30,162 + 15,060 remain).
        encoding: categories become ``onehot`` columns of 0 and 1 (a value that only test rows have
            is 0 in all of them), or one column each, the ``label``'s number standardised (-1 before
            that for such a value).
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
    train, test = (_read(folder, name, fingerprint[name], missing) for name in FILES)
    persons, n_train = pd.concat([train, test], ignore_index=True), len(train)
    numbers = persons[list(NUMBERS)].to_numpy(np.float64)
    columns = [_encode(persons[name], n_train, encoding) for name in CATEGORIES]
    if encoding == "label":
        x = tabular.standardise(np.hstack([numbers, *columns]), n_train)
    else:
        x = np.hstack([tabular.standardise(numbers, n_train), *columns]).astype(np.float32)
    y = persons["income"].str.startswith(">50K").to_numpy()
    return tabular.dataset(x, y, n_train=n_train, n_classes=2)


def _read(folder: Path, name: str, md5: str, missing: str) -> pd.DataFrame:
    neither = files.missing("adult", folder, FILES, "UCI's files, packed (.gz) or not")
    data = files.unpacked("adult", folder, name, md5, neither)
    # The test file opens with a remark, "|1x3 Cross validator".
    persons = pd.read_csv(
        BytesIO(data), names=COLUMNS, comment="|", skipinitialspace=True, na_filter=False
    )
    if missing == "drop":
        persons = persons[~(persons == "?").any(axis=1)]
    return persons


def _encode(values: "pd.Series[str]", n_train: int, encoding: str) -> NDArray[np.float64]:
    known = np.unique(values[:n_train].to_numpy(str))
    equal: NDArray[np.bool_] = values.to_numpy(str)[:, None] == known
    if encoding == "onehot":
        return equal.astype(np.float64)
    return np.where(equal.any(1), equal.argmax(1), -1.0)[:, None]
