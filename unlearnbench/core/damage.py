"""Files that cannot be read: named with what repairs them, and passed over."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlearnbench.core.errors import text_of


class DamagedFile(UserWarning):
    """A file is passed over; the message names it, the reason, and what to do."""


def passed_over(path: Path, error: Exception | str, repair: str) -> None:
    """Warn that a file is passed over.

    Args:
        path: of the file.
        error: why it cannot be read.
        repair: what to do about it, unless permission to read it is missing.
    """
    reason = text_of(error) if isinstance(error, BaseException) else str(error)
    if isinstance(error, PermissionError):
        repair = "give this user permission to read it"
    warnings.warn(f"{path} is passed over: {reason[:200]}; {repair}", DamagedFile, stacklevel=2)


def fits(value: Any, form: Any) -> bool:
    """Whether a value from a JSON file has a form: a type, a list of a form, forms by key."""
    if isinstance(form, dict):
        return isinstance(value, dict) and all(
            key in value and fits(value[key], inner) for key, inner in form.items()
        )
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(each, form[0]) for each in value)
    return isinstance(value, form)


def inside(folder: Path, end: str = "") -> list[Path]:
    """The paths in a folder whose names have an end, sorted; none where there is no folder.

    Raises:
        OSError: the folder may not be read, which ``Path.glob`` takes for an empty one.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(end))
    except FileNotFoundError:
        return []


@contextmanager
def in_one_line() -> Iterator[None]:
    """Inside the block such a warning is one line on standard error, and so is it said once."""
    plain = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *about: Any, **more: Any) -> None:
        if issubclass(category, DamagedFile):
            sys.stderr.write(f"unlearnbench: {message}\n")
        else:
            plain(message, category, *about, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = plain
