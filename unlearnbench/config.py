"""Compose cells and check what the user said. Knows Hydra; imports no torch, opens no data set."""

import copy
import difflib
import hashlib
import json
import math
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
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unlearnbench import valid
from unlearnbench.cell import AXES, KEYED_SETTINGS, Cell, Option, digest, findable, target
from unlearnbench.words import (
    ConfigError,
    expanded,
    options_folder,
    override_words,
    whole_path,
)

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
    words = override_words(cell.overrides)
    overrides = " ".join(word for word in words if not word.startswith(OF_METHOD))
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
        known = options("method", search_words(overrides))
    for name in top["controls"]:
        if name not in known:
            raise ConfigError(f"controls={name}: no such method{_nearest(name, known)}")
    return {key: value for key, value in top.items() if key not in KEYED_SETTINGS}


def study(overrides: Sequence[str]) -> list[str]:
    """The overrides that ``sweep=NAME`` among these stands for; none where there is none."""
    chosen = [
        text
        for text, override in ((text, _parse(text)) for text in overrides)
        if override.key_or_group == "sweep" and override.value() is not None
    ]
    if not chosen:
        return []
    with hydra_ready():
        check(overrides)
        words = [*search_words(overrides), *chosen]
        composed = _composed("config", words, True)
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
        declared = usual.pop(VALID)
        told, rest = dict(usual), []
        top_level = (str(key) for key in compose("config") if key != VALID)
        known = [*usual, *top_level, "sweep", "hydra"]
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
    return _valid(told, usual, declared, ""), rest


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
            _composed("config", [*search_words(overrides), *words], True)
            for words in (mine, choice)
        )
        name = str(given.hydra.runtime.choices["hydra/launcher"])
        told, usual = (_plain(one.hydra.launcher) for one in (given, default))
    declared = usual.pop(VALID, {})
    told.pop(VALID, None)
    free = {key: told.pop(key) for key, value in usual.items() if value == {}}  # any keys in there
    usual = {key: value for key, value in usual.items() if key not in free}
    conformed = {**_valid(told, usual, declared, "hydra.launcher"), **free}
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
        parsed = check(overrides)
        split = BasicSweeper.split_arguments(parsed, None)[0]
        grid = [[plain_value(text) for text in one] for one in split]
        swept = {str(one.key_or_group) for one in parsed if one.is_sweep_override()} & {*AXES}
        partial = {
            text: str(one.key_or_group)
            for one, text in zip(parsed, overrides, strict=True)
            if _head(one) in swept and "." in str(one.key_or_group)
        }
        if partial:
            grid = _where_it_applies(grid, {*partial.values()}, search_words(overrides))
    if not grid:
        raise ConfigError(f"nothing to run: a sweep is empty in {' '.join(overrides)}")
    return grid


def _where_it_applies(
    grid: list[list[str]], names: set[str], search: Sequence[str]
) -> list[list[str]]:
    """Cells without those settings that the option of their own axis does not have.

    In a sweep over the options of an axis, a setting of one of them says nothing of the others:
    ``dataset=mnist,digits dataset.root=/data``.

    Args:
        grid: one list of overrides a cell.
        names: dotted names of the settings.
        search: overrides that say where else options are.
    """
    parts = Parts(search)
    keys: dict[tuple[str, tuple[str, ...]], dict[str, bool]] = {}
    cells = []
    for cell in grid:
        kept = []
        for text in cell:
            override = _parse(text)
            name = str(override.key_or_group)
            if name not in names or override.is_add():
                kept.append(text)
                continue
            axis = _head(override)
            place = axis, _choice(axis, tuple(cell))
            known = keys.setdefault(place, {})
            if name not in known:
                known[name] = _has(parts.composed_option(*place), name.split(".")[1:])
            if known[name]:
                kept.append(text)
        cells.append(kept)
    return cells


def _has(node: Any, path: Sequence[str]) -> bool:
    """Whether there is something at a path, with or without a value."""
    for part in path:
        if not OmegaConf.is_dict(node) or part not in [str(key) for key in node]:
            return False
        node = node._get_node(part)
    return True


