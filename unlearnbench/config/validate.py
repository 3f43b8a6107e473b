"""Check overrides against the options, their types and their valid values."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from unlearnbench.config import ranges as valid
from unlearnbench.config.arguments import expanded, whole_path
from unlearnbench.config.overrides import (
    NOT_COMPOSED,
    VALID,
    dotted,
    nearest,
    one_line,
    parsed_override,
    refusal_of,
    search_path,
)
from unlearnbench.core.cell import AXES, Option, findable
from unlearnbench.core.errors import ConfigError
from unlearnbench.core.resources import options_folder


def hydra_compose(
    name: str, overrides: Sequence[str] = (), return_hydra_config: bool = False
) -> Any:
    """Compose a configuration with Hydra; every composition calls this function."""
    return compose(name, list(overrides), return_hydra_config)


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Initialise Hydra with the package's options inside the block, unless it is initialised."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(options_folder()), version_base="1.3", job_name="unlearnbench"):
        yield


def refuse_fixed(axis: str, overrides: Iterable[str]) -> None:
    """Refuse overrides of the keys that only the YAML of an option may set."""
    for text in overrides:
        name = str(parsed_override(text).key_or_group)
        if name.removeprefix(f"{axis}.").split(".")[0] in (FIXED if axis else (VALID,)):
            raise ConfigError(f"{name}: is part of the option's YAML alone")


def check_option(axis: str, value: Option) -> None:
    """Refuse an option without a name or a function, or with ``privacy`` unlike its ``call``."""
    if value.get("name") is None:
        raise ConfigError(f"{axis}: an option's YAML must give its name")
    kinds = {"name": (str, "a text"), "version": (int, "int"), "traits": (dict, "a mapping")}
    for key, (kind, expected) in {**kinds, "prepare": (dict, "a mapping")}.items():
        if not isinstance(value.get(key), kind | None):
            raise ConfigError(f"{axis}.{key}={valid.shown(value[key])}: must be {expected}")
    call = value.get("call") or {"_target_": None}
    if not (isinstance(call, Mapping) and "_target_" in call):
        raise ConfigError(f"{axis}.call: must give _target_, the function, or be null")
    for key, stated in (value.get("privacy") or {}).items():
        if key in call and key != "_target_" and stated != call[key]:
            expected = f"must be that of {axis}.call.{key}, {call[key]}"
            raise ConfigError(f"{axis}.privacy.{key}={valid.shown(stated)}: {expected}")


FIXED = (VALID, "name", "label", "version", "kinds", "traits", "threat")
"""Keys that only the YAML of an option may set."""


def composed_with(name: str, overrides: Sequence[str], with_hydra: bool = False) -> Any:
    """A configuration composed by Hydra, including Hydra's own settings if ``with_hydra``.

    Raises:
        ConfigError: the configuration cannot be composed.
    """
    try:
        return hydra_compose(name, overrides=list(overrides), return_hydra_config=with_hydra)
    except NOT_COMPOSED as error:
        raise ConfigError(one_line(error)) from error


def _conform(value: Any, default: Any, path: str, declared: Mapping[str, valid.Declaration]) -> Any:
    """The value in the type of its default, so that ``lr=1`` and ``lr=1.0`` give the same model.

    Null is valid only if the default is null, or the option declares null.
    """
    if isinstance(default, dict):
        if not isinstance(value, dict):
            keys = f"holds several keys: {', '.join(default)}"
            raise ConfigError(f"{path}={valid.shown(value)}: {keys}")
        for key in value.keys() ^ default.keys():
            message = f"is no key here{nearest(key, default)}" if key in value else "is missing"
            raise ConfigError(f"{path}.{key} {message}".lstrip("."))
        return {k: _conform(v, default[k], dotted(path, k), declared) for k, v in value.items()}
    if value == "???":
        raise ConfigError(f"{path} has no default: say {path}=…")
    value = cast_to(value, default, path, declared)
    if path.endswith("._target_") and not (isinstance(value, str) and findable(value)):
        message = "must be module.function, of a module that can be imported"
        raise ConfigError(f"{path}={valid.shown(value)}: {message}")
    if path in declared:
        valid.check(path, value, declared[path], listed=isinstance(default, list))
    else:
        valid.check_finite(path, value)
    return value


def cast_to(value: Any, default: Any, path: str, declared: Mapping[str, valid.Declaration]) -> Any:
    """A value in the type of its default."""
    if default is None or (value is None and None in valid.alternatives(declared.get(path, VALID))):
        return value
    if default == "???":
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ConfigError(f"{path}={valid.shown(value)}: must be a text")
        return str(value)
    cast = _CASTS.get(type(default))
    try:
        return value if cast is None else cast(value, default)
    except (TypeError, ValueError, OverflowError):
        kind = type(default).__name__
        message = f"must be {kind}, as its default {default}"
        raise ConfigError(f"{path}={valid.shown(value)}: {message}") from None


def conformed(
    value: Any, default: Any, declared: Mapping[str, valid.Declaration], path: str
) -> dict[str, Any]:
    """Settings in the types of their defaults, checked against their declarations.

    Args:
        value: the settings.
        default: the settings of the option before overrides.
        declared: the ``valid`` block of the option.
        path: dotted path of the settings; "" at the top level.

    Raises:
        ConfigError: a setting is unknown, or its value is not valid.
    """
    conformed = _conform(value, default, path, {dotted(path, k): v for k, v in declared.items()})
    assert isinstance(conformed, dict)
    return conformed


def with_paths(settings: Mapping[str, Any], axis: str) -> dict[str, Any]:
    """Settings with absolute paths; only this function resolves ``~``, ``$NAME`` and links.

    Folders that a command writes into (``paths.…``) stay relative, as they are displayed.
    """
    resolved = dict(settings)
    for key in ("path", "root"):
        if isinstance(resolved.get(key), str) and resolved[key] != "???":
            with of_setting(dotted(axis, key)):
                resolved[key] = str(whole_path(resolved[key]))
    for key, text in resolved.get("paths", {}).items() if not axis else ():
        with of_setting(f"paths.{key}"):
            resolved["paths"] = {**resolved["paths"], key: str(expanded(text))}
    return resolved


@contextmanager
def of_setting(name: str) -> Iterator[None]:
    """Inside the block, the name of the setting is put before the message of an error."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name}={error}") from error


