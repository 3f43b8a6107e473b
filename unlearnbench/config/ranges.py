"""What values a setting may have, declared as data beside it: the ``valid`` block of an option.

A declaration is a literal, an interval, a word for a kind of text, or a list of these::

    valid:
      call.epochs: "[0, 1e9]"              # an interval; ( and ) exclude the end
      call.mode: [online, offline]         # one of some words
      limit: ["[1, 1e9] integer", null]    # null must be named unless it is the default
      shadow_models.models: "[4, 1e9] multiple of 4"
      call.architecture: text              # any text that is not empty
      call.mean: ["list of [0, 1]", null]  # a list with one element or more

A list is valid where the default is a list, of which each element is checked, and where it is
declared. Imports neither Hydra nor torch.
"""

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from unlearnbench.core.errors import ConfigError

TEXT = "text"
"""The declaration of any text that is not empty."""

LIST_OF = "list of "
"""Before the declaration of each element: that of a list with one element or more."""

NUMBER = r"[-+]?(?:inf|[0-9][0-9.]*(?:e[-+]?[0-9]+)?)"
INTERVAL = re.compile(
    rf"([\[(])\s*({NUMBER})\s*,\s*({NUMBER})\s*([\])])(?:\s+(integer|even|multiple of \d+))?"
)

Literal = str | int | float | bool | None
Declaration = Literal | list[Literal]


def check(name: str, value: Any, declared: Declaration, *, listed: bool) -> None:
    """Refuse a value that is not among the declared.

    Args:
        name: of the setting, as it is typed.
        value: of its default's type.
        declared: what it may be.
        listed: whether the default is a list: then it declares each element.

    Raises:
        ConfigError: it is something else, in one line with the key, the value and what is valid.
    """
    allowed = alternatives(declared)
    each = listed and isinstance(value, list) and not any(map(_declares_a_list, allowed))
    for element in value if each else [value]:
        if not any(_allows(one, element) for one in allowed):
            raise ConfigError(f"{name}={shown(value)}: must be {_told(allowed)}")


def alternatives(declared: Declaration) -> list[Literal]:
    """A declaration as a list."""
    return declared if isinstance(declared, list) else [declared]


def check_finite(name: str, value: Any) -> None:
    """Refuse a number that is none, or has no end, in a setting of which nothing is declared.

    Raises:
        ConfigError: it is NaN or infinite, or a list that holds such a number.
    """
    for element in _elements(value):
        if isinstance(element, float) and not math.isfinite(element):
            raise ConfigError(f"{name}={shown(value)}: must be a finite number")


def shown(value: Any) -> str:
    """A value as it is typed, in a message: in one line, and not long."""
    text = "null" if value is None else "''" if value == "" else str(value)
    text = " ".join(text.split()) or repr(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


SHOWN = 80
"""Characters of a value in a message."""


def _elements(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _elements(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _elements(inner)
    else:
        yield value


@lru_cache(maxsize=1000)
def _interval(declared: str) -> tuple[float, float, bool, bool, str] | None:
    """The ends of an interval, which of them belong to it, and of what kind its numbers are."""
    parts = INTERVAL.fullmatch(declared)
    if parts is None:
        return None
    opening, low, high, closing, kind = parts.groups()
    return float(low), float(high), opening == "[", closing == "]", kind or ""


def _allows(declared: Literal, value: Any) -> bool:
    if not isinstance(declared, str):
        return type(value) is type(declared) and bool(value == declared)
    if declared == TEXT:
        return isinstance(value, str) and bool(value.strip())
    if _declares_a_list(declared):
        each = declared.removeprefix(LIST_OF)
        return isinstance(value, list) and bool(value) and all(_allows(each, one) for one in value)
    interval = _interval(declared)
    if interval is not None:
        return _is_number(value) and _within(value, *interval)
    if not isinstance(value, str):
        return False
    if declared.endswith(":N"):  # cuda:N
        return re.fullmatch(rf"{re.escape(declared[:-1])}\d+", value) is not None
    return value == declared


def _declares_a_list(declared: Literal) -> bool:
    return isinstance(declared, str) and declared.startswith(LIST_OF)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _within(
    value: float, low: float, high: float, with_low: bool, with_high: bool, kind: str
) -> bool:
    # A comparison with NaN is false, and so NaN lies in no interval.
    above = value >= low if with_low else value > low
    below = value <= high if with_high else value < high
    if not (above and below):
        return False
    if not kind:
        return True
    factor = {"integer": 1, "even": 2}.get(kind) or int(kind.rpartition(" ")[2])
    return isinstance(value, int) and value % factor == 0


def _told(alternatives: list[Literal]) -> str:
    words = [_described(a) for a in alternatives if isinstance(a, str) and not _interval(a)]
    words += [str(a) for a in alternatives if not isinstance(a, str) and a is not None]
    ranges = [f"in {a}" for a in alternatives if isinstance(a, str) and _interval(a)]
    nulls = ["null" for a in alternatives if a is None]
    *first, last = [*ranges, *words, *nulls]
    return f"{', '.join(first)} or {last}" if first else last


def _described(declared: str) -> str:
    if _declares_a_list(declared):
        return f"a list, each {_told([declared.removeprefix(LIST_OF)])}"
    return "a text that is not empty" if declared == TEXT else declared