def search_words(overrides: Iterable[str]) -> list[str]:
    """Those of the overrides that say where else Hydra looks for options."""
    return [text for text in overrides if text.startswith("hydra.searchpath=")]


class Parts:
    """Options composed in this run, each once."""

    def __init__(self, search: Sequence[str] = ()) -> None:
        check_folders(search)
        self._search = search
        self._composed: dict[tuple[str, ...], Any] = {}
        self._options: dict[tuple[str, tuple[str, ...]], Option] = {}
        self._seen: dict[tuple[str, tuple[str, ...]], set[str]] = {}
        self._lines: dict[tuple[str, tuple[str, ...], int], list[str]] = {}
        self._defaults: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._declared: dict[tuple[str, tuple[str, ...]], Mapping[str, valid.Declaration]] = {}
        self._found: dict[tuple[str, str], Tuned | None] = {}
        self._records: dict[int, Any] = {}
        self._checked: set[tuple[int, int]] = set()

    def _compose(self, overrides: tuple[str, ...]) -> Any:
        if overrides not in self._composed:
            try:
                self._composed[overrides] = compose("config", overrides=[*self._search, *overrides])
            except NOT_COMPOSED as error:
                check([*self._search, *overrides])
                raise ConfigError(_one_line(error)) from error
        return self._composed[overrides]

    def composed_option(self, axis: str, choice: tuple[str, ...]) -> Any:
        """The option that a choice names, as it was composed, with nothing resolved."""
        return _subtree(self._compose(choice), axis)

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
            usual = _plain(_subtree(self._compose(choice), axis))
            if not isinstance(usual, dict):
                raise ConfigError(f"{axis}={valid.shown(usual)}: an option must be chosen")
            declared = usual.pop(VALID, None) or {}
            if not isinstance(declared, dict):
                raise ConfigError(f"{_dotted(axis, VALID)}: must hold names of settings")
            self._declared[axis, choice] = declared
            self._defaults[axis, choice] = usual
        return self._defaults[axis, choice]

    def _resolved(self, node: Any, axis: str, overrides: tuple[str, ...]) -> Option:
        default, given = self._default(axis, overrides), _plain(node)
        declared = self._declared[axis, _choice(axis, overrides)]
        _refuse_fixed(axis, overrides)
        given.pop(VALID, None)
        value = _with_paths(_valid(given, default, declared, axis), axis)
        if axis:
            _check_option(axis, value)
        self._check_file(axis, value)
        return value

    def _check_file(self, axis: str, value: dict[str, Any]) -> None:
        """Check what an option's ``check`` can, and its file, whose content is part of its key."""
        path = Path(value["path"]) if "path" in value else None
        if path is not None and not path.exists():
            raise ConfigError(f"{axis}.path={path}: there is no such file or folder")
        try:
            if "check" in value:
                check, settings = target(value["check"])
                self._records[id(value)] = check(path, value["call"], **settings)
            if path is not None:
                value["content"] = content_fingerprint(path)
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
            raise ConfigError(f"{axis}.path={path}: {reason}") from error
        except ValueError as error:
            raise ConfigError(_one_line(error)) from error

    def cell(self, overrides: tuple[str, ...]) -> Cell:
        """One cell from its overrides."""
        mine = _by_axis(overrides)
        top = self.option("", tuple(mine[""]))
        found = self._tuned(top, tuple(mine["method"]))
        if found is not None:  # what was typed comes after it
            overrides = (*found.words, *overrides)
            mine = _by_axis(overrides)
        parts = {axis: self.option(axis, tuple(mine[axis]), overrides) for axis in AXES}
        self._check_rows(parts["dataset"], parts["forget"])
        changed = [] if found is None else [f"tuned={as_typed(found.name)}"]
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
            tuned=None if found is None else found.cost,
        )

    def _check_rows(self, dataset: Option, forget: Option) -> None:
        """Check a file of rows once more, where the number of records is known."""
        records = self._records.get(id(dataset))
        pair = id(dataset), id(forget)
        if records is None or "check" not in forget or pair in self._checked:
            return
        self._checked.add(pair)
        check_file, settings = target(forget["check"])
        try:
            path = Path(forget["path"]) if "path" in forget else None
            check_file(path, forget["call"], records=records, **settings)
        except ValueError as error:
            raise ConfigError(_one_line(error)) from error

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
            default = dict(leaves(_with_paths(plain, axis), axis))
            self._lines[place] = [
                f"{path}={as_typed(leaf)}"
                for path, leaf in leaves(value, axis)
                if default.get(path, leaf) != leaf
                and path.split(".")[-1] not in ("root", "trace_every", "checkpoint_minutes")
            ]
        return self._lines[place]


