"""What a search is requested to do."""

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
"""What a search sets itself."""


@dataclass(frozen=True)
class Asked:
    """What the words of ``unlearnbench tune`` ask for.

    Attributes:
        studies: one a method on a data set, model and forget set.
        left_out: methods that there is nothing to tune of, and why.
        options: of ``conf/tuning.yaml``.
        settings: of the config.
        words: as they were typed.
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
        """Where originals and retrained models are."""
        return Store(Path(self.settings["paths"]["store"]))

    @property
    def name(self) -> str:
        """Of the runs that work at it."""
        return f"tune-{digest(sorted(study.key for study in self.studies))[:8]}"

    @property
    def notes(self) -> list[str]:
        """What is said of the methods that are left out."""
        return [f"left out: {name}, which {reason}" for name, reason in self.left_out.items()]

    @property
    def command(self) -> str:
        """To type it again."""
        return shlex.join(["unlearnbench", "tune", *self.words])


def ask(words: Sequence[str]) -> Asked:
    """The studies that words ask for.

    Args:
        words: of the command line, after ``tune``.

    Raises:
        ConfigError: a word is not valid.
    """
    _, _, overrides = parse_arguments("tune", words)
    options, overrides = compose.tuning(overrides)
    check_request(options)
    for text in overrides:
        if (name := text.lstrip("+").partition("=")[0].split(".")[0]) in OURS:
            instead = "seeds=…" if name == "seed" else "nothing: a search uses umia, and no defense"
            raise ConfigError(f"{text}: a search sets {name} itself; say {instead}")
    cells_of = [[*one, "attack=umia", "defense=none"] for one in grid_of_search(overrides)]
    studies, left_out = [], {}
    for cell in compose.cells(cells_of):
        study = study_of(cell, options)
        if reason := _untunable(study.cell):
            left_out[study.cell.names["method"]] = reason
        else:
            studies.append(study)
    if not studies:
        told = "; ".join(f"{name} {reason}" for name, reason in left_out.items())
        raise ConfigError(f"nothing to tune: {told}")
    settings = compose.settings(cells_of[0])
    launch.check(settings)
    return Asked(tuple(studies), left_out, options, settings, tuple(words))


def grid_of_search(overrides: Sequence[str]) -> list[list[str]]:
    """The cells' overrides, but for seeds and attacks, which a study (``sweep=``) may name."""
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
    """Why there is nothing to tune of a method; None if there is."""
    if cell.is_original:
        return "does nothing"
    if cell.from_scratch or cell.traits.get("ensemble"):
        return "trains from scratch: its settings are those of train="
    if not Study((cell,), (), "retrained", "tpe", False, 0).space:
        return "has no hyper-parameter with more than one value in its space"
    return None


def check_request(options: Mapping[str, Any]) -> None:
    """Refuse values of options that are not valid."""
    for name, words in (("selection", SELECTIONS), ("sampler", SAMPLERS)):
        if options[name] not in words:
            raise ConfigError(f"{name}={options[name]}: must be one of {', '.join(words)}")
    for name in ("seeds", "fresh"):
        listed = options[name]
        if any(type(one) is not int or one < 0 for one in listed) or len({*listed}) < len(listed):
            raise ConfigError(f"{name}={listed}: must be different whole numbers from 0 on")
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
