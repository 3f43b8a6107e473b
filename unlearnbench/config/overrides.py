"""Overrides as text: parse them, group them by axis, write them in a form that can be typed."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unlearnbench.config import ranges as valid
from unlearnbench.core.cell import AXES, KEYED_SETTINGS
from unlearnbench.core.errors import ConfigError

OF_METHOD = ("method.", "tuned=")
"""Prefixes of the overrides that apply to the method alone."""


def launcher_overrides(overrides: Iterable[str]) -> list[str]:
    """The overrides of the launcher."""
    return [text for text in overrides if re.match(r"\+*hydra[./]launcher", text)]


def without_launcher(overrides: Iterable[str]) -> list[str]:
    """The overrides without those of the launcher."""
    texts = list(overrides)
    of_launcher = set(launcher_overrides(texts))
    return [text for text in texts if text not in of_launcher]


def has_key(node: Any, path: Sequence[str]) -> bool:
    """Whether a path names a key, with or without a value."""
    for name in path:
        if not OmegaConf.is_dict(node) or name not in [str(key) for key in node]:
            return False
        node = node._get_node(name)
    return True


def search_path(overrides: Iterable[str]) -> list[str]:
    """The overrides that add folders to Hydra's search path."""
    return [text for text in overrides if text.startswith("hydra.searchpath=")]


def as_typed(value: Any) -> str:
    """A plain value as typed after ``key=``; parsing it gives the same value.

    Text is quoted if it would be parsed as another value, or contains a space.
    """
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_typed(inner)}" for key, inner in value.items()) + "}"
    if not isinstance(value, str):
        return str(value)
    # A backslash before ${ prevents interpolation.
    escaped = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)
    if re.fullmatch(r"[\w/.@%+-]+", value) and _read_back(escaped) == value:
        return escaped
    return QuotedString(escaped, Quote.single).with_quotes()


def _read_back(text: str) -> Any:
    try:
        return parsed_override(f"x={text}").value()
    except ConfigError:
        return None


def by_axis(overrides: Iterable[str]) -> dict[str, list[str]]:
    """The overrides by axis; "" is the top level."""
    by_axis_name: dict[str, list[str]] = {axis: [] for axis in ("", *AXES)}
    for text in overrides:
        axis = axis_of(parsed_override(text))
        if axis in by_axis_name:
            by_axis_name[axis].append(text)
    return by_axis_name


def choice_of(axis: str, overrides: tuple[str, ...]) -> tuple[str, ...]:
    """The overrides that choose the option of an axis, without those that change it."""
    return tuple(text for text in overrides if parsed_override(text).key_or_group == axis)


def keyed_line(line: str) -> bool:
    """Whether an override changes a keyed setting other than the seed."""
    top = re.split(r"[.=]", line)[0]
    return top in KEYED_SETTINGS and top != "seed"


def plain_value(text: str) -> str:
    """``tuned=…`` as ``tuned.name=…``: Hydra would read it as a choice of ``conf/tuned``."""
    return re.sub(r"^(\+*)tuned=", r"\1tuned.name=", text)


@lru_cache(maxsize=100_000)
def parsed_override(text: str) -> Override:
    """An override as Hydra parses it."""
    try:
        return OverridesParser.create().parse_override(plain_value(text))
    except NOT_COMPOSED as error:
        raise refusal_of(text, error) from error


def refusal_of(text: str, error: Exception) -> ConfigError:
    """The error for an override, with its value quoted as a text."""
    key, _, value = text.partition("=")
    hint = ""
    if value and not re.search(r"""['"\[({]""", value):
        quoted = QuotedString(value, Quote.single).with_quotes()
        hint = f'; as a text it is "{key}={quoted}"'
    return ConfigError(f"{valid.shown(text)}: {valid.shown(one_line(error))}{hint}")


def head_of(override: Override) -> str:
    """The first name in the key of an override."""
    return str(override.key_or_group).split(".")[0].split("@")[0]


def axis_of(override: Override) -> str:
    """The axis of an override; "" for the top level, the group's name for other groups."""
    head = head_of(override)
    return head if head in AXES or "/" in head or head in ("sweep", "hydra") else ""


def subtree_of(config: Any, axis: str) -> Any:
    """The subtree of a composed configuration for an axis; with "", all that is on no axis."""
    if axis:
        return config[axis]
    rest = {key: config._get_node(key) for key in config if key not in (*AXES, "hydra")}
    return OmegaConf.create(rest)


NOT_COMPOSED = (HydraException, OmegaConfBaseException, RecursionError)
"""Exceptions of Hydra and OmegaConf if a text cannot be parsed, composed or resolved."""

UNEXPECTED = (*NOT_COMPOSED, ValueError, TypeError, LookupError, AttributeError, OSError)
"""Exceptions that can be raised while the cause of an error is determined."""

VALID = "valid"
"""The block of an option, and of the top level, that declares valid values of its settings."""


def plain_data(node: Any) -> Any:
    """A node as plain data, with its interpolations resolved.

    Raises:
        ConfigError: an interpolation names no key, or itself.
    """
    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    except RecursionError as error:
        raise ConfigError("an interpolation ${…} names itself") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        message = str(error).splitlines()[0]
        raise ConfigError(f"{key}: {message}") from error


def seen_outside(node: Any, axis: str) -> set[str]:
    """The top-level names that an option's interpolations refer to, except its own."""
    text = json.dumps(OmegaConf.to_container(node, resolve=False))
    looked_at = set(re.findall(r"\$\{(\w+)[.}]", text))
    return looked_at - {axis, "oc"} if axis else set()  # oc: the environment


def dotted(path: str, key: str) -> str:
    """A dotted name below a path, which may be empty."""
    return f"{path}.{key}" if path else str(key)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value in nested mappings, with its dotted name below ``path``."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def below(overrides: Sequence[str], path: str) -> dict[str, Any]:
    """The settings of overrides below a dotted path, as nested plain values.

    Raises:
        ConfigError: the key of an override is not below the path, or a text is no override.
    """
    config = OmegaConf.create()
    for text in overrides:
        override = parsed_override(text)
        name = str(override.key_or_group)
        if not name.startswith(f"{path}."):
            raise ConfigError(f"{text}: here only {path}.… can be set")
        OmegaConf.update(config, name.removeprefix(f"{path}."), override.value(), force_add=True)
    settings = plain_data(config)
    assert isinstance(settings, dict)
    return settings


RENAMED = {
    "shadows": "shadow_models",
    "zoo": "request_pairs",
    "deletions": "single_deletions",
}
"""Names of settings in earlier versions, and their present names."""


def nearest(name: str, valid_names: Iterable[str]) -> str:
    """The last clause of a message about an unknown name: the nearest valid names."""
    names = list(valid_names)
    if name in RENAMED and RENAMED[name] in names:
        return f"; its name is {RENAMED[name]} now"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if not names:
        return ""
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are: {', '.join(names)}"


def one_line(error: BaseException) -> str:
    """The text of an error in one line."""
    return " ".join(str(error).split())
