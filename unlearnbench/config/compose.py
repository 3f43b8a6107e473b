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
    """The cells of lists of overrides, in the same order.

    Args:
        overrides: one list per cell, ``["method=scrub", "seed=1"]``, without sweeps.
        extra_methods: methods to add for every cell, the controls; their cells come first.

    Raises:
        ConfigError: an option, key or value is not valid.
    """
    with hydra_ready():
        grid = [tuple(texts) for texts in overrides]
        parts = Composer(search_path(grid[0] if grid else ()))
        requested = [parts.cell(texts) for texts in grid]
        methods = [parts.option("method", (f"method={name}",)) for name in extra_methods]
    alike = {_but_for_method(cell): cell for cell in requested}
    # Hyper-parameters of a method do not apply to its controls.
    controls = [
        replace(cell, method=method, overrides=overrides, tuned=None)
        for method in methods
        for (overrides, *_), cell in alike.items()
    ]
    return list({cell.key: cell for cell in [*controls, *requested]}.values())


def _but_for_method(cell: Cell) -> tuple[Any, ...]:
    """The properties that cells with the same controls share."""
    texts = override_words(cell.overrides)
    overrides = " ".join(word for word in texts if not word.startswith(OF_METHOD))
    options = [getattr(cell, axis) for axis in AXES if axis != "method"]
    parts = [*options, cell.split, *cell.shadow.values()]
    # Each option is composed once, so options are compared by identity, not by content.
    return (overrides, cell.seed, cell.precision, *map(id, parts))


