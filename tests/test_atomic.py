"""Files that are whole or absent."""

import os
from pathlib import Path

import pytest

from unlearnbench.core import atomic


@pytest.mark.tried(
    "a write fails halfway", "what was there before stays, and no temporary file is left"
)
def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    atomic.write(path, "before")

    def fails() -> None:
        with atomic.writing(path) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fails()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.tried(
    "two machines with processes of one number write a file at once",
    "their temporary files have different names, and one of them is whole",
)
def test_names_differ_where_process_numbers_do_not(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic.writing(path) as first, atomic.writing(path) as second:
        first.write(b"first")
        second.write(b"second")
        assert len(list(tmp_path.glob(".x.*.tmp"))) == 2
    assert path.read_bytes() == b"first"  # its block ended last


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_the_mode_is_that_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        atomic.write(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError, match=r"in place of a file; delete it: '.*/x'$"):
        atomic.write(tmp_path / "x", "content")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