def _to_int(value: Any, default: Any) -> int:
    if isinstance(value, bool | str) or int(value) != value:
        raise ValueError(value)
    return int(value)


def _to_float(value: Any, default: Any) -> float:
    if isinstance(value, bool | str):
        raise ValueError(value)
    return float(value)


def _to_bool(value: Any, default: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _to_str(value: Any, default: Any) -> str:
    if value is None or isinstance(value, dict | list | bool):
        raise ValueError(value)
    return str(value)


def _to_list(value: Any, default: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(value)
    kinds = {type(element) for element in default}
    if len(kinds) != 1 or (cast := _CASTS.get(kind := kinds.pop())) is None or kind is list:
        return value
    return [cast(element, None) for element in value]


_CASTS: dict[type, Callable[[Any, Any], Any]] = {
    int: _to_int,
    float: _to_float,
    bool: _to_bool,
    str: _to_str,
    list: _to_list,
}


def options(axis: str, search: Sequence[str] = ()) -> list[str]:
    """The names on an axis."""
    with hydra_ready():
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        loader, name, overrides = hydra.config_loader, "config", list(search)
        return sorted(loader.get_group_options(axis, config_name=name, overrides=overrides))


def check(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides, including sweeps, and refuse unknown names.

    Raises:
        ConfigError: an option or a key is unknown; the message names the nearest valid one.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    search = search_path(overrides)
    check_folders(search)
    base = composed_with("config", search)
    groups = [*AXES, "sweep"]
    parsed = []
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
        except NOT_COMPOSED as error:
            raise refusal_of(text, error) from error
        parsed.append(override)
        name = str(override.key_or_group)
        if name in (*groups, "hydra/launcher"):
            _check_options(override, options(name, search))
        elif "/" not in name and not name.startswith("hydra"):
            top = name.split(".")[0]
            valid_names = [*groups, *(str(k) for k in base if k not in (*groups, VALID))]
            if top not in valid_names:
                raise ConfigError(f"{name} is no key here{nearest(top, valid_names)}")

    @cache
    def composed(*texts: str) -> Any:
        return composed_with("config", texts, True)

    for override in parsed:
        if "." in str(override.key_or_group) and not override.is_add():
            _check_path(override, parsed, search, composed)
    return parsed


def check_folders(search: Sequence[str]) -> None:
    """Refuse missing folders of options, which Hydra would ignore."""
    for text in search:
        places = parsed_override(text).value()
        for place in places if isinstance(places, list) else []:
            folder = str(place).removeprefix("file://")
            if "://" not in folder and not Path(folder).is_dir():
                raise ConfigError(f"hydra.searchpath=[{place}]: there is no such folder")


def _check_path(
    override: Override,
    others: Iterable[Override],
    search: Sequence[str],
    composed: Callable[..., Any],
) -> None:
    """Refuse a dotted key that is not in the options that the other overrides choose."""
    name = str(override.key_or_group)
    axis = name.split(".")[0]
    overrides, study, choices = list(search), "", [""]
    for other in others:
        if other.key_or_group == axis:
            swept = other.is_sweep_override()
            options = list(other.sweep_string_iterator()) if swept else [str(other.value())]
            choices = [f"{axis}={option}" for option in options]
        elif str(other.key_or_group).startswith(f"{axis}/"):
            swept = other.is_sweep_override()
            option = next(other.sweep_string_iterator()) if swept else other.value()
            overrides.append(f"{other.key_or_group}={option}")
        elif other.key_or_group == "sweep":
            study = str(other.value())
    # Hydra reads the command line before the options that a study chooses.
    unnamed = study and len(overrides) == len(search) and choices == [""]
    chosen = f"; name {axis}=… beside it, as sweep={study} does" if unnamed else ""
    # In a sweep over options, one option that has the key is sufficient.
    refusals = [
        _refusal(composed(*overrides, *filter(None, [choice])), name, chosen) for choice in choices
    ]
    if all(refusals):
        raise ConfigError(str(refusals[0]))


def _refusal(node: Any, name: str, chosen: str) -> str | None:
    """The reason why a dotted name is no key of a configuration; None if it is a key."""
    for level in name.split("."):
        keys = [str(key) for key in node] if OmegaConf.is_dict(node) else []
        keys = [key for key in keys if key != VALID]
        if level not in keys:  # `in` of OmegaConf does not find keys without a default
            return f"{name} is no key here{nearest(level, keys)}{chosen}"
        node = node._get_node(level)
    return None


def _check_options(override: Override, valid_options: list[str]) -> None:
    name = str(override.key_or_group)
    if override.is_sweep_override():
        chosen = [str(value) for value in override.sweep_string_iterator()]
    else:
        null = override.value() is None
        if null and name in AXES:
            raise ConfigError(f"{name}=null: no such option{nearest('null', valid_options)}")
        chosen = [] if null else [str(override.value())]
    if override.is_sweep_override() and not chosen:
        raise ConfigError(
            f"{override.input_line}: no option fits; there are: {', '.join(valid_options)}"
        )
    for option in chosen:
        if option not in valid_options:
            raise ConfigError(f"{name}={option}: no such option{nearest(option, valid_options)}")
