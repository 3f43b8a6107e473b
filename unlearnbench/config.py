"""Compose cells and check what the user said. Knows Hydra; imports no torch, opens no data set."""

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unlearnbench.cell import AXES, KEEP, KEYED_SETTINGS, Cell, Option, digest, target
from unlearnbench.words import ConfigError, options_folder

# ---------------------------------------------------------------------------------------------
# Composing: each distinct option once (a full compose takes 50 ms), then cells from the parts.


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Inside the block Hydra composes our options, whether or not it is the running application."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(options_folder()), version_base="1.3", job_name="unlearnbench"):
        yield


def cells(overrides: Iterable[Sequence[str]], extra_methods: Sequence[str] = ()) -> list[Cell]:
    """The cells that lists of overrides ask for, in their order.

    Args:
        overrides: one list a cell, ``["method=scrub", "seed=1"]``; no sweeps in them.
        extra_methods: methods to add beside every cell, the controls; they come first.

    Raises:
        ConfigError: an option, key or value is not valid.
    """
    with hydra_ready():
        grid = [tuple(one) for one in overrides]
        parts = Parts(search_words(grid[0] if grid else ()))
        asked = [parts.cell(one) for one in grid]
        methods = [parts.option("method", (f"method={name}",)) for name in extra_methods]
    alike = {_but_for_method(cell): cell for cell in asked}
    # Hyper-parameters of a method say nothing about its controls.
    controls = [
        replace(cell, method=method, overrides=overrides, tuned=None)
        for method in methods
        for (overrides, *_), cell in alike.items()
    ]
    return list({cell.key: cell for cell in [*controls, *asked]}.values())


OF_METHOD = ("method.", "tuned=")
"""How overrides begin that are about the method alone."""


def _but_for_method(cell: Cell) -> tuple[Any, ...]:
    """What cells have in common that share their controls."""
    overrides = " ".join(o for o in cell.overrides.split() if not o.startswith(OF_METHOD))
    options = [getattr(cell, axis) for axis in AXES if axis != "method"]
    parts = [*options, cell.split, *cell.shadow.values()]
    # Options are composed once, and told apart by which they are, not by what is in them.
    return (overrides, cell.seed, cell.precision, *map(id, parts))