# ---------------------------------------------------------------------------------------------
# Settings that a search has found, or that were published.


@dataclass(frozen=True)
class Tuned:
    """Settings of a method from a file.

    Attributes:
        name: of the folder, as ``tuned=`` says it.
        words: overrides that make the method so.
        seconds: that the search took; None of settings from a source, which no search here found.
        seeds: that it looked at.
        measured_on: the device whose seconds these are; None where that is not known.
    """

    name: str
    words: tuple[str, ...]
    seconds: float | None
    seeds: tuple[int, ...]
    measured_on: str | None = None

    @property
    def cost(self) -> Option:
        """What a cell has of it."""
        about = {"name": self.name, "seconds": self.seconds}
        return {**about, "measured_on": self.measured_on}


def _tuned_folder(name: str, results: str) -> Path:
    """The folder that ``tuned=`` names.

    Raises:
        ConfigError: there is none.
    """
    places = (options_folder() / "tuned", Path(results) / "tuned")
    with _of_setting("tuned"):
        whole_path(name)  # as an override it may be no path
    for path in (*(place / name for place in places), expanded(name)):
        if path.is_dir():
            return path
    known = sorted({path.name for place in places for path in place.glob("*") if path.is_dir()})
    near = _nearest(name, known) if known else "; unlearnbench tune makes them"
    raise ConfigError(f"tuned={name}: no such settings{near}")


def _tuned(top: Option, method: Option) -> Tuned | None:
    """The settings of a method in the folder of ``tuned=``; None where it has no file of it.

    What a search has found holds for the version of the method that it ran; what is taken from a
    ``source`` holds for any.

    Raises:
        ConfigError: the file is of another version of the method, or is none.
    """
    name = str(top["tuned"]["name"])
    path = _tuned_folder(name, top["paths"]["results"]) / f"{method['name']}.yaml"
    if not path.is_file():
        return None
    try:
        told = _plain(OmegaConf.load(path))
    except (*NOT_COMPOSED, ValueError, YAMLError, OSError) as error:
        reason = _one_line(error)[:200]
        raise ConfigError(f"tuned={name}: {path} cannot be read ({reason})") from error
    try:
        about, settings = told["provenance"], dict(leaves(dict(told["call"]), "call"))
        seeds: tuple[int, ...] = ()
        if "source" in about:
            seconds, version = None, method["version"]
        else:
            seconds, version = float(about["seconds"]), about["method_version"]
            seeds = tuple(map(int, (*about["seeds"], *about["fresh_seeds"])))
            if not 0 <= seconds < math.inf or not isinstance(about.get("measured_on"), str | None):
                raise ValueError("no seconds of a device")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"tuned={name}: {path} is not as unlearnbench tune writes it") from error
    if version != method["version"]:
        of = f"{path} was found for version {version} of method={method['name']}"
        raise ConfigError(f"tuned={name}: {of}, which is {method['version']} now: tune it again")
    usual = dict(leaves(method["call"], "call"))
    if not_settings := [key for key in settings if "_target_" in key or key not in usual]:
        told_of = f"{not_settings[0]} is no setting of method={method['name']}"
        raise ConfigError(f"tuned={name}: {path}: {told_of}")
    words = tuple(f"method.{key}={as_typed(value)}" for key, value in settings.items())
    return Tuned(name, words, seconds, seeds, about.get("measured_on"))