def settings(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings that belong to no axis and no key: paths, device, workers, controls.

    Raises:
        ConfigError: a key or value is not valid.
    """
    with hydra_ready():
        parts = Composer(search_path(overrides))
        top = parts.option("", tuple(o for o in overrides if axis_of(parsed_override(o)) == ""))
        existing = options("method", search_path(overrides))
    for name in top["controls"]:
        if name not in existing:
            raise ConfigError(f"controls={name}: no such method{nearest(name, existing)}")
    return {key: value for key, value in top.items() if key not in KEYED_SETTINGS}


def study(overrides: Sequence[str]) -> list[str]:
    """The overrides that ``sweep=NAME`` stands for; empty without ``sweep=NAME``."""
    chosen = [
        text
        for text, override in ((text, parsed_override(text)) for text in overrides)
        if override.key_or_group == "sweep" and override.value() is not None
    ]
    if not chosen:
        return []
    with hydra_ready():
        check(overrides)
        texts = [*search_path(overrides), *chosen]
        composed = composed_with("config", texts, True)
    return [f"{key}={value}" for key, value in composed.hydra.sweeper.params.items()]


def tuning(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings of ``unlearnbench tune``, with their defaults, and the remaining overrides.

    Args:
        overrides: of both kinds; lists may be written as sweeps, ``seeds=range(3)``.

    Raises:
        ConfigError: a value does not have the type of its default.
    """
    with hydra_ready():
        usual = plain_data(validate.hydra_compose("tuning"))
        assert isinstance(usual, dict)
        declared = usual.pop(VALID)
        values, rest = dict(usual), []
        top_level = (str(key) for key in validate.hydra_compose("config") if key != VALID)
        valid_names = [*usual, *top_level, "sweep", "hydra"]
        for text in overrides:
            override = parsed_override(text)
            name = str(override.key_or_group)
            top = re.split(r"[./@]", name)[0]
            if top not in valid_names:
                raise ConfigError(f"{name} is no key here{nearest(top, valid_names)}")
            if name not in usual:
                rest.append(text)
            elif override.is_sweep_override():
                values[name] = list(override.sweep_iterator())
            else:
                values[name] = plain_data(OmegaConf.create({"": override.value()}))[""]
    for name in ("seeds", "fresh"):
        values[name] = values[name] if isinstance(values[name], list) else [values[name]]
    return conformed(values, usual, declared, ""), rest


def launcher(overrides: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The launcher that the overrides choose: its name, and its settings with their defaults.

    Raises:
        ConfigError: the launcher does not exist, or a setting is unknown or of the wrong type.
    """
    of_launcher = launcher_overrides(overrides)
    choice = [text for text in of_launcher if text.startswith("hydra/")]
    with hydra_ready():
        check([*search_path(overrides), *of_launcher])
        composed, default = (
            composed_with("config", [*search_path(overrides), *texts], True)
            for texts in (of_launcher, choice)
        )
        name = str(composed.hydra.runtime.choices["hydra/launcher"])
        chosen, usual = (plain_data(config.hydra.launcher) for config in (composed, default))
    declared = usual.pop(VALID, {})
    chosen.pop(VALID, None)
    free = {key: chosen.pop(key) for key, value in usual.items() if value == {}}  # any keys
    usual = {key: value for key, value in usual.items() if key not in free}
    checked = {**conformed(chosen, usual, declared, "hydra.launcher"), **free}
    return name, {key: value for key, value in checked.items() if key != "_target_"}


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Sweeps in overrides multiplied out, as by ``--multirun``.

    Raises:
        ConfigError: an option, key or value is not valid.
    """
    # Imported here because it loads Hydra's application, which only a sweep needs.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    with hydra_ready():
        parsed = check(overrides)
        split = BasicSweeper.split_arguments(parsed, None)[0]
        grid = [[plain_value(text) for text in texts] for texts in split]
        swept = {
            str(override.key_or_group) for override in parsed if override.is_sweep_override()
        } & {*AXES}
        partial = {
            text: str(override.key_or_group)
            for override, text in zip(parsed, overrides, strict=True)
            if head_of(override) in swept and "." in str(override.key_or_group)
        }
        if partial:
            grid = _where_it_applies(grid, {*partial.values()}, search_path(overrides))
    if not grid:
        raise ConfigError(f"nothing to run: a sweep is empty in {' '.join(overrides)}")
    return grid


def _where_it_applies(
    grid: list[list[str]], names: set[str], search: Sequence[str]
) -> list[list[str]]:
    """Cells without the settings that the option of their own axis does not have.

    In a sweep over the options of an axis, a setting applies to the options that have it:
    ``dataset=mnist,digits dataset.root=/data``.

    Args:
        grid: one list of overrides per cell.
        names: dotted names of the settings.
        search: overrides of Hydra's search path.
    """
    parts = Composer(search)
    keys: dict[tuple[str, tuple[str, ...]], dict[str, bool]] = {}
    cells = []
    for cell in grid:
        remaining = []
        for text in cell:
            override = parsed_override(text)
            name = str(override.key_or_group)
            if name not in names or override.is_add():
                remaining.append(text)
                continue
            axis = head_of(override)
            place = axis, choice_of(axis, tuple(cell))
            has_setting = keys.setdefault(place, {})
            if name not in has_setting:
                has_setting[name] = has_key(parts.composed_option(*place), name.split(".")[1:])
            if has_setting[name]:
                remaining.append(text)
        cells.append(remaining)
    return cells


class Composer:
    """Composes options, each once per run."""

    def __init__(self, search: Sequence[str] = ()) -> None:
        check_folders(search)
        self._search = search
        self._composed: dict[tuple[str, ...], Any] = {}
        self._options: dict[tuple[str, tuple[str, ...]], Option] = {}
        self._seen: dict[tuple[str, tuple[str, ...]], set[str]] = {}
        self._lines: dict[tuple[str, tuple[str, ...], int], list[str]] = {}
        self._defaults: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._declared: dict[tuple[str, tuple[str, ...]], Mapping[str, valid.Declaration]] = {}
        self._tuned: dict[tuple[str, str], Tuned | None] = {}
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
        """The option that a choice names, as composed, without resolved interpolations."""
        return subtree_of(self._compose(choice), axis)

    def _changed_by(self, axis: str, overrides: tuple[str, ...]) -> Any:
        """Compose the choice of option, then apply the other overrides.

        The result is that of Hydra, which would compose everything again for each seed of a sweep.
        """
        choice = choice_of(axis, overrides)
        rest = [parsed_override(text) for text in overrides if text not in choice]
        if any(override.is_add() or override.is_delete() for override in rest):
            return self._compose(overrides)
        config = self._compose(choice)
        if rest:
            # For "", copy only the top level without axes: a complete copy takes 10 ms per seed.
            config = copy.deepcopy(config if axis else subtree_of(config, axis))
            OmegaConf.set_struct(
                config, True
            )  # a subtree is not a struct and would accept unknown keys
        for override in rest:
            try:
                OmegaConf.update(config, str(override.key_or_group), override.value())
            except OmegaConfBaseException as error:
                check([*self._search, *overrides])
                raise ConfigError(f"{override.input_line}: {one_line(error)}") from error
        return config

    def option(
        self, axis: str, overrides: tuple[str, ...], of_cell: tuple[str, ...] = ()
    ) -> Option:
        """The option of an axis (or with "" the top level), checked against its own defaults.

        Args:
            axis: one of AXES, or "" for the settings on no axis.
            overrides: the overrides of this axis only.
            of_cell: all of the cell's, for options that refer to another axis (``${train...}``).
        """
        place = axis, overrides
        if place not in self._seen:
            node = subtree_of(self._changed_by(axis, overrides), axis)
            self._seen[place] = seen_outside(node, axis)
            if not self._seen[place]:
                self._options[place] = self._resolved(node, axis, overrides)
        if not (seen := self._seen[place]):
            return self._options[place]
        texts = tuple(
            text for text in of_cell or overrides if head_of(parsed_override(text)) in {axis, *seen}
        )
        if (axis, texts) not in self._options:
            node = subtree_of(self._compose(texts), axis)
            self._options[axis, texts] = self._resolved(node, axis, overrides)
        return self._options[axis, texts]

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
        default, values = self._default(axis, overrides), plain_data(node)
        declared = self._declared[axis, choice_of(axis, overrides)]
        refuse_fixed(axis, overrides)
        values.pop(VALID, None)
        value = with_paths(conformed(values, default, declared, axis), axis)
        if axis:
            check_option(axis, value)
        self._check_file(axis, value)
        return value

    def _check_file(self, axis: str, value: dict[str, Any]) -> None:
        """Run the ``check`` of an option and fingerprint its file, whose content is in the key."""
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
        overrides_by_axis = by_axis(overrides)
        top = self.option("", tuple(overrides_by_axis[""]))
        tuned = self._searched(top, tuple(overrides_by_axis["method"]))
        if tuned is not None:  # later overrides take precedence
            overrides = (*tuned.words, *overrides)
            overrides_by_axis = by_axis(overrides)
        parts = {
            axis: self.option(axis, tuple(overrides_by_axis[axis]), overrides) for axis in AXES
        }
        self._check_rows(parts["dataset"], parts["forget"])
        changed = [] if tuned is None else [f"tuned={as_typed(tuned.name)}"]
        for axis in AXES:
            usual = tuned.words if axis == "method" and tuned is not None else ()
            changed += self._changed(axis, tuple(overrides_by_axis[axis]), parts[axis], usual)
        lines = self._changed("", tuple(overrides_by_axis[""]), top, ())
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
            tuned=None if tuned is None else tuned.cost,
        )

    def _check_rows(self, dataset: Option, forget: Option) -> None:
        """Check a file of rows again once the number of records is known."""
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
        """Tuned settings of the method that the overrides choose; None without such settings."""
        if (name := top["tuned"]["name"]) is None:
            return None
        method = self._default("method", overrides)
        place = str(name), str(method["name"])
        if place not in self._tuned:
            self._tuned[place] = read_tuned(top, method)
        return self._tuned[place]

    def _changed(
        self, axis: str, overrides: tuple[str, ...], value: Option, usual: tuple[str, ...]
    ) -> list[str]:
        """The overrides that turn the default into the option; each option is compared once.

        Args:
            axis: axis of the option.
            overrides: overrides of the option.
            value: the option.
            usual: the overrides that count as part of the default.
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
    """Remarks about ``tuned=``: methods without tuned settings, and seeds used in the search.

    Args:
        overrides: one list per cell.
    """
    without_settings: dict[str, set[str]] = {}
    seen: dict[str, set[int]] = {}
    with hydra_ready():
        grid = [tuple(texts) for texts in overrides]
        parts = Composer(search_path(grid[0] if grid else ()))
        for texts in grid:
            overrides_by_axis = by_axis(texts)
            top = parts.option("", tuple(overrides_by_axis[""]))
            if top["tuned"]["name"] is None:
                continue
            tuned = parts._searched(top, tuple(overrides_by_axis["method"]))
            if tuned is None:
                method = parts._default("method", tuple(overrides_by_axis["method"]))["name"]
                without_settings.setdefault(str(top["tuned"]["name"]), set()).add(method)
            elif top["seed"] in tuned.seeds:
                seen.setdefault(tuned.name, set()).add(top["seed"])
    messages = [
        f"tuned={name} has no settings for {', '.join(sorted(methods))}: using their defaults"
        for name, methods in without_settings.items()
    ]
    return messages + [
        f"tuned={name}: found on seed {', '.join(map(str, sorted(seeds)))} among others, where it"
        " looks better than it is"
        for name, seeds in seen.items()
    ]


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """One line for a user: the error in the overrides, or else the message of Hydra."""
    if not isinstance(error, ConfigError):
        try:
            with hydra_ready():
                check(overrides)
                cells(expand(overrides)[:1])
        except ConfigError as config_error:
            return str(config_error)
        except UNEXPECTED as other:  # the first message of Hydra is retained
            return one_line(error if str(error) else other)
    return one_line(error)


def content_fingerprint(path: Path) -> str:
    """SHA-256 over a user's file, or over the sorted names and bytes of a folder.

    Raises:
        OSError: the path does not exist, or cannot be read.
    """
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return digest([[str(p.relative_to(path)), content_fingerprint(p)] for p in inside])
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
