"""A user's file of rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearnbench.forget.rows import rows

TRAIN = torch.arange(5, 20)[torch.randperm(15, generator=torch.Generator().manual_seed(0))]
Y = torch.zeros(30, dtype=torch.int64)


def mask(*chosen: int, n: int = 30) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.isin(np.arange(n), chosen)


def written(folder: Path, given: Any) -> str:
    """A file that holds this: text as it is, an array in NumPy's format."""
    path = folder / ("mine.txt" if isinstance(given, str | bytes) else "mine.npy")
    if isinstance(given, str):
        path.write_text(given)
    elif isinstance(given, bytes):
        path.write_bytes(given)
    else:
        np.save(path, given, allow_pickle=True)
    return str(path)


@pytest.mark.parametrize(
    "given",
    [
        *(np.array([9, 7], kind) for kind in ("u1", "u8", "i4", ">i8")),
        "9\n7\n",
        "7 9",
        "\ufeff7\n9",
        pytest.param(
            mask(7, 9),
            marks=pytest.mark.tried(
                "a boolean mask of all records as `forget.path`", "the rows where it is true"
            ),
        ),
    ],
)
def test_rows_of_a_file(tmp_path: Path, given: Any) -> None:
    assert rows(TRAIN, Y, path=written(tmp_path, given)).tolist() == [7, 9]


TWICE = "row 7 more than once"
MASK = "30 times 0 or 1, which may be a mask"
UNTRAINED = r"1 of 2 rows are not trained on, but validated or tested on, .*: 1"


def tried(given: Any, message: str, what: str) -> Any:
    mark = pytest.mark.tried(f"`forget.path`: {what}", "refused: says what it holds and may hold")
    return pytest.param(given, message, marks=mark, id=what)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        tried(mask(7, n=29), "a mask of 29 booleans", "a boolean mask of another length"),
        tried(mask(), "no row", "a boolean mask without a true value"),
        tried(mask(7, 25), "1 of 2 rows are not trained on", "a mask with test rows"),
        tried(mask(7).astype("u1"), MASK, "a mask as 0 and 1 in uint8"),
        tried(mask(7).astype(int), MASK, "a mask as 0 and 1 in int64"),
        tried(" ".join(map(str, mask(7).astype(int))), MASK, "a mask as 0 and 1 in a text file"),
        tried("0\n1\n0\n", "3 times 0 or 1", "some 0 and 1 in a text file"),
        tried("True False", "integers .* not True", "booleans in a text file"),
        tried("7 9 7", TWICE, "a row twice, as text"),
        tried(np.array([7, 9, 7]), TWICE, "a row twice, as an array"),
        tried("7 -1", "row -1", "a negative row, as text"),
        tried(np.array([-1, 7]), "row -1", "a negative row, as an array"),
        tried("7 30", "row 30; it must hold different row numbers from 0 to 29", "a row beyond"),
        tried(np.array([7, 2**64 - 1], "u8"), "row 18446744073709551615", "a row beyond int64"),
        tried("7 99999999999999999999999", "integers", "a row beyond int64, as text"),
        tried("1 7", UNTRAINED, "a row that is not trained on"),
        tried("", "no row", "an empty text file"),
        tried(np.array([], int), "no row", "an empty array"),
        tried(np.array([]), "no row", "an empty array of floats"),
        tried("7.5", "integers", "a broken number as text"),
        tried("7 x", "integers", "a word"),
        tried("7,9", "integers apart by white space, not 7,9", "commas"),
        tried("row\n7", "integers .* not row", "a header"),
        tried(np.array([7.0, 9.0]), "2 values of type float64", "whole floats"),
        tried(np.array([[7, 9]]), r"an array of shape \(1, 2\)", "an array of two axes"),
        tried(mask(7)[:, None], r"an array of shape \(30, 1\)", "a mask of two axes"),
        tried(np.array(7), r"an array of shape \(\)", "a single number"),
        tried(np.array(["7"]), "1 values of type <U1", "an array of text"),
        tried(np.array([7, None]), "is no .npy array of integers", "an array of Python objects"),
        tried(b"\x93NUMPY\xff\xfe", "is no text", "an array under another suffix"),
    ],
)
def test_what_could_mean_something_else_is_refused(
    tmp_path: Path, given: Any, message: str
) -> None:
    path = written(tmp_path, given)
    with pytest.raises(ValueError, match=message) as caught:
        rows(TRAIN, Y, path=path)
    assert str(caught.value).startswith(f"forget.path={path}: ")
    assert "\n" not in str(caught.value)


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", np.array([7]))
    (tmp_path / "mine.npz").rename(tmp_path / "mine.npy")
    with pytest.raises(ValueError, match=r"must be one \.npy array"):
        rows(TRAIN, Y, path=str(tmp_path / "mine.npy"))


def test_rows_0_and_1_are_rows(tmp_path: Path) -> None:
    """Two of many records; of two records they could be a mask."""
    path = written(tmp_path, "0 1")
    assert rows(torch.arange(5), Y, path=path).tolist() == [0, 1]
    with pytest.raises(ValueError, match="which may be a mask"):
        rows(torch.arange(2), Y[:2], path=path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"forget\.path=.*: is no file"):
        rows(TRAIN, Y, path=str(tmp_path / "none.npy"))