def as_typed(value: Any) -> str:
    """A plain value as it is typed after ``key=``, and read back as the same value.

    Text is quoted where it would be read as something else, or holds a space.
    """
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_typed(inner)}" for key, inner in value.items()) + "}"
    if not isinstance(value, str):
        return str(value)
    # A text with ${ is no interpolation where a backslash stands before it.
    escaped = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", value)
    if re.fullmatch(r"[\w/.@%+-]+", value) and _read_back(escaped) == value:
        return escaped
    return QuotedString(escaped, Quote.single).with_quotes()


def _read_back(text: str) -> Any:
    try:
        return _parse(f"x={text}").value()
    except ConfigError:
        return None


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
        f"tuned={name} has no settings for {', '.join(sorted(methods))}: using their defaults"
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
    except NOT_COMPOSED as error:
        raise _unreadable(text, error) from error


def _unreadable(text: str, error: Exception) -> ConfigError:
    """What is wrong with an override, and how to type its value as a text."""
    key, _, value = text.partition("=")
    hint = ""
    if value and not re.search(r"""['"\[({]""", value):
        quoted = QuotedString(value, Quote.single).with_quotes()
        hint = f'; as a text it is "{key}={quoted}"'
    return ConfigError(f"{valid.shown(text)}: {valid.shown(_one_line(error))}{hint}")


def _head(override: Override) -> str:
    """The first name of what an override is about."""
    return str(override.key_or_group).split(".")[0].split("@")[0]


def _refuse_fixed(axis: str, overrides: Iterable[str]) -> None:
    """Refuse overrides of what says which option it is, and how the harness treats it."""
    for text in overrides:
        name = str(_parse(text).key_or_group)
        if name.removeprefix(f"{axis}.").split(".")[0] in (FIXED if axis else (VALID,)):
            raise ConfigError(f"{name}: is part of the option's YAML alone")


def _check_option(axis: str, value: Option) -> None:
    """Refuse an option without a name or a function, and ε of another training than its own."""
    if value.get("name") is None:
        raise ConfigError(f"{axis}: an option's YAML must give its name")
    kinds = {"name": (str, "a text"), "version": (int, "int"), "traits": (dict, "a mapping")}
    for key, (kind, told) in {**kinds, "prepare": (dict, "a mapping")}.items():
        if not isinstance(value.get(key), kind | None):
            raise ConfigError(f"{axis}.{key}={valid.shown(value[key])}: must be {told}")
    call = value.get("call") or {"_target_": None}
    if not (isinstance(call, Mapping) and "_target_" in call):
        raise ConfigError(f"{axis}.call: must give _target_, the function, or be null")
    for key, stated in (value.get("privacy") or {}).items():
        if key in call and key != "_target_" and stated != call[key]:
            told = f"must be that of {axis}.call.{key}, {call[key]}"
            raise ConfigError(f"{axis}.privacy.{key}={valid.shown(stated)}: {told}")


def _axis(override: Override) -> str:
    """The axis an override is about; "" for the top level, the group's name for other groups."""
    head = _head(override)
    return head if head in AXES or "/" in head or head in ("sweep", "hydra") else ""


def _subtree(config: Any, axis: str) -> Any:
    if axis:
        return config[axis]
    rest = {key: config._get_node(key) for key in config if key not in (*AXES, "hydra")}
    return OmegaConf.create(rest)


NOT_COMPOSED = (HydraException, OmegaConfBaseException, RecursionError)
"""What Hydra and OmegaConf raise where something cannot be read, composed or resolved."""

UNEXPECTED = (*NOT_COMPOSED, ValueError, TypeError, LookupError, AttributeError, OSError)
"""What can be raised besides while a mistake is looked for."""

VALID = "valid"
"""The block of an option, and of the top level, that declares what its settings may be."""

FIXED = (VALID, "name", "label", "version", "kinds", "traits", "threat")
"""What an option's YAML alone says."""


def _composed(name: str, words: Sequence[str], whole: bool = False) -> Any:
    """A configuration of Hydra, with its own settings if ``whole``.

    Raises:
        ConfigError: it cannot be composed.
    """
    try:
        return compose(name, overrides=list(words), return_hydra_config=whole)
    except NOT_COMPOSED as error:
        raise ConfigError(_one_line(error)) from error


