"""Hyper-parameter search: which studies words ask for, their jobs, what is chosen, what is written.

The order is that of the file: ask, plan, run, choose, write. Imports no torch.
"""

import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import stdev
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from unlearnbench import atomic, commands, config, launch, results, search
from unlearnbench.cell import Cell, digest
from unlearnbench.launch import Watcher
from unlearnbench.plan import Plan, searched
from unlearnbench.record import commit
from unlearnbench.search import Outcome, Told
from unlearnbench.store import Store
from unlearnbench.study import SAMPLERS, Slot, Study
from unlearnbench.words import ConfigError, expanded, sorted_words

SELECTIONS = ("robust", "paper", "no_retrain")

OURS = ("seed", "attack", "defense")
"""What a search sets itself."""


# ---------------------------------------------------------------------------------------------
# What is asked.


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
    _, _, overrides = sorted_words("tune", words)
    options, overrides = config.tuning(overrides)
    _check(options)
    for text in overrides:
        if (name := text.lstrip("+").partition("=")[0].split(".")[0]) in OURS:
            instead = "seeds=…" if name == "seed" else "nothing: a search uses umia, and no defense"
            raise ConfigError(f"{text}: a search sets {name} itself; say {instead}")
    cells_of = [[*one, "attack=umia", "defense=none"] for one in _grid(overrides)]
    studies, left_out = [], {}
    for cell in config.cells(cells_of):
        study = _study(cell, options)
        if reason := _untunable(study.cell):
            left_out[study.cell.names["method"]] = reason
        else:
            studies.append(study)
    if not studies:
        told = "; ".join(f"{name} {reason}" for name, reason in left_out.items())
        raise ConfigError(f"nothing to tune: {told}")
    settings = config.settings(cells_of[0])
    launch.check(settings)
    return Asked(tuple(studies), left_out, options, settings, tuple(words))


def _grid(overrides: Sequence[str]) -> list[list[str]]:
    """The cells' overrides, but for seeds and attacks, which a study (``sweep=``) may name."""
    of_study = [
        text for text in config.study(overrides) if text.partition("=")[0].split(".")[0] not in OURS
    ]
    return config.expand([*of_study, *config.without_launcher(overrides)])


def _study(cell: Cell, options: Mapping[str, Any]) -> Study:
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
    if cell.untouched:
        return "does nothing"
    if cell.from_scratch or cell.traits.get("ensemble"):
        return "trains from scratch: its settings are those of train="
    if not Study((cell,), (), "retrained", "tpe", False, 0).space:
        return "has no hyper-parameter with more than one value in its space"
    return None


def _check(options: Mapping[str, Any]) -> None:
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


# ---------------------------------------------------------------------------------------------
# What there is to do.


def plan(asked: Asked) -> Plan:
    """The jobs that are left of the studies, and the models that they need.

    Args:
        asked: the studies.
    """
    options, slots = asked.options, []
    until = None if options["timeout"] is None else time.time() + options["timeout"]
    for study in asked.studies:
        there = search.told(asked.results, study)
        missing = [number for number in range(options["trials"]) if number not in there]
        slots += [Slot(study, number, until=until) for number in missing]
        if not study.fresh:
            continue
        known = search.candidates(there, options["best"])
        for place in range(options["best"] + 2):  # beside them the paper's choice, and the defaults
            done = place >= len(known) or len(known[place].fresh) == len(study.fresh)
            if missing or not done:
                slots.append(Slot(study, place, fresh=True, best=options["best"]))
    return searched(slots, asked.store)


def line(asked: Asked, todo: Plan) -> str:
    """What there is to do, in a line."""
    trials = [job for job in todo.jobs if job.slot is not None and not job.slot.fresh]
    whole = len(asked.studies) * asked.options["trials"]
    models = sum(job.slot is None for job in todo.jobs)
    stored = sum(todo.in_store.values())
    told = f"{len(asked.studies):,} studies of {asked.options['trials']:,} trials"
    told += f": {len(trials):,} to do" + (f", {whole - len(trials):,} there" if trials else "")
    if models or stored:
        told += f"; {models:,} originals and retrains to train, {stored:,} in store"
    return told


def expected(words: Sequence[str]) -> tuple[str, pd.DataFrame, list[str]]:
    """What there is to do, what it should cost by wave, and what is unknown of that or left out.

    Trials are alike as other jobs are, so there is a price as soon as any were tried here.

    Args:
        words: of the command line, after ``plan tune``.
    """
    asked = ask(words)
    todo = plan(asked)
    _, bill, unknown = commands.expected(todo, asked.words, asked.settings)
    return line(asked, todo), bill, [*unknown, *asked.notes]


