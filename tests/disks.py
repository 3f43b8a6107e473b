"""Disks of a test's own: too small, or not to be written."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def full(folder: Path, size: str) -> Iterator[Path]:
    """A disk of this size, as ``mount`` knows sizes; skips where one may not be mounted."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_only(folder: Path, put: Callable[[Path], object]) -> Iterator[Path]:
    """A disk that takes what ``put`` writes on it, and from then on nothing."""
    with full(folder, "4m"):
        put(folder)
        _mount("-o", "remount,ro", str(folder))
        yield folder


def _mount(*words: str) -> None:
    try:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
