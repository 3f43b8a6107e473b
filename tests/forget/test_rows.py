"""A user's file of rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unlearnbench.forget.rows import rows

TRAIN = torch.arange(5, 20)
Y = torch.zeros(30, dtype=torch.int64)


@pytest.mark.parametrize("kind", ["npy", "txt"])
def test_rows_of_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"mine.{kind}"
    if kind == "npy":
        np.save(path, np.array([9, 7, 7], np.uint16))
    else:
        path.write_text("9\n7 7\n")
    assert rows(TRAIN, Y, path=str(path)).tolist() == [7, 9]


@pytest.mark.parametrize(
    ("text", "told"),
    [("1 7", "row 1 is not trained on"), ("7 x", "integers"), ("", "empty"), ("7.5", "integers")],
)
def test_mistakes(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        rows(TRAIN, Y, path=str(path))


def test_floats_and_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", np.array([7.0]))
    np.save(tmp_path / "object.npy", np.array([7, None]), allow_pickle=True)
    for name in ("float.npy", "object.npy"):
        with pytest.raises(ValueError, match="integers"):
            rows(TRAIN, Y, path=str(tmp_path / name))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"forget\.path="):
        rows(TRAIN, Y, path=str(tmp_path / "none.npy"))
