"""Downloaded files: their location, their checksums, and locked downloads."""

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError

from filelock import FileLock

DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, HTTPException, TarError)
"""Exceptions of torchvision's downloads: no network, no write permission, a broken archive."""


def md5(data: bytes) -> str:
    """MD5 in hexadecimal, as stated by publishers of data sets."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def check(option: str, source: object, checksum: str, expected: str) -> None:
    """Refuse data whose checksum differs from the option's fingerprint.

    Raises:
        ValueError: the checksums differ.
    """
    if checksum != expected:
        raise ValueError(
            f"dataset={option}: {source} has checksum {checksum} instead of {expected}: "
            "put the official data there, or bring your own with dataset=npz"
        )


def one_line(error: BaseException) -> str:
    """The text of an error in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def missing(option: str, folder: Path, names: Iterable[str], why: str = "") -> FileNotFoundError:
    """The error that names the missing files and their folder."""
    reason = f" ({why})" if why else ""
    return FileNotFoundError(f"dataset={option}: put {', '.join(names)} into {folder}{reason}")


def unpacked(option: str, folder: Path, name: str, md5_of: str, error: Exception) -> bytes:
    """The content of an official file, plain or packed (``.gz``).

    Args:
        option: the data set, for messages.
        folder: the folder of the file.
        name: file name without ``.gz``.
        md5_of: MD5 of the unpacked file.
        error: raised if neither file exists.

    Raises:
        ValueError: the checksum differs.
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
    """Lock ``root`` for one writing process: the workers of a sweep start at the same time."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):
        yield


def attempt(download: Callable[[], object]) -> str:
    """Run a download; returns the reason of a failure, or an empty string."""
    try:
        download()
    except DOWNLOAD_ERRORS as error:
        return f"download failed: {one_line(error)}"
    return ""
