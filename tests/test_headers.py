"""Files of a user's own are checked as far as their headers go, before anything runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from unlearnbench.config import compose
from unlearnbench.core.errors import ConfigError

X, Y = np.zeros((20, 3)), np.arange(20) % 2
IMAGES = np.zeros((20, 3, 32, 32), np.uint8)


@pytest.mark.tried(
    "wrong array names, shapes, types or labels in an `npz`",
    "refused when the cells are composed, as by plan",
)
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X, "y": Y}, "the archive lacks x_train, y_train; it has X, y"),
        ({"x_train": X, "y_train": Y[:5]}, "do not fit"),
        ({"x_train": X, "y_train": Y[:, None]}, "do not fit"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "lacks y_test"),
        ({"x_train": IMAGES, "y_train": Y}, r"x\.transpose\(0, 2, 3, 1\)"),
        ({"x_train": IMAGES / 255, "y_train": Y}, "must be uint8"),
        ({"x_train": X.astype(object), "y_train": Y}, "must hold numbers, not object"),
        ({"x_train": X, "y_train": Y.astype(str)}, "must hold numbers, not <U"),
        ({"x_train": X[:, :0], "y_train": Y}, "there is nothing in it"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, 1:], "y_test": Y}, "differ in shape or type"),
        ({"x_train": X, "y_train": Y * 1.0}, "y holds whole numbers as floats"),
        ({"x_train": X, "y_train": Y * np.nan}, "y has values that are not finite"),
        ({"x_train": X, "y_train": Y * 2}, "there is 2 but no 1"),
        ({"x_train": X, "y_train": Y * 0}, "there must be two classes at least"),
        ({"x_train": X[:4], "y_train": Y[:4]}, "4 rows are too few to hold some out"),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": np.arange(20) % 3},
            "class 2 is in y_test, and not in y_train",
        ),
        (
            {"x_train": X, "y_train": np.full(20, 0.5), "x_test": X, "y_test": np.arange(20) / 9},
            "all targets are 0.5",
        ),
    ],
)
def test_an_archive_is_refused_by_its_headers(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ConfigError, match=f"^dataset=npz: .*{message}"):
        compose.cells([["dataset=npz", f"dataset.path={tmp_path / 'own.npz'}"]])


@pytest.mark.tried("a file that is no `npz`, as `dataset.path`", "refused when cells are composed")
def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_text("text")
    with pytest.raises(ConfigError, match="is no archive of plain arrays"):
        compose.cells([["dataset=npz", f"dataset.path={tmp_path / 'own.npz'}"]])


@pytest.mark.tried(
    "a file that is no checkpoint, as `train.path`", "refused when cells are composed"
)
@pytest.mark.parametrize("name", ["own.pt", "own.pth", "own.safetensors"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content in (b"", b"text of no use to anyone"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"^train.path={path}: "):
            compose.cells([["train=checkpoint", f"train.path={path}"]])
    if path.suffix == ".safetensors":
        save_file({"a": X}, path)
    else:
        torch.save({"a": torch.zeros(3)}, path)
    assert compose.cells([["train=checkpoint", f"train.path={path}"]])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ConfigError, match=f"^train.path={path}: "):
        compose.cells([["train=checkpoint", f"train.path={path}"]])


@pytest.mark.parametrize("setting", ["augment=flip", "mean=[0.5]", "std=[0.5]"])
def test_a_table_takes_nothing_of_images(tmp_path: Path, setting: str) -> None:
    np.savez(tmp_path / "own.npz", x_train=X, y_train=Y)
    words = ["dataset=npz", f"dataset.path={tmp_path / 'own.npz'}", f"dataset.call.{setting}"]
    with pytest.raises(ConfigError, match=r"^dataset\.call\..*: a table takes none"):
        compose.cells([words])


@pytest.mark.parametrize("word", ["count=3", "fraction=null"])
def test_a_random_forget_set_has_one_size(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^forget\.call\.fraction=.*, forget\.call\.count="):
        compose.cells([[f"forget.call.{word}"]])


def test_an_archive_of_arrays_is_no_checkpoint(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x_train=X)
    path = (tmp_path / "own.npz").rename(tmp_path / "own.pt")
    with pytest.raises(ConfigError, match=f"^train.path={path}: "):
        compose.cells([["train=checkpoint", f"train.path={path}"]])


@pytest.mark.tried(
    "rows beyond the data set, negative or twice, floats, folders, as `forget.path`",
    "refused when cells are composed, as by plan",
)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1 2 2", "holds row 2 more than once"),
        ("-1", "holds row -1"),
        ("1.5", "must hold integers apart by white space, not 1.5"),
        ("", "holds no row"),
        ("0 1 1 0", "may be a mask"),
        ("20", "holds row 20; it must hold different row numbers from 0 to 19"),
        (np.ones(5, bool), "holds a mask of 5 booleans"),
        (np.array([1.0]), "values of type float64"),
        (None, "is no file"),
    ],
)
def test_rows_are_checked_before_anything_runs(tmp_path: Path, rows: Any, message: str) -> None:
    np.savez(tmp_path / "own.npz", x_train=X, y_train=Y)
    path = tmp_path / ("rows.txt" if isinstance(rows, str) else "rows.npy")
    if rows is None:
        path.mkdir()
    elif isinstance(rows, str):
        path.write_text(rows)
    else:
        np.save(path, rows)
    words = ["dataset=npz", f"dataset.path={tmp_path / 'own.npz'}", "forget=rows"]
    with pytest.raises(ConfigError, match=f"^forget.path={path}: .*{message}"):
        compose.cells([[*words, f"forget.path={path}"]])
