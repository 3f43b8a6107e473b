"""Errors that end in a row."""

import traceback
import unicodedata
from pathlib import Path


class Skip(Exception):
    """A cell that cannot be computed on principle; its row says ``skipped`` and this reason."""


class Failed(RuntimeError):
    """An artifact could not be made, and others that need it cannot either."""


RAISED = Exception, SystemExit
"""What code of an option may raise that is about the cell, and not about the process."""


class ConfigError(ValueError):
    """A user's mistake in an option, a key or a value: one line, with the nearest valid name."""


def printable(text: str) -> str:
    """Text without what a terminal or a file's reader would obey: each such sign by its number.

    Escape sequences, other control characters but the end of a line, signs that turn the direction
    of writing, halves of pairs.
    """
    if text.isprintable():
        return text
    return "".join(f"\\x{ord(sign):02x}" if _is_obeyed(sign) else sign for sign in text)


def _is_obeyed(sign: str) -> bool:
    return sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def text_of(error: BaseException) -> str:
    """The text of an error as one printable line; where there is none, what is known without it."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception's own method may raise anything
        text = ""
    return printable(text) or nothing_said(error)


def nothing_said(error: BaseException) -> str:
    """What is known of an error without a text: its type, what that means, where it was raised."""
    said = "not enough memory" if isinstance(error, MemoryError) else "no reason was given"
    told = f"{type(error).__name__}: {said}"
    if not (frames := traceback.extract_tb(error.__traceback__)):
        return told
    last = frames[-1]
    return f"{told} (in {Path(last.filename).name}, line {last.lineno}: {last.line})"
