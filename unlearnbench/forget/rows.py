"""Rows that a user names."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WHOLE = re.compile(r"[+-]?[0-9]+")


def rows(train_rows: Tensor, y_N: Tensor, *, path: str) -> Tensor:
    """The rows in a user's file; index tensor (n,), sorted.

    Row numbers count from 0 in the order of the user's own data, whatever the split: training file
    first and then test file where there are two.

    Args:
        train_rows: rows (n,) of the training part, without the validation rows.
        y_N: labels of all rows; only their number matters.
        path: a text file of row numbers apart by white space, a ``.npy`` array of them, or a
            ``.npy`` array of as many booleans as there are records.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else or something that could be meant in two ways, a row
            twice, or rows that are not trained on.
    """
    file, n = Path(path).expanduser(), len(y_N)
    if not file.is_file():
        raise FileNotFoundError(f"forget=rows: no file at forget.path={path}")
    given = _array(file, path) if file.suffix == ".npy" else _numbers(file, path)
    if given.ndim != 1:
        raise _wrong(path, f"an array of shape {given.shape}", n)
    if given.dtype.kind == "b":
        if len(given) != n:
            raise _wrong(path, f"a mask of {len(given)} booleans", n)
        given = np.flatnonzero(given)
    elif given.dtype.kind not in "iu" and len(given):
        raise _wrong(path, f"{len(given)} values of type {given.dtype}", n)
    elif (len(given) == n or len(given) > 2) and np.isin(given, [0, 1]).all():
        raise _wrong(path, f"{len(given)} times 0 or 1, which may be a mask", n)
    if not len(given):
        raise _wrong(path, "no row", n)
    beyond = given[(given < 0) | (given >= n)]
    if len(beyond):
        raise _wrong(path, f"row {beyond[0]}", n)
    chosen, times = np.unique(given.astype(np.int64), return_counts=True)
    if len(chosen) < len(given):
        raise _wrong(path, f"row {chosen[times > 1][0]} more than once", n)
    strangers = np.setdiff1d(chosen, train_rows.numpy())
    if len(strangers):
        shown = f"{', '.join(map(str, strangers[:5]))}{', …' if len(strangers) > 5 else ''}"
        where = "validated or tested on, or left out of the data set"
        raise ValueError(
            f"forget.path={path}: {len(strangers)} of {len(chosen)} rows are not trained on, but "
            f"{where}: {shown}"
        )
    return torch.from_numpy(chosen)


def _wrong(path: str, what: str, n: int) -> ValueError:
    valid = (
        f"must hold different row numbers from 0 to {n - 1}, as text or as a .npy array of "
        f"integers, or be a .npy array of {n} booleans"
    )
    return ValueError(f"forget.path={path}: holds {what}; it {valid}")


def _array(file: Path, path: str) -> NDArray[Any]:
    try:
        given = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"forget.path={path}: is no .npy array of integers ({why})") from error
    if not isinstance(given, np.ndarray):
        given.close()
        raise ValueError(f"forget.path={path}: is an archive, and must be one .npy array")
    return given


def _numbers(file: Path, path: str) -> NDArray[Any]:
    try:
        words = file.read_text("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"forget.path={path}: is no text; an array ends in .npy") from error
    for word in words:
        if not WHOLE.fullmatch(word) or len(word) > 18:
            shown = word if len(word) <= 20 else f"{word[:19]}…"
            told = f"must hold integers apart by white space, not {shown}"
            raise ValueError(f"forget.path={path}: {told}")
    return np.array(words, np.int64)
