"""What values a setting may have, declared as data beside it: the ``valid`` block of an option.

A declaration is a literal, an interval, a word for a kind of text, or a list of these::

    valid:
      call.epochs: "[0, 1e9]"              # an interval; ( and ) exclude the end
      call.mode: [online, offline]         # one of some words
      limit: ["[1, 1e9] integer", null]    # null must be named unless it is the default
      shadow_models.models: "[4, 1e9] multiple of 4"
      call.architecture: text              # any text that is not empty

Of a list each element is checked. Imports neither Hydra nor torch.
"""

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from unlearnbench.words import ConfigError

TEXT = "text"
"""The declaration of any text that is not empty."""

NUMBER = r"[-+]?(?:inf|[0-9][0-9.]*(?:e[-+]?[0-9]+)?)"
INTERVAL = re.compile(
    rf"([\[(])\s*({NUMBER})\s*,\s*({NUMBER})\s*([\])])(?:\s+(integer|even|multiple of \d+))?"
)

Literal = str | int | float | bool | None
Declaration = Literal | list[Literal]


def check(name: str, value: Any, declared: Declaration) -> None:
    """Refuse a value that is not among the declared.

    Args:
        name: of the setting, as it is typed.
        value: of its default's type; of a list each element is checked.
        declared: what it may be.

    Raises:
        ConfigError: it is something else, in one line with the key, the value and what is valid.
    """
    alternatives = declared if isinstance(declared, list) else [declared]
    for element in value if isinstance(value, list) else [value]:
        if not any(_allows(one, element) for one in alternatives):
            raise ConfigError(f"{name}={shown(value)}: must be {_told(alternatives)}")


def check_finite(name: str, value: Any) -> None:
    """Refuse a number that is none, or has no end, in a setting of which nothing is declared.

    Raises:
        ConfigError: it is NaN or infinite, or a list that holds such a number.
    """
    for element in _elements(value):
        if isinstance(element, float) and not math.isfinite(element):
            raise ConfigError(f"{name}={shown(value)}: must be a finite number")


def check_all(settings: Mapping[str, Any], valid: Mapping[str, Declaration], path: str) -> None:
    """Check all settings of an option.

    Args:
        settings: of the option, by dotted name.
        valid: declarations, by the same names.
        path: what comes before these names, as they are typed.

    Raises:
        ConfigError: a value is not valid.
    """
    for name, value in settings.items():
        whole = f"{path}.{name}" if path else name
        if name in valid:
            check(whole, value, valid[name])
        else:
            check_finite(whole, value)


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
    interval = _interval(declared)
    if interval is not None:
        return _is_number(value) and _within(value, *interval)
    if not isinstance(value, str):
        return False
    if declared.endswith(":N"):  # cuda:N
        return re.fullmatch(rf"{re.escape(declared[:-1])}\d+", value) is not None
    return value == declared


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
    words = [str(a) for a in alternatives if isinstance(a, str) and not _interval(a)]
    words = ["a text that is not empty" if word == TEXT else word for word in words]
    words += [str(a) for a in alternatives if not isinstance(a, str) and a is not None]
    ranges = [f"in {a}" for a in alternatives if isinstance(a, str) and _interval(a)]
    nulls = ["null" for a in alternatives if a is None]
    *first, last = [*ranges, *words, *nulls]
    return f"{', '.join(first)} or {last}" if first else last
