"""Valid values of settings, declared as data in the ``valid`` block of an option.

A declaration is a literal, an interval, a keyword for a kind of text, or a list of these::

    valid:
      call.epochs: "[0, 1e9]"              # an interval; ( and ) exclude the end
      call.mode: [online, offline]         # one of several literals
      limit: ["[1, 1e9] integer", null]    # null must be named unless it is the default
      shadow_models.models: "[4, 1e9] multiple of 4"
      call.architecture: text              # any text that is not empty
      call.mean: ["list of [0, 1]", null]  # a list with one element or more

A list is valid if the default is a list, whose elements are then checked, or if a list is
declared. Imports neither Hydra nor torch.
"""

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from unlearnbench.core.errors import ConfigError

TEXT = "text"
"""Declares any text that is not empty."""

LIST_OF = "list of "
"""Prefix to the declaration of an element: declares a list with one element or more."""

NUMBER = r"[-+]?(?:inf|[0-9][0-9.]*(?:e[-+]?[0-9]+)?)"
INTERVAL = re.compile(
    rf"([\[(])\s*({NUMBER})\s*,\s*({NUMBER})\s*([\])])(?:\s+(integer|even|multiple of \d+))?"
)

Literal = str | int | float | bool | None
Declaration = Literal | list[Literal]


def check(name: str, value: Any, declared: Declaration, *, listed: bool) -> None:
    """Refuse a value that is not declared as valid.

    Args:
        name: name of the setting, as typed.
        value: the value, in the type of its default.
        declared: the declaration.
        listed: whether the default is a list; the declaration then applies to each element.

    Raises:
        ConfigError: the value is not valid; one line with the key, the value and the valid values.
    """
    allowed = alternatives(declared)
    each = listed and isinstance(value, list) and not any(map(_declares_a_list, allowed))
    for element in value if each else [value]:
        if not any(_allows(alternative, element) for alternative in allowed):
            raise ConfigError(f"{name}={shown(value)}: must be {_listed_alternatives(allowed)}")


def alternatives(declared: Declaration) -> list[Literal]:
    """A declaration as a list."""
    return declared if isinstance(declared, list) else [declared]


def check_finite(name: str, value: Any) -> None:
    """Refuse NaN and infinity in a setting without a declaration.

    Raises:
        ConfigError: the value is NaN or infinite, or a list that holds such a number.
    """
    for element in _elements(value):
        if isinstance(element, float) and not math.isfinite(element):
            raise ConfigError(f"{name}={shown(value)}: must be a finite number")


def shown(value: Any) -> str:
    """A value as typed, for a message: in one line, cut to ``SHOWN`` characters."""
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
    """Limits of an interval, whether each is included, and the kind of its numbers."""
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
        return (
            isinstance(value, list)
            and bool(value)
            and all(_allows(each, element) for element in value)
        )
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
    # A comparison with NaN is false, so NaN is in no interval.
    above = value >= low if with_low else value > low
    below = value <= high if with_high else value < high
    if not (above and below):
        return False
    if not kind:
        return True
    factor = {"integer": 1, "even": 2}.get(kind) or int(kind.rpartition(" ")[2])
    return isinstance(value, int) and value % factor == 0


def _listed_alternatives(alternatives: list[Literal]) -> str:
    literals = [_described(a) for a in alternatives if isinstance(a, str) and not _interval(a)]
    literals += [str(a) for a in alternatives if not isinstance(a, str) and a is not None]
    ranges = [f"in {a}" for a in alternatives if isinstance(a, str) and _interval(a)]
    nulls = ["null" for a in alternatives if a is None]
    *first, last = [*ranges, *literals, *nulls]
    return f"{', '.join(first)} or {last}" if first else last


def _described(declared: str) -> str:
    if _declares_a_list(declared):
        return f"a list, each {_listed_alternatives([declared.removeprefix(LIST_OF)])}"
    return "a text that is not empty" if declared == TEXT else declared
