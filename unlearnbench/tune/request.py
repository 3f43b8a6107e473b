"""The request of a hyper-parameter search: its studies and options."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlearnbench.config import compose
from unlearnbench.config.arguments import parse_arguments
from unlearnbench.config.overrides import without_launcher
from unlearnbench.core.cell import Cell, digest
from unlearnbench.core.errors import ConfigError
from unlearnbench.search.study import SAMPLERS, Study
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import local as launch

SELECTIONS = ("robust", "paper", "no_retrain")

OURS = ("seed", "attack", "defense")
"""Axes that a search sets itself."""


@dataclass(frozen=True)
class Asked:
    """The studies and options that the arguments of ``unlearnbench tune`` request.

    Attributes:
        studies: one study per method, data set, model and forget set.
        left_out: name of a method without tunable settings → the reason.
        options: the options of ``conf/tuning.yaml``.
        settings: the settings of the config.
        words: the arguments, as typed.
    """

    studies: tuple[Study, ...]
    left_out: Mapping[str, str]
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    words: tuple[str, ...]

    @property
    def results(self) -> Path:
        """The results folder."""
        return Path(self.settings["paths"]["results"])

    @property
    def store(self) -> Store:
        """The store of original and retrained models."""
        return Store(Path(self.settings["paths"]["store"]))

    @property
    def name(self) -> str:
        """The name of the runs of this search."""
        return f"tune-{digest(sorted(study.key for study in self.studies))[:8]}"

    @property
    def notes(self) -> list[str]:
        """One message per method that is left out."""
        return [f"left out: {name}, which {reason}" for name, reason in self.left_out.items()]

    @property
    def command(self) -> str:
        """The command line that repeats this request."""
        return shlex.join(["unlearnbench", "tune", *self.words])


def ask(argv: Sequence[str]) -> Asked:
    """The studies that the arguments request.

    Args:
        argv: the arguments of the command line after ``tune``.

    Raises:
        ConfigError: an argument is not valid, or no method has tunable settings.
    """
    _, _, overrides = parse_arguments("tune", argv)
    options, overrides = compose.tuning(overrides)
    check_request(options)
    for text in overrides:
        if (name := text.lstrip("+").partition("=")[0].split(".")[0]) in OURS:
            instead = "seeds=…" if name == "seed" else "nothing: a search uses umia, and no defense"
            raise ConfigError(f"{text}: a search sets {name} itself; say {instead}")
    cells_of = [
        [*cell_overrides, "attack=umia", "defense=none"]
        for cell_overrides in grid_of_search(overrides)
    ]
    studies, left_out = [], {}
    for cell in compose.cells(cells_of):
        study = study_of(cell, options)
        if reason := _untunable(study.cell):
            left_out[study.cell.names["method"]] = reason
        else:
            studies.append(study)
    if not studies:
        reasons = "; ".join(f"{name} {reason}" for name, reason in left_out.items())
        raise ConfigError(f"nothing to tune: {reasons}")
    settings = compose.settings(cells_of[0])
    launch.check(settings)
    return Asked(tuple(studies), left_out, options, settings, tuple(argv))


def grid_of_search(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each cell, without the seeds and attacks that a study (``sweep=``) names."""
    of_study = [
        text
        for text in compose.study(overrides)
        if text.partition("=")[0].split(".")[0] not in OURS
    ]
    return compose.expand([*of_study, *without_launcher(overrides)])


def study_of(cell: Cell, options: Mapping[str, Any]) -> Study:
    """The study of a cell."""
    return Study(
        cells=tuple(replace(cell, seed=seed) for seed in options["seeds"]),
        fresh=tuple(replace(cell, seed=seed) for seed in options["fresh"]),
        objective="no_retrain" if options["selection"] == "no_retrain" else "retrained",
        sampler=options["sampler"],
        prune=options["prune"],
        seed=options["draws"],
    )


def _untunable(cell: Cell) -> str | None:
    """The reason why a method has no tunable settings; None if it has some."""
    if cell.is_original:
        return "does nothing"
    if cell.from_scratch or cell.traits.get("ensemble"):
        return "trains from scratch: its settings are those of train="
    if not Study((cell,), (), "retrained", "tpe", False, 0).space:
        return "has no hyper-parameter with more than one value in its space"
    return None


def check_request(options: Mapping[str, Any]) -> None:
    """Raise ConfigError if the value of an option is not valid."""
    for name, valid in (("selection", SELECTIONS), ("sampler", SAMPLERS)):
        if options[name] not in valid:
            raise ConfigError(f"{name}={options[name]}: must be one of {', '.join(valid)}")
    for name in ("seeds", "fresh"):
        seeds = options[name]
        if any(type(seed) is not int or seed < 0 for seed in seeds) or len({*seeds}) < len(seeds):
            raise ConfigError(f"{name}={seeds}: must be different whole numbers from 0 on")
    if not options["seeds"]:
        raise ConfigError("seeds=[]: a trial needs one at least")
    if both := sorted({*options["seeds"]} & {*options["fresh"]}):
        raise ConfigError(f"fresh={options['fresh']}: {both} are tuned on; take others")
    for name in ("trials", "best"):
        if options[name] < 1:
            raise ConfigError(f"{name}={options[name]}: must be 1 or more")
    timeout = options["timeout"]
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise ConfigError(f"timeout={timeout}: must be seconds above 0, or null")