def run(asked: Asked, todo: Plan, watch: Callable[[Plan], Watcher]) -> None:
    """Do the jobs here; what is found is kept, and the log written, if they are interrupted too.

    Args:
        asked: the studies.
        todo: their jobs.
        watch: given the plan, returns who is told of its progress.
    """
    try:
        launch.carry_out(todo, asked.settings, asked.name, ["tune", *asked.words], watch)
    finally:
        log(asked)


def submit(asked: Asked, todo: Plan) -> Iterator[str]:
    """Hand the jobs to SLURM, and say where they are; the same command collects them afterwards.

    Args:
        asked: the studies.
        todo: their jobs.
    """
    yield line(asked, todo)
    yield from commands.submit_search(todo, ["tune", *asked.words], asked.settings, asked.name)
    yield "when it is over, the same command without hydra/launcher writes tables and settings"


def on_slurm(asked: Asked) -> bool:
    """Whether the words ask for SLURM."""
    return config.launcher(asked.words)[0] == "slurm"


# ---------------------------------------------------------------------------------------------
# What is chosen.


@dataclass(frozen=True)
class Found:
    """What a study has found.

    Attributes:
        study: which.
        trials: what is over, by slot.
        chosen: the trial whose settings are taken; None if there is none yet.
    """

    study: Study
    trials: Mapping[int, Told]
    chosen: Told | None

    @property
    def seconds(self) -> float:
        """What the whole search took one worker."""
        return sum(trial.seconds for trial in self.trials.values())

    @property
    def measured_on(self) -> str | None:
        """The device whose seconds these are; None of several, which add up to nothing."""
        each = {
            outcome.measured_on
            for trial in self.trials.values()
            for outcome in (*trial.outcomes, *trial.fresh)
        }
        return each.pop() if len(each) == 1 else None

    def count(self, status: str) -> int:
        """How many trials ended so."""
        return sum(trial.status == status for trial in self.trials.values())


def found(asked: Asked) -> list[Found]:
    """What each study has found so far."""
    told = []
    for study in asked.studies:
        there = search.told(asked.results, study)
        trials = {slot: one for slot, one in there.items() if slot < asked.options["trials"]}
        told.append(Found(study, trials, choose(study, trials, asked.options)))
    return told


def choose(study: Study, trials: Mapping[int, Told], options: Mapping[str, Any]) -> Told | None:
    """The trial whose settings are taken.

    ``paper``: that with the smallest score on any one seed, as Deep Unlearn takes the best trial of
    its three studies, of a seed each. Else the best on fresh seeds of the ``best`` of the search:
    the minimum of many noisy scores is lucky, a second look at a few is less so. Without fresh
    seeds, the best of the search.

    Args:
        study: which.
        trials: what is over.
        options: of ``conf/tuning.yaml``.
    """
    if options["selection"] == "paper":
        return search.luckiest(trials)
    few = search.best(trials, options["best"])
    if not study.fresh:
        return few[0] if few else None
    again = [one for one in few if len(one.fresh) == len(study.fresh)]
    return min(again, key=lambda one: (search.mean(one.fresh), one.slot), default=None)


def table(there: Sequence[Found]) -> pd.DataFrame:
    """One line a study: what the search saw, and what is left of it on fresh seeds.

    ``in search`` is the mean score of the settings chosen over the tuning seeds, ``fresh`` the same
    over seeds that had no part in the search; the difference is the winner's curse.
    """
    lines = []
    for one in there:
        ends = (search.COMPLETE, search.PRUNED, search.FAILED)
        counts = ", ".join(str(one.count(status)) for status in ends)
        default = one.trials.get(0)
        lines.append(
            {
                "method": one.study.cell.names["method"],
                "trials (whole, pruned, failed)": f"{len(one.trials)} ({counts})",
                "default": _told(default.outcomes if default else ()),
                "default, fresh": _told(default.fresh if default else ()),
                "in search": _told(one.chosen.outcomes if one.chosen else ()),
                "fresh": _told(one.chosen.fresh if one.chosen else ()),
                "curse": _told_curse(one.chosen),
                "trial": "–" if one.chosen is None else str(one.chosen.slot),
                "minutes": f"{one.seconds / 60:.1f}",
            }
        )
    return pd.DataFrame(lines)


def _told(outcomes: Sequence[Outcome]) -> str:
    score = search.mean(outcomes)
    return f"{score:.4f}" if math.isfinite(score) else "–" if not outcomes else "failed"


