"""Downloaded files: where they lie, whether they are the official ones, who may fetch them."""

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError

from filelock import FileLock

DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, HTTPException, TarError)
"""What torchvision's downloads fail with: no network, no right to write, a broken archive."""


def md5(data: bytes) -> str:
    """MD5 in hexadecimal, as publishers of data sets state it."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def check(option: str, what: object, found: str, expected: str) -> None:
    """Refuse data that are not the ones the option's fingerprint was taken of.

    Raises:
        ValueError: the checksums differ.
    """
    if found != expected:
        raise ValueError(
            f"dataset={option}: {what} has checksum {found} instead of {expected}: "
            "put the official data there, or bring your own with dataset=npz"
        )


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks and not at length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def missing(option: str, folder: Path, names: Iterable[str], why: str = "") -> FileNotFoundError:
    """The error that says which files to put where."""
    reason = f" ({why})" if why else ""
    return FileNotFoundError(f"dataset={option}: put {', '.join(names)} into {folder}{reason}")


def unpacked(option: str, folder: Path, name: str, md5_of: str, error: Exception) -> bytes:
    """What is in a file as distributed, plain or packed (``.gz``), if it is the official one.

    Args:
        option: the data set, for messages.
        folder: where the file lies.
        name: without ``.gz``.
        md5_of: its MD5, unpacked.
        error: raised where there is neither.

    Raises:
        ValueError: it is another file.
    """
    file, packed = folder / name, folder / f"{name}.gz"
    if file.exists():
        data = file.read_bytes()
    elif packed.exists():
        file, data = packed, gzip.decompress(packed.read_bytes())
    else:
        raise error
    check(option, file, md5(data), md5_of)
    return data


@contextmanager
def downloading(root: Path) -> Iterator[None]:
    """One process at a time writes into ``root``: the workers of a sweep all start at once."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):
        yield


def attempt(download: Callable[[], object]) -> str:
    """Run a download; the reason why it failed, or nothing."""
    try:
        download()
    except DOWNLOAD_ERRORS as error:
        return f"download failed: {one_line(error)}"
    return ""