def _plain(node: Any) -> Any:
    """A node as plain data, with its interpolations resolved.

    Raises:
        ConfigError: an interpolation names nothing, or itself.
    """
    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    except RecursionError as error:
        raise ConfigError("an interpolation ${…} names itself") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        told = str(error).splitlines()[0]
        raise ConfigError(f"{key}: {told}") from error


def _seen_outside(node: Any, axis: str) -> set[str]:
    """The top-level names that an option's interpolations look at, but its own."""
    text = json.dumps(OmegaConf.to_container(node, resolve=False))
    looked_at = set(re.findall(r"\$\{(\w+)[.}]", text))
    return looked_at - {axis, "oc"} if axis else set()  # oc: the environment


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)


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


def _conform(value: Any, default: Any, path: str, declared: Mapping[str, valid.Declaration]) -> Any:
    """The value in its default's type, so that ``lr=1`` and ``lr=1.0`` are one model.

    It is null only where its default is, or its option declares that it may be.
    """
    if isinstance(default, dict):
        if not isinstance(value, dict):
            keys = f"holds several keys: {', '.join(default)}"
            raise ConfigError(f"{path}={valid.shown(value)}: {keys}")
        for key in value.keys() ^ default.keys():
            told = f"is no key here{_nearest(key, default)}" if key in value else "is missing"
            raise ConfigError(f"{path}.{key} {told}".lstrip("."))
        return {k: _conform(v, default[k], _dotted(path, k), declared) for k, v in value.items()}
    if value == "???":
        raise ConfigError(f"{path} has no default: say {path}=…")
    value = _cast(value, default, path, declared)
    if path.endswith("._target_") and not (isinstance(value, str) and findable(value)):
        told = "must be module.function, of a module that can be imported"
        raise ConfigError(f"{path}={valid.shown(value)}: {told}")
    if path in declared:
        valid.check(path, value, declared[path], listed=isinstance(default, list))
    else:
        valid.check_finite(path, value)
    return value


def _cast(value: Any, default: Any, path: str, declared: Mapping[str, valid.Declaration]) -> Any:
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
        told = f"must be {kind}, as its default {default}"
        raise ConfigError(f"{path}={valid.shown(value)}: {told}") from None


def _valid(
    value: Any, default: Any, declared: Mapping[str, valid.Declaration], path: str
) -> dict[str, Any]:
    """Settings in their defaults' types, each as its option declares it.

    Args:
        value: the settings.
        default: the same, as the option has them.
        declared: the option's ``valid``.
        path: of the settings; "" at the top level.

    Raises:
        ConfigError: a setting is unknown, or its value is not valid.
    """
    conformed = _conform(value, default, path, {_dotted(path, k): v for k, v in declared.items()})
    assert isinstance(conformed, dict)
    return conformed


def _with_paths(settings: Mapping[str, Any], axis: str) -> dict[str, Any]:
    """Settings with their paths made whole: here alone ``~``, ``$NAME`` and links are followed.

    Folders that a command writes into (``paths.…``) stay relative, as they are shown.
    """
    whole = dict(settings)
    for key in ("path", "root"):
        if isinstance(whole.get(key), str) and whole[key] != "???":
            with _of_setting(_dotted(axis, key)):
                whole[key] = str(whole_path(whole[key]))
    for key, text in whole.get("paths", {}).items() if not axis else ():
        with _of_setting(f"paths.{key}"):
            whole["paths"] = {**whole["paths"], key: str(expanded(text))}
    return whole


@contextmanager
def _of_setting(name: str) -> Iterator[None]:
    """Inside the block a message about a value has the setting's name before it."""
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
    check_folders(search)
    base = _composed("config", search)
    groups = [*AXES, "sweep"]
    parsed = []
    for text in overrides:
        try:
            (override,) = parser.parse_overrides([text])
        except NOT_COMPOSED as error:
            raise _unreadable(text, error) from error
        parsed.append(override)
        name = str(override.key_or_group)
        if name in (*groups, "hydra/launcher"):
            _check_options(override, options(name, search))
        elif "/" not in name and not name.startswith("hydra"):
            top = name.split(".")[0]
            known = [*groups, *(str(k) for k in base if k not in (*groups, VALID))]
            if top not in known:
                raise ConfigError(f"{name} is no key here{_nearest(top, known)}")

    @cache
    def composed(*words: str) -> Any:
        return _composed("config", words, True)

    for override in parsed:
        if "." in str(override.key_or_group) and not override.is_add():
            _check_path(override, parsed, search, composed)
    return parsed


