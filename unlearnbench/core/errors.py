"""Errors that end in a row."""

import traceback
import unicodedata
from pathlib import Path


class Skip(Exception):
    """A cell that cannot be computed on principle; its row says ``skipped`` and this reason."""


class Failed(RuntimeError):
    """An artifact could not be made, and others that need it cannot either."""


RAISED = Exception, SystemExit
"""Exceptions of an option's code that belong to the cell and not to the process."""


class ConfigError(ValueError):
    """A user's mistake in an option, a key or a value: one line, with the nearest valid name."""


def printable(text: str) -> str:
    """Text with control characters replaced by their numbers.

    Replaced are escape sequences, control characters except the line end, direction marks, and
    surrogates.
    """
    if text.isprintable():
        return text
    return "".join(f"\\x{ord(sign):02x}" if _is_obeyed(sign) else sign for sign in text)


def _is_obeyed(sign: str) -> bool:
    return sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def text_of(error: BaseException) -> str:
    """The text of an error as one printable line; without a text, its type and location."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception's own method may raise anything
        text = ""
    return printable(text) or nothing_said(error)


def nothing_said(error: BaseException) -> str:
    """Description of an error without a text: its type, its meaning, and its location."""
    said = "not enough memory" if isinstance(error, MemoryError) else "no reason was given"
    message = f"{type(error).__name__}: {said}"
    if not (frames := traceback.extract_tb(error.__traceback__)):
        return message
    last = frames[-1]
    return f"{message} (in {Path(last.filename).name}, line {last.lineno}: {last.line})"
