"""Compose cells from options. Knows Hydra; imports no torch, opens no data set."""

import copy
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unlearnbench.config import ranges as valid
from unlearnbench.config import validate
from unlearnbench.config.arguments import override_words
from unlearnbench.config.overrides import (
    NOT_COMPOSED,
    OF_METHOD,
    UNEXPECTED,
    VALID,
    as_typed,
    axis_of,
    by_axis,
    choice_of,
    dotted,
    has_key,
    head_of,
    keyed_line,
    launcher_overrides,
    leaves,
    nearest,
    one_line,
    parsed_override,
    plain_data,
    plain_value,
    search_path,
    seen_outside,
    subtree_of,
)
from unlearnbench.config.tuned import Tuned, read_tuned
from unlearnbench.config.validate import (
    check,
    check_folders,
    check_option,
    composed_with,
    conformed,
    hydra_ready,
    options,
    refuse_fixed,
    with_paths,
)
from unlearnbench.core.cell import AXES, KEYED_SETTINGS, Cell, Option, digest, target
from unlearnbench.core.errors import ConfigError


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
        parts = Composer(search_path(grid[0] if grid else ()))
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
        parts = Composer(search_path(overrides))
        top = parts.option("", tuple(o for o in overrides if axis_of(parsed_override(o)) == ""))
        known = options("method", search_path(overrides))
    for name in top["controls"]:
        if name not in known:
            raise ConfigError(f"controls={name}: no such method{nearest(name, known)}")
    return {key: value for key, value in top.items() if key not in KEYED_SETTINGS}


def study(overrides: Sequence[str]) -> list[str]:
    """The overrides that ``sweep=NAME`` among these stands for; none where there is none."""
    chosen = [
        text
        for text, override in ((text, parsed_override(text)) for text in overrides)
        if override.key_or_group == "sweep" and override.value() is not None
    ]
    if not chosen:
        return []
    with hydra_ready():
        check(overrides)
        words = [*search_path(overrides), *chosen]
        composed = composed_with("config", words, True)
    return [f"{key}={value}" for key, value in composed.hydra.sweeper.params.items()]


def tuning(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What ``unlearnbench tune`` is told beside cells, with its defaults; and the other overrides.

    Args:
        overrides: of both kinds; lists may be written as sweeps are, ``seeds=range(3)``.

    Raises:
        ConfigError: a value is not of its default's type.
    """
    with hydra_ready():
        usual = plain_data(validate.hydra_compose("tuning"))
        assert isinstance(usual, dict)
        declared = usual.pop(VALID)
        told, rest = dict(usual), []
        top_level = (str(key) for key in validate.hydra_compose("config") if key != VALID)
        known = [*usual, *top_level, "sweep", "hydra"]
        for text in overrides:
            override = parsed_override(text)
            name = str(override.key_or_group)
            top = re.split(r"[./@]", name)[0]
            if top not in known:
                raise ConfigError(f"{name} is no key here{nearest(top, known)}")
            if name not in usual:
                rest.append(text)
            elif override.is_sweep_override():
                told[name] = list(override.sweep_iterator())
            else:
                told[name] = plain_data(OmegaConf.create({"": override.value()}))[""]
    for name in ("seeds", "fresh"):
        told[name] = told[name] if isinstance(told[name], list) else [told[name]]
    return conformed(told, usual, declared, ""), rest


def launcher(overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The launcher that the overrides choose: its name, and its settings with their defaults.

    Raises:
        ConfigError: there is no such launcher, or a setting of it is unknown or of the wrong type.
    """
    mine = launcher_overrides(overrides)
    choice = [text for text in mine if text.startswith("hydra/")]
    with hydra_ready():
        check([*search_path(overrides), *mine])
        given, default = (
            composed_with("config", [*search_path(overrides), *words], True)
            for words in (mine, choice)
        )
        name = str(given.hydra.runtime.choices["hydra/launcher"])
        told, usual = (plain_data(one.hydra.launcher) for one in (given, default))
    declared = usual.pop(VALID, {})
    told.pop(VALID, None)
    free = {key: told.pop(key) for key, value in usual.items() if value == {}}  # any keys in there
    usual = {key: value for key, value in usual.items() if key not in free}
    checked = {**conformed(told, usual, declared, "hydra.launcher"), **free}
    return name, {key: value for key, value in checked.items() if key != "_target_"}


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
            if head_of(one) in swept and "." in str(one.key_or_group)
        }
        if partial:
            grid = _where_it_applies(grid, {*partial.values()}, search_path(overrides))
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
    parts = Composer(search)
    keys: dict[tuple[str, tuple[str, ...]], dict[str, bool]] = {}
    cells = []
    for cell in grid:
        kept = []
        for text in cell:
            override = parsed_override(text)
            name = str(override.key_or_group)
            if name not in names or override.is_add():
                kept.append(text)
                continue
            axis = head_of(override)
            place = axis, choice_of(axis, tuple(cell))
            known = keys.setdefault(place, {})
            if name not in known:
                known[name] = has_key(parts.composed_option(*place), name.split(".")[1:])
            if known[name]:
                kept.append(text)
        cells.append(kept)
    return cells