def check_folders(search: Sequence[str]) -> None:
    """Refuse folders of options that are not there, which Hydra would pass over."""
    for text in search:
        places = _parse(text).value()
        for place in places if isinstance(places, list) else []:
            folder = str(place).removeprefix("file://")
            if "://" not in folder and not Path(folder).is_dir():
                raise ConfigError(f"hydra.searchpath=[{place}]: there is no such folder")


def _check_path(
    override: Override,
    beside: Iterable[Override],
    search: Sequence[str],
    composed: Callable[..., Any],
) -> None:
    """Refuse a dotted key that is not in the options chosen beside it."""
    name = str(override.key_or_group)
    axis = name.split(".")[0]
    words, study, choices = list(search), "", [""]
    for other in beside:
        if other.key_or_group == axis:
            swept = other.is_sweep_override()
            options = list(other.sweep_string_iterator()) if swept else [str(other.value())]
            choices = [f"{axis}={option}" for option in options]
        elif str(other.key_or_group).startswith(f"{axis}/"):
            swept = other.is_sweep_override()
            option = next(other.sweep_string_iterator()) if swept else other.value()
            words.append(f"{other.key_or_group}={option}")
        elif other.key_or_group == "sweep":
            study = str(other.value())
    # Hydra reads the command line before it reads what a study chooses.
    unnamed = study and len(words) == len(search) and choices == [""]
    chosen = f"; name {axis}=… beside it, as sweep={study} does" if unnamed else ""
    # In a sweep over options it is enough that one of them has it.
    refusals = [
        _refusal(composed(*words, *filter(None, [choice])), name, chosen) for choice in choices
    ]
    if all(refusals):
        raise ConfigError(str(refusals[0]))


def _refusal(node: Any, name: str, chosen: str) -> str | None:
    """Why a dotted name is no key of a configuration; None if it is one."""
    for part in name.split("."):
        keys = [str(key) for key in node] if OmegaConf.is_dict(node) else []
        keys = [key for key in keys if key != VALID]
        if part not in keys:  # OmegaConf's own `in` does not find what has no default
            return f"{name} is no key here{_nearest(part, keys)}{chosen}"
        node = node._get_node(part)
    return None


def _check_options(override: Override, known: list[str]) -> None:
    name = str(override.key_or_group)
    if override.is_sweep_override():
        chosen = [str(value) for value in override.sweep_string_iterator()]
    else:
        null = override.value() is None
        if null and name in AXES:
            raise ConfigError(f"{name}=null: no such option{_nearest('null', known)}")
        chosen = [] if null else [str(override.value())]
    if override.is_sweep_override() and not chosen:
        raise ConfigError(f"{override.input_line}: no option fits; there are: {', '.join(known)}")
    for option in chosen:
        if option not in known:
            raise ConfigError(f"{name}={option}: no such option{_nearest(option, known)}")


RENAMED = {
    "shadows": "shadow_models",
    "zoo": "request_pairs",
    "deletions": "single_deletions",
}
"""Names of settings in earlier versions, and what they are called now."""


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    if name in RENAMED and RENAMED[name] in names:
        return f"; its name is {RENAMED[name]} now"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if not names:
        return ""
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
        except UNEXPECTED as other:  # what Hydra said first remains
            return _one_line(error if str(error) else other)
    return _one_line(error)


def content_fingerprint(path: Path) -> str:
    """SHA-256 over a user's own file, or over the names and bytes in a folder, sorted.

    Raises:
        OSError: there is neither, or it cannot be read.
    """
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return digest([[str(p.relative_to(path)), content_fingerprint(p)] for p in inside])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
