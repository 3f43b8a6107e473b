"""Warnings about unreadable files, which are skipped; each names the file and the repair."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlearnbench.core.errors import text_of


class DamagedFile(UserWarning):
    """A file is skipped; the message names the file, the reason and the repair."""


def passed_over(path: Path, error: Exception | str, repair: str) -> None:
    """Warn that a file is skipped.

    Args:
        path: the file.
        error: the reason why it cannot be read.
        repair: the action that repairs it; replaced by another one for a ``PermissionError``.
    """
    reason = text_of(error) if isinstance(error, BaseException) else str(error)
    if isinstance(error, PermissionError):
        repair = "give this user permission to read it"
    warnings.warn(f"{path} is passed over: {reason[:200]}; {repair}", DamagedFile, stacklevel=2)


def fits(value: Any, form: Any) -> bool:
    """Whether a value from a JSON file matches a form.

    Args:
        value: the parsed value.
        form: a type, a list with the form of its elements, or a dictionary of forms by key.
    """
    if isinstance(form, dict):
        return isinstance(value, dict) and all(
            key in value and fits(value[key], inner) for key, inner in form.items()
        )
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(element, form[0]) for element in value)
    return isinstance(value, form)


def inside(folder: Path, end: str = "") -> list[Path]:
    """The sorted paths in a folder whose names end with ``end``; empty for a missing folder.

    Raises:
        OSError: the folder cannot be read. ``Path.glob`` treats such a folder as empty.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(end))
    except FileNotFoundError:
        return []


@contextmanager
def in_one_line() -> Iterator[None]:
    """Print each ``DamagedFile`` warning inside the block as one line on standard error."""
    showwarning = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, DamagedFile):
            sys.stderr.write(f"unlearnbench: {message}\n")
        else:
            showwarning(message, category, *args, **kwargs)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = showwarning