class Composer:
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
                self._composed[overrides] = validate.hydra_compose(
                    "config", overrides=[*self._search, *overrides]
                )
            except NOT_COMPOSED as error:
                check([*self._search, *overrides])
                raise ConfigError(one_line(error)) from error
        return self._composed[overrides]

    def composed_option(self, axis: str, choice: tuple[str, ...]) -> Any:
        """The option that a choice names, as it was composed, with nothing resolved."""
        return subtree_of(self._compose(choice), axis)

    def _changed_by(self, axis: str, overrides: tuple[str, ...]) -> Any:
        """Composed with the choice of option, then changed by the other overrides.

        As Hydra does it, but for its composing all anew for each seed of a sweep.
        """
        choice = choice_of(axis, overrides)
        rest = [parsed_override(text) for text in overrides if text not in choice]
        if any(override.is_add() or override.is_delete() for override in rest):
            return self._compose(overrides)
        config = self._compose(choice)
        if rest:
            # Of the top level without its axes: seeds are many, and to copy all takes 10 ms.
            config = copy.deepcopy(config if axis else subtree_of(config, axis))
            OmegaConf.set_struct(
                config, True
            )  # which a subtree is not, and unknown keys would pass
        for override in rest:
            try:
                OmegaConf.update(config, str(override.key_or_group), override.value())
            except OmegaConfBaseException as error:
                check([*self._search, *overrides])
                raise ConfigError(f"{override.input_line}: {one_line(error)}") from error
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
            mine = subtree_of(self._changed_by(axis, overrides), axis)
            self._seen[place] = seen_outside(mine, axis)
            if not self._seen[place]:
                self._options[place] = self._resolved(mine, axis, overrides)
        if not (seen := self._seen[place]):
            return self._options[place]
        words = tuple(
            text for text in whole or overrides if head_of(parsed_override(text)) in {axis, *seen}
        )
        if (axis, words) not in self._options:
            node = subtree_of(self._compose(words), axis)
            self._options[axis, words] = self._resolved(node, axis, overrides)
        return self._options[axis, words]

    def _default(self, axis: str, overrides: tuple[str, ...]) -> Any:
        choice = choice_of(axis, overrides)
        if (axis, choice) not in self._defaults:
            usual = plain_data(subtree_of(self._compose(choice), axis))
            if not isinstance(usual, dict):
                raise ConfigError(f"{axis}={valid.shown(usual)}: an option must be chosen")
            declared = usual.pop(VALID, None) or {}
            if not isinstance(declared, dict):
                raise ConfigError(f"{dotted(axis, VALID)}: must hold names of settings")
            self._declared[axis, choice] = declared
            self._defaults[axis, choice] = usual
        return self._defaults[axis, choice]

    def _resolved(self, node: Any, axis: str, overrides: tuple[str, ...]) -> Option:
        default, given = self._default(axis, overrides), plain_data(node)
        declared = self._declared[axis, choice_of(axis, overrides)]
        refuse_fixed(axis, overrides)
        given.pop(VALID, None)
        value = with_paths(conformed(given, default, declared, axis), axis)
        if axis:
            check_option(axis, value)
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
            raise ConfigError(one_line(error)) from error

    def cell(self, overrides: tuple[str, ...]) -> Cell:
        """One cell from its overrides."""
        mine = by_axis(overrides)
        top = self.option("", tuple(mine[""]))
        found = self._searched(top, tuple(mine["method"]))
        if found is not None:  # what was typed comes after it
            overrides = (*found.words, *overrides)
            mine = by_axis(overrides)
        parts = {axis: self.option(axis, tuple(mine[axis]), overrides) for axis in AXES}
        self._check_rows(parts["dataset"], parts["forget"])
        changed = [] if found is None else [f"tuned={as_typed(found.name)}"]
        for axis in AXES:
            usual = found.words if axis == "method" and found is not None else ()
            changed += self._changed(axis, tuple(mine[axis]), parts[axis], usual)
        lines = self._changed("", tuple(mine[""]), top, ())
        changed += [line for line in lines if keyed_line(line)]
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
            raise ConfigError(one_line(error)) from error

    def _searched(self, top: Option, overrides: tuple[str, ...]) -> "Tuned | None":
        """What ``tuned=`` says of the method that the overrides choose; None if it says nothing."""
        if (name := top["tuned"]["name"]) is None:
            return None
        method = self._default("method", overrides)
        place = str(name), str(method["name"])
        if place not in self._found:
            self._found[place] = read_tuned(top, method)
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
                plain = self.option(axis, (*choice_of(axis, overrides), *usual))
            default = dict(leaves(with_paths(plain, axis), axis))
            self._lines[place] = [
                f"{path}={as_typed(leaf)}"
                for path, leaf in leaves(value, axis)
                if default.get(path, leaf) != leaf
                and path.split(".")[-1] not in ("root", "trace_every", "checkpoint_minutes")
            ]
        return self._lines[place]


def notes(overrides: Iterable[Sequence[str]]) -> list[str]:
    """What is to be known of ``tuned=`` in lists of overrides: what it leaves alone, old seeds.

    Args:
        overrides: one list a cell.
    """
    untold: dict[str, set[str]] = {}
    seen: dict[str, set[int]] = {}
    with hydra_ready():
        grid = [tuple(one) for one in overrides]
        parts = Composer(search_path(grid[0] if grid else ()))
        for one in grid:
            mine = by_axis(one)
            top = parts.option("", tuple(mine[""]))
            if top["tuned"]["name"] is None:
                continue
            found = parts._searched(top, tuple(mine["method"]))
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
            return one_line(error if str(error) else other)
    return one_line(error)


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