def settings(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings that are no axis and in no key: paths, device, workers, controls.

    Raises:
        ConfigError: a key or value is not valid.
    """
    with hydra_ready():
        parts = Parts(search_words(overrides))
        top = parts.option("", tuple(o for o in overrides if _axis(_parse(o)) == ""))
    return {key: value for key, value in top.items() if key not in KEYED_SETTINGS}


def study(overrides: Sequence[str]) -> list[str]:
    """The overrides that ``sweep=NAME`` among these stands for; none where there is none."""
    chosen = [text for text in overrides if str(_parse(text).key_or_group) == "sweep"]
    if not chosen:
        return []
    with hydra_ready():
        check(overrides)
        words = [*search_words(overrides), *chosen]
        composed = compose("config", overrides=words, return_hydra_config=True)
    return [f"{key}={value}" for key, value in composed.hydra.sweeper.params.items()]


def tuning(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What ``unlearnbench tune`` is told beside cells, with its defaults; and the other overrides.

    Args:
        overrides: of both kinds; lists may be written as sweeps are, ``seeds=range(3)``.

    Raises:
        ConfigError: a value is not of its default's type.
    """
    with hydra_ready():
        usual = _plain(compose("tuning"))
        assert isinstance(usual, dict)
        told, rest = dict(usual), []
        known = [*usual, *(str(key) for key in compose("config")), "sweep", "hydra"]
        for text in overrides:
            override = _parse(text)
            name = str(override.key_or_group)
            top = re.split(r"[./@]", name)[0]
            if top not in known:
                raise ConfigError(f"{name} is no key here{_nearest(top, known)}")
            if name not in usual:
                rest.append(text)
            elif override.is_sweep_override():
                told[name] = list(override.sweep_iterator())
            else:
                told[name] = _plain(OmegaConf.create({"": override.value()}))[""]
    for name in ("seeds", "fresh"):
        told[name] = told[name] if isinstance(told[name], list) else [told[name]]
    return _conform(told, usual, ""), rest


def launcher(overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The launcher that the overrides choose: its name, and its settings with their defaults.

    Raises:
        ConfigError: there is no such launcher, or a setting of it is unknown or of the wrong type.
    """
    mine = launcher_words(overrides)
    choice = [text for text in mine if text.startswith("hydra/")]
    with hydra_ready():
        check([*search_words(overrides), *mine])
        given, default = (
            compose(
                "config", overrides=[*search_words(overrides), *words], return_hydra_config=True
            )
            for words in (mine, choice)
        )
        name = str(given.hydra.runtime.choices["hydra/launcher"])
        told, usual = (_plain(one.hydra.launcher) for one in (given, default))
    free = {key: told.pop(key) for key, value in usual.items() if value == {}}  # any keys in there
    usual = {key: value for key, value in usual.items() if key not in free}
    conformed = {**_conform(told, usual, "hydra.launcher"), **free}
    return name, {key: value for key, value in conformed.items() if key != "_target_"}


def launcher_words(overrides: Iterable[str]) -> list[str]:
    """Those of the overrides that are about the launcher."""
    return [text for text in overrides if re.match(r"\+*hydra[./]launcher", text)]


def without_launcher(overrides: Iterable[str]) -> list[str]:
    """The others: those that say which cells, and on what to work."""
    words = list(overrides)
    mine = set(launcher_words(words))
    return [text for text in words if text not in mine]


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Sweeps in overrides multiplied out, as ``--multirun`` would.

    Raises:
        ConfigError: an option, key or value is not valid.
    """
    # Imported here: it stands for Hydra's own application, which only a sweep needs.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    with hydra_ready():
        split = BasicSweeper.split_arguments(check(overrides), None)[0]
        grid = [[plain_value(text) for text in one] for one in split]
    if not grid:
        raise ConfigError(f"nothing to run: a sweep is empty in {' '.join(overrides)}")
    return grid


def search_words(overrides: Iterable[str]) -> list[str]:
    """Those of the overrides that say where else Hydra looks for options."""
    return [text for text in overrides if text.startswith("hydra.searchpath=")]


class Parts:
    """Options composed in this run, each once."""

    def __init__(self, search: Sequence[str] = ()) -> None:
        self._search = search
        self._composed: dict[tuple[str, ...], Any] = {}
        self._options: dict[tuple[str, tuple[str, ...]], Option] = {}
        self._seen: dict[tuple[str, tuple[str, ...]], set[str]] = {}
        self._lines: dict[tuple[str, tuple[str, ...], int], list[str]] = {}
        self._defaults: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._found: dict[tuple[str, str], Tuned | None] = {}

    def _compose(self, overrides: tuple[str, ...]) -> Any:
        if overrides not in self._composed:
            try:
                self._composed[overrides] = compose("config", overrides=[*self._search, *overrides])
            except HydraException as error:
                check([*self._search, *overrides])
                raise ConfigError(_one_line(error)) from error
        return self._composed[overrides]

    def _changed_by(self, axis: str, overrides: tuple[str, ...]) -> Any:
        """Composed with the choice of option, then changed by the other overrides.

        As Hydra does it, but for its composing all anew for each seed of a sweep.
        """
        choice = _choice(axis, overrides)
        rest = [_parse(text) for text in overrides if text not in choice]
        if any(override.is_add() or override.is_delete() for override in rest):
            return self._compose(overrides)
        config = self._compose(choice)
        if rest:
            # Of the top level without its axes: seeds are many, and to copy all takes 10 ms.
            config = copy.deepcopy(config if axis else _subtree(config, axis))
            OmegaConf.set_struct(
                config, True
            )  # which a subtree is not, and unknown keys would pass
        for override in rest:
            try:
                OmegaConf.update(config, str(override.key_or_group), override.value())
            except OmegaConfBaseException as error:
                check([*self._search, *overrides])
                raise ConfigError(f"{override.input_line}: {_one_line(error)}") from error
        return config

    def option(self, axis: str, overrides: tuple[str, ...], whole: tuple[str, ...] = ()) -> Option:
        """The option of an axis (or with "" the top level), checked against its own defaults.

        Args:
            axis: one of AXES, or "" for what is on no axis.
            overrides: those of this axis only.
            whole: all of the cell's, for options that look at another axis (``${train...}``).
        """
        place = axis, overrides
        if place not in self._seen:
            mine = _subtree(self._changed_by(axis, overrides), axis)
            self._seen[place] = _seen_outside(mine, axis)
            if not self._seen[place]:
                self._options[place] = self._resolved(mine, axis, overrides)
        if not (seen := self._seen[place]):
            return self._options[place]
        words = tuple(text for text in whole or overrides if _head(_parse(text)) in {axis, *seen})
        if (axis, words) not in self._options:
            node = _subtree(self._compose(words), axis)
            self._options[axis, words] = self._resolved(node, axis, overrides)
        return self._options[axis, words]

    def _default(self, axis: str, overrides: tuple[str, ...]) -> Any:
        choice = _choice(axis, overrides)
        if (axis, choice) not in self._defaults:
            self._defaults[axis, choice] = _plain(_subtree(self._compose(choice), axis))
        return self._defaults[axis, choice]

    def _resolved(self, node: Any, axis: str, overrides: tuple[str, ...]) -> Option:
        value = _conform(_plain(node), self._default(axis, overrides), axis)
        assert isinstance(value, dict)
        if axis and value.get("name") is None:
            raise ConfigError(f"{axis}: an option's YAML must give its name")
        if "check" in value and Path(value["path"]).expanduser().exists():
            check_file, settings = target(value["check"])
            try:
                check_file(Path(value["path"]).expanduser(), value["call"], **settings)
            except (ValueError, OSError) as error:
                raise ConfigError(_one_line(error)) from error
        if "path" in value:
            value["content"] = content_fingerprint(Path(value["path"]))
        return value

    def cell(self, overrides: tuple[str, ...]) -> Cell:
        """One cell from its overrides."""
        mine = _by_axis(overrides)
        top = self.option("", tuple(mine[""]))
        found = self._tuned(top, tuple(mine["method"]))
        if found is not None:  # what was typed comes after it
            overrides = (*found.words, *overrides)
            mine = _by_axis(overrides)
        parts = {axis: self.option(axis, tuple(mine[axis]), overrides) for axis in AXES}
        if (keep := top["store"]["keep"]) not in KEEP:
            raise ConfigError(f"store.keep={keep}: no such word{_nearest(keep, KEEP)}")
        changed = [] if found is None else [f"tuned={found.name}"]
        for axis in AXES:
            usual = found.words if axis == "method" and found is not None else ()
            changed += self._changed(axis, tuple(mine[axis]), parts[axis], usual)
        lines = self._changed("", tuple(mine[""]), top, ())
        changed += [line for line in lines if _keyed_line(line)]
        transfer = parts["attack"].get("transfer") or {}
        shadow = {
            axis: self.option(axis, (f"{axis}={name}",))
            for axis, name in transfer.items()
            if name is not None
        }
        return Cell(
            **parts,
            shadow=shadow,
            seed=top["seed"],
            split=top["split"],
            precision=top["precision"],
            reference=self.option("method", ("method=retrain",)),
            overrides=" ".join(changed),
            cuda_graphs=top["cuda_graphs"],
            keep=top["store"]["keep"],
            tuned=None if found is None else {"name": found.name, "seconds": found.seconds},
        )

    def _tuned(self, top: Option, overrides: tuple[str, ...]) -> "Tuned | None":
        """What ``tuned=`` says of the method that the overrides choose; None if it says nothing."""
        if (name := top["tuned"]["name"]) is None:
            return None
        method = self._default("method", overrides)
        place = str(name), str(method["name"])
        if place not in self._found:
            self._found[place] = _tuned(top, method)
        return self._found[place]

    def _changed(
        self, axis: str, overrides: tuple[str, ...], value: Option, usual: tuple[str, ...]
    ) -> list[str]:
        """The lines that make the option out of its default; options are compared once.

        Args:
            axis: of the option.
            overrides: that made it.
            value: the option.
            usual: those of the overrides that count as its default.
        """
        place = axis, overrides, id(value)
        if place not in self._lines:
            plain = self._default(axis, overrides)
            if usual:
                plain = self.option(axis, (*_choice(axis, overrides), *usual))
            default = dict(leaves(plain, axis))
            self._lines[place] = [
                f"{path}={leaf}".replace(" ", "")  # the column is words apart by spaces
                for path, leaf in leaves(value, axis)
                if default.get(path, leaf) != leaf
                and path.split(".")[-1] not in ("root", "trace_every", "checkpoint_minutes")
            ]
        return self._lines[place]


# ---------------------------------------------------------------------------------------------
# Settings that a search has found.


@dataclass(frozen=True)
class Tuned:
    """What a search has found for a method.

    Attributes:
        name: of the folder, as ``tuned=`` says it.
        words: overrides that make the method so.
        seconds: that the search took.
        seeds: that it looked at.
    """

    name: str
    words: tuple[str, ...]
    seconds: float
    seeds: tuple[int, ...]


def _tuned_folder(name: str, results: str) -> Path:
    """The folder that ``tuned=`` names.

    Raises:
        ConfigError: there is none.
    """
    places = (options_folder() / "tuned", Path(results) / "tuned")
    for path in (*(place / name for place in places), Path(name)):
        if path.is_dir():
            return path
    known = sorted({path.name for place in places for path in place.glob("*") if path.is_dir()})
    near = _nearest(name, known) if known else "; unlearnbench tune makes them"
    raise ConfigError(f"tuned={name}: no such settings{near}")


def _tuned(top: Option, method: Option) -> Tuned | None:
    """What a search has found for a method; None where the folder has no file of it.

    Raises:
        ConfigError: the file is of another version of the method, or is none.
    """
    name = str(top["tuned"]["name"])
    path = _tuned_folder(name, top["paths"]["results"]) / f"{method['name']}.yaml"
    if not path.is_file():
        return None
    told = _plain(OmegaConf.load(path))
    try:
        about, call = told["provenance"], told["call"]
        seconds, version = float(about["seconds"]), about["method_version"]
        seeds = (*about["seeds"], *about["fresh_seeds"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"tuned={name}: {path} is not as unlearnbench tune writes it") from error
    if version != method["version"]:
        of = f"{path} was found for version {version} of method={method['name']}"
        raise ConfigError(f"tuned={name}: {of}, which is {method['version']} now: tune it again")
    words = tuple(f"method.{key}={_word(value)}" for key, value in leaves(call, "call"))
    return Tuned(name, words, seconds, seeds)


def _word(value: Any) -> str:
    """A value as Hydra reads it."""
    return "null" if value is None else json.dumps(value)


def notes(overrides: Iterable[Sequence[str]]) -> list[str]:
    """What is to be known of ``tuned=`` in lists of overrides: what it leaves alone, old seeds.

    Args:
        overrides: one list a cell.
    """
    untold: dict[str, set[str]] = {}
    seen: dict[str, set[int]] = {}
    with hydra_ready():
        grid = [tuple(one) for one in overrides]
        parts = Parts(search_words(grid[0] if grid else ()))
        for one in grid:
            mine = _by_axis(one)
            top = parts.option("", tuple(mine[""]))
            if top["tuned"]["name"] is None:
                continue
            found = parts._tuned(top, tuple(mine["method"]))
            if found is None:
                method = parts._default("method", tuple(mine["method"]))["name"]
                untold.setdefault(str(top["tuned"]["name"]), set()).add(method)
            elif top["seed"] in found.seeds:
                seen.setdefault(found.name, set()).add(top["seed"])
    told = [
        f"tuned={name}: holds nothing for {', '.join(sorted(methods))}; defaults are kept"
        for name, methods in untold.items()
    ]
    return told + [
        f"tuned={name}: found on seed {', '.join(map(str, sorted(seeds)))} among others, where it"
        " looks better than it is"
        for name, seeds in seen.items()
    ]


def _by_axis(overrides: Iterable[str]) -> dict[str, list[str]]:
    """The overrides by the axis that they are about, "" for the top level."""
    mine: dict[str, list[str]] = {axis: [] for axis in ("", *AXES)}
    for text in overrides:
        axis = _axis(_parse(text))
        if axis in mine:
            mine[axis].append(text)
    return mine


def _choice(axis: str, overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the overrides that choose the option, and do not change it."""
    return tuple(text for text in overrides if _parse(text).key_or_group == axis)


def _keyed_line(line: str) -> bool:
    top = re.split(r"[.=]", line)[0]
    return top in KEYED_SETTINGS and top != "seed"


def plain_value(text: str) -> str:
    """The word ``tuned=…`` as one of a value: Hydra takes it for a choice of ``conf/tuned``."""
    return re.sub(r"^(\+*)tuned=", r"\1tuned.name=", text)


@lru_cache(maxsize=100_000)
def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(plain_value(text))
    except HydraException as error:
        raise ConfigError(f"{text}: {_one_line(error)}") from error


def _head(override: Override) -> str:
    """The first name of what an override is about."""
    return str(override.key_or_group).split(".")[0].split("@")[0]


def _axis(override: Override) -> str:
    """The axis an override is about; "" for the top level, the group's name for other groups."""
    head = _head(override)
    return head if head in AXES or "/" in head or head in ("sweep", "hydra") else ""


def _subtree(config: Any, axis: str) -> Any:
    if axis:
        return config[axis]
    rest = {key: config._get_node(key) for key in config if key not in (*AXES, "hydra")}
    return OmegaConf.create(rest)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=False)


def _seen_outside(node: Any, axis: str) -> set[str]:
    """The top-level names that an option's interpolations look at, but its own."""
    text = json.dumps(OmegaConf.to_container(node, resolve=False))
    looked_at = set(re.findall(r"\$\{(\w+)[.}]", text))
    return looked_at - {axis, "oc"} if axis else set()  # oc: the environment


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value in nested mappings with its dotted name, which begins with ``path``."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def below(overrides: Sequence[str], path: str) -> dict[str, Any]:
    """What overrides say below a dotted path, as nested plain values.

    Raises:
        ConfigError: an override is about something else, or none.
    """
    told = OmegaConf.create()
    for text in overrides:
        override = _parse(text)
        name = str(override.key_or_group)
        if not name.startswith(f"{path}."):
            raise ConfigError(f"{text}: here only {path}.… can be set")
        OmegaConf.update(told, name.removeprefix(f"{path}."), override.value(), force_add=True)
    found = _plain(told)
    assert isinstance(found, dict)
    return found


# ---------------------------------------------------------------------------------------------
# Checking.


def _conform(value: Any, default: Any, path: str) -> Any:
    """The value in its default's type, so that ``lr=1`` and ``lr=1.0`` are one model."""
    if isinstance(default, dict):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}={value}: holds several keys: {', '.join(default)}")
        for key in value.keys() ^ default.keys():
            told = f"is no key here{_nearest(key, default)}" if key in value else "is missing"
            raise ConfigError(f"{path}.{key} {told}".lstrip("."))
        return {k: _conform(v, default[k], f"{path}.{k}" if path else k) for k, v in value.items()}
    if value == "???":
        raise ConfigError(f"{path} has no default: say {path}=…")
    if default is None or default == "???" or value is None:
        return value
    cast = _CASTS.get(type(default))
    try:
        return value if cast is None else cast(value)
    except (TypeError, ValueError):
        kind = type(default).__name__
        raise ConfigError(f"{path}={value}: must be {kind}, as its default {default}") from None


def _to_int(value: Any) -> int:
    if isinstance(value, bool | str) or int(value) != value:
        raise ValueError(value)
    return int(value)


def _to_float(value: Any) -> float:
    if isinstance(value, bool | str):
        raise ValueError(value)
    return float(value)


def _to_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _to_str(value: Any) -> str:
    if isinstance(value, dict | list | bool):
        raise ValueError(value)
    return str(value)


def _to_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(value)
    return value


_CASTS: dict[type, Callable[[Any], Any]] = {
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
        loader, name, words = hydra.config_loader, "config", list(search)
        return sorted(loader.get_group_options(axis, config_name=name, overrides=words))


def check(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides, sweeps allowed, and refuse what names nothing.

    Raises:
        ConfigError: an option or a key is unknown; it names the nearest valid one.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    search = search_words(overrides)
    base = compose("config", overrides=search)
    groups = [*AXES, "sweep"]
    parsed = []
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
        except HydraException as error:
            raise ConfigError(f"{text}: {_one_line(error)}") from error
        parsed.append(override)
        name = str(override.key_or_group)
        if name in (*groups, "hydra/launcher"):
            _check_options(override, options(name, search))
        elif "/" not in name and not name.startswith("hydra"):
            top = name.split(".")[0]
            valid = [*groups, *(str(k) for k in base if k not in groups)]
            if top not in valid:
                raise ConfigError(f"{name} is no key here{_nearest(top, valid)}")

    @cache
    def composed(*words: str) -> Any:
        return compose("config", overrides=[*words], return_hydra_config=True)

    for override in parsed:
        if "." in str(override.key_or_group) and not override.is_add():
            _check_path(override, parsed, search, composed)
    return parsed


def _check_path(
    override: Override,
    beside: Iterable[Override],
    search: Sequence[str],
    composed: Callable[..., Any],
) -> None:
    """Refuse a dotted key that is not in the options chosen beside it."""
    name = str(override.key_or_group)
    axis = name.split(".")[0]
    words, study = list(search), ""
    for other in beside:
        if other.key_or_group == axis or str(other.key_or_group).startswith(f"{axis}/"):
            swept = other.is_sweep_override()
            option = next(other.sweep_string_iterator()) if swept else other.value()
            words.append(f"{other.key_or_group}={option}")
        elif other.key_or_group == "sweep":
            study = str(other.value())
    # Hydra reads the command line before it reads what a study chooses.
    unnamed = study and len(words) == len(search)
    chosen = f"; name {axis}=… beside it, as sweep={study} does" if unnamed else ""
    node: Any = composed(*words)
    for part in name.split("."):
        valid = [str(key) for key in node] if OmegaConf.is_dict(node) else []
        if part not in valid:  # OmegaConf's own `in` does not find what has no default
            raise ConfigError(f"{name} is no key here{_nearest(part, valid)}{chosen}")
        node = node._get_node(part)


def _check_options(override: Override, valid: list[str]) -> None:
    name = str(override.key_or_group)
    if override.is_sweep_override():
        chosen = [str(value) for value in override.sweep_string_iterator()]
    else:
        chosen = [] if override.value() is None else [str(override.value())]
    if override.is_sweep_override() and not chosen:
        raise ConfigError(f"{override.input_line}: no option fits; there are: {', '.join(valid)}")
    for option in chosen:
        if option not in valid:
            raise ConfigError(f"{name}={option}: no such option{_nearest(option, valid)}")


def _nearest(name: str, valid: Iterable[str]) -> str:
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are: {', '.join(names)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """One line for a user: what was wrong in the overrides, or else what Hydra said."""
    if not isinstance(error, ConfigError):
        try:
            with hydra_ready():
                check(overrides)
                cells(expand(overrides)[:1])
        except ConfigError as better:
            return str(better)
    return _one_line(error)


def content_fingerprint(path: Path) -> str:
    """SHA-256 over a user's own file, or over the names and bytes in a folder, sorted.

    What is not there has the fingerprint ``missing``; its cells fail when they run.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return digest([[str(p.relative_to(path)), content_fingerprint(p)] for p in inside])
    return "missing"