def _told_curse(chosen: Told | None) -> str:
    if chosen is None or not chosen.fresh:
        return "–"
    return f"{search.mean(chosen.fresh) - chosen.score:+.4f}"


# ---------------------------------------------------------------------------------------------
# What is written.


def log(asked: Asked) -> None:
    """Write all trials of the studies as tables, a file a study."""
    for study in asked.studies:
        rows = [
            row for one in search.told(asked.results, study).values() for row in _rows(study, one)
        ]
        if rows:
            results.write(asked.results / "trials", study.key, rows, results.TRIALS)


def _rows(study: Study, trial: Told) -> Iterator[dict[str, Any]]:
    """A trial's rows: one a seed that it saw."""
    cell = study.cell
    about = {
        "study": study.key,
        **{axis: cell.names[axis] for axis in ("dataset", "model", "train", "forget", "method")},
        "overrides": cell.overrides,
        "objective": study.objective,
        "sampler": study.sampler,
        "trial": trial.slot,
        "settings": json.dumps(trial.settings, sort_keys=True),
        "trial_status": trial.status,
        "commit": commit(),
        "version": version("unlearnbench"),
    }
    for phase, outcomes in (("search", trial.outcomes), ("fresh", trial.fresh)):
        for one in outcomes:
            values = one.values or (None,) * len(VALUES)
            told = {"seed": one.seed, "score": one.score, "seconds": one.seconds, "phase": phase}
            told |= {"status": one.status, "reason": one.reason or None}
            told |= {"measured_on": one.measured_on}
            yield {**about, **told, **dict(zip(VALUES, values, strict=True))}


VALUES = ("retain_gap", "forget_gap", "val_gap", "disc_val")
"""Columns of the log: the first three a third of the accuracies' differences."""


def write(asked: Asked, there: Sequence[Found]) -> list[Path]:
    """Write the settings that were chosen, a file a method; where the defaults won, the defaults.

    Args:
        asked: the studies.
        there: what they have found.

    Returns:
        The folders.
    """
    folders = {}
    for one in there:
        if one.chosen is None:
            continue
        folder = into(asked, one.study)
        folder.mkdir(parents=True, exist_ok=True)
        folders[folder] = True
        path = folder / f"{one.study.cell.names['method']}.yaml"
        text = OmegaConf.to_yaml(OmegaConf.create(_described(asked, one, one.chosen)))
        head = f"# Written by unlearnbench tune; taken with tuned={folder.name}.\n"
        atomic.write(path, head + text)
    return list(folders)


def into(asked: Asked, study: Study) -> Path:
    """The folder of the settings that are found for a study."""
    if asked.options["into"] is not None:
        return expanded(asked.options["into"])
    names = study.cell.names
    how = {"robust": ""}.get(asked.options["selection"], f"_{asked.options['selection']}")
    return asked.results / "tuned" / f"{names['dataset']}_{names['model']}{how}"


def _described(asked: Asked, one: Found, chosen: Told) -> dict[str, Any]:
    call: dict[str, Any] = {}
    for name, value in chosen.settings.items():
        *above, last = name.split(".")
        place = call
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    cell, study, options = one.study.cell, one.study, asked.options
    states = (search.COMPLETE, search.PRUNED, search.FAILED, search.SKIPPED)
    default = one.trials.get(0)
    measured = chosen.fresh or chosen.outcomes
    provenance = {
        "command": asked.command,
        **{axis: cell.names[axis] for axis in ("dataset", "model", "train", "forget")},
        "overrides": cell.overrides,
        "method": cell.names["method"],
        "method_version": cell.method["version"],
        "objective": study.objective,
        "sampler": study.sampler,
        "selection": options["selection"],
        "trials": {state: one.count(state) for state in states},
        "trial": chosen.slot,
        "seeds": [c.seed for c in study.cells],
        "fresh_seeds": [c.seed for c in study.fresh],
        "score_in_search": _number(search.mean(chosen.outcomes)),
        "score_on_fresh_seeds": _number(search.mean(chosen.fresh)),
        "spread": stdev(o.score for o in measured) if len(measured) > 1 else None,
        "default_in_search": _number(default.score if default else math.inf),
        "default_on_fresh_seeds": _number(search.mean(default.fresh if default else ())),
        "seconds": round(one.seconds, 3),
        "measured_on": one.measured_on,
        "commit": commit(),
        "version": version("unlearnbench"),
    }
    return {"call": call, "provenance": provenance}


def _number(score: float) -> float | None:
    return score if math.isfinite(score) else None
