"""ACS income: whether a person of the American Community Survey earns more than 50,000 dollars."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearnbench.core.data import Dataset
from unlearnbench.dataset import files, holdout, tabular
from unlearnbench.dataset.holdout import Rows

NUMBERS = ("AGEP", "WKHP")
CATEGORIES = ("COW", "SCHL", "MAR", "OCCP", "POBP", "RELP", "SEX", "RAC1P")
COLUMNS = (*NUMBERS, *CATEGORIES, "PINCP", "PWGTP")

# The name of the column of relationships from 2019 on.
RENAMED = {"RELSHIPP": "RELP"}

# FIPS codes, by which the Census Bureau numbers the states.
# fmt: off
FIPS = {
    "AL": 1, "AK": 2, "AZ": 4, "AR": 5, "CA": 6, "CO": 8, "CT": 9, "DE": 10, "DC": 11, "FL": 12,
    "GA": 13, "HI": 15, "ID": 16, "IL": 17, "IN": 18, "IA": 19, "KS": 20, "KY": 21, "LA": 22,
    "ME": 23, "MD": 24, "MA": 25, "MI": 26, "MN": 27, "MS": 28, "MO": 29, "MT": 30, "NE": 31,
    "NV": 32, "NH": 33, "NJ": 34, "NM": 35, "NY": 36, "NC": 37, "ND": 38, "OH": 39, "OK": 40,
    "OR": 41, "PA": 42, "RI": 44, "SC": 45, "SD": 46, "TN": 47, "TX": 48, "UT": 49, "VT": 50,
    "VA": 51, "WA": 53, "WV": 54, "WI": 55, "WY": 56, "PR": 72,
}
# fmt: on


def acs_income(*, states: Sequence[str], year: int, encoding: str, path: str) -> Dataset:
    """ACSIncome of folktables (Ding et al. 2021): 10 features, class 1 earns more than 50,000.

    The Census Bureau's person records (PUMS), unpacked, as stored by folktables in
    ``<year>/1-Year``: ``psam_p06.csv`` for California, ``ss16pca.csv`` before 2017. Persons over 16
    with working hours, an income over 100 dollars and a weight of one or more; weights have no
    further meaning. A fifth of them is held out for testing. Record numbers count the selected
    persons, in the order of the files.
    Features: first age and weekly hours, standardised, then the eight categories, whose values are
    those of the training part in the order of their codes; a blank is a separate value, the last.

    Args:
        states: two letters each; the persons of the states are concatenated.
        year: year of the survey; file names depend on it. From 2019 on ``RELP`` is ``RELSHIPP``.
        encoding: ``onehot``: categories become columns of 0 and 1, about 800 or 0.6 GB for
            California; a value of test rows only is 0 in all of them. ``label``: one column per
            category, the standardised number of the value (-1 before that for such a value).
        path: the folder of the files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not valid, no person remains, or an argument is none of the above.
    """
    if encoding not in ("onehot", "label"):
        raise ValueError(f"dataset.call.encoding={encoding}: must be onehot or label")
    folder, names = Path(path).expanduser(), [_name(state, year) for state in states]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"dataset.call.states={list(states)}: must name each state once")
    if absent := [name for name in names if not (folder / name).is_file()]:
        why = "the Census Bureau's person records, unpacked; dataset.path is the folder"
        raise files.missing("acs_income", folder, absent, why)
    persons = pd.concat([_read(folder / name) for name in names])
    parts = holdout.parts(len(persons))
    if not all(len(subset) for subset in parts):
        raise ValueError(f"dataset=acs_income: {len(persons)} persons are left of {names}")
    numbers = persons[list(NUMBERS)].to_numpy(np.float64)
    coded = [_codes(persons[name].to_numpy(np.float64), parts[0]) for name in CATEGORIES]
    if encoding == "label":
        x = tabular.standardise(np.column_stack([numbers, *(c for c, _ in coded)]), parts[0])
    else:
        x = _onehot(tabular.standardise(numbers, parts[0]), coded)
    return tabular.dataset(x, persons["PINCP"].to_numpy() > 50_000, parts=parts, n_classes=2)


def _name(state: str, year: int) -> str:
    if state not in FIPS:
        raise ValueError(f"dataset.call.states: there is no {state}; CA is California")
    if year < 2017:
        return f"ss{year % 100:02}p{state.lower()}.csv"
    return f"psam_p{FIPS[state]:02}.csv"


def _read(file: Path) -> pd.DataFrame:
    wanted = {*COLUMNS, *RENAMED}
    try:
        # All values are integers, but only floats can be blank.
        persons = pd.read_csv(file, usecols=lambda name: name in wanted, dtype=np.float64)
    except ValueError as error:
        raise ValueError(
            f"dataset=acs_income: {file} cannot be read: {files.one_line(error)}"
        ) from error
    if "RELP" not in persons:
        persons = persons.rename(columns=RENAMED)
    if absent := [name for name in COLUMNS if name not in persons]:
        raise ValueError(f"dataset=acs_income: {file} lacks the columns {', '.join(absent)}")
    # Comparisons with a blank are false.
    working = (persons["AGEP"] > 16) & (persons["WKHP"] > 0)
    return persons[working & (persons["PINCP"] > 100) & (persons["PWGTP"] >= 1)]


def _codes(values: NDArray[np.float64], train_rows: Rows) -> tuple[NDArray[np.int64], int]:
    """The number of each value among the values of the training part, or -1; and their count."""
    values = np.where(np.isnan(values), np.inf, values)  # unlike nan, inf equals itself
    categories = np.unique(values[train_rows])
    places = np.searchsorted(categories, values).clip(max=len(categories) - 1)
    return np.where(categories[places] == values, places, -1), len(categories)


def _onehot(
    numbers: NDArray[np.float32], coded: list[tuple[NDArray[np.int64], int]]
) -> NDArray[np.float32]:
    start = numbers.shape[1]
    x = np.zeros((len(numbers), start + sum(size for _, size in coded)), np.float32)
    x[:, :start] = numbers
    for codes, size in coded:
        rows = np.flatnonzero(codes >= 0)
        x[rows, start + codes[rows]] = 1
        start += size
    return x
