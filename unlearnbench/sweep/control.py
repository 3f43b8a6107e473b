"""Submit, retry and cancel runs."""

import os
import re
import secrets
import shlex
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.core import damage
from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import ConfigError, text_of
from unlearnbench.store.lock import me, owner
from unlearnbench.sweep import journal, run_record, slurm
from unlearnbench.sweep import local as launch
from unlearnbench.sweep.estimate import Prepared, merged, prepared_plan, results_folder
from unlearnbench.sweep.plan import Plan
from unlearnbench.sweep.progress import STATES, Progress, progress
from unlearnbench.sweep.run_record import Run
from unlearnbench.sweep.submit import Options, submitted


def submit(
    cells: Sequence[Cell],
    words: Sequence[str],
    settings: Mapping[str, Any],
    sweep: str,
    only: Collection[str] | None = None,
) -> Iterator[str]:
    """Submit what the cells need to SLURM; say the plan first, then where it is.

    Args:
        cells: the grid, controls included.
        words: overrides that say the same, and the launcher's.
        settings: of the config.
        sweep: its name.
        only: keys of the cells to work at; all by default.

    Raises:
        slurm.Refused: SLURM does not take it.
    """
    launch.check(settings)
    todo = launch.planned(cells, settings, only)
    ready, options = prepared_plan(todo, words, settings, _marked(sweep))
    assert options is not None
    yield todo.line(sum(len(array.tasks) for array in ready.arrays))
    launch.keep_list(cells, settings, sweep)
    if not todo.jobs:
        yield f"the tables: unlearnbench collect {sweep}"
        return
    yield _handed_in(ready, options, words, settings, sweep)
    yield f"how far it is: unlearnbench status {sweep}; its tables: unlearnbench collect {sweep}"


def submit_search(
    todo: Plan, words: Sequence[str], settings: Mapping[str, Any], name: str
) -> Iterator[str]:
    """Submit the trials of a search to SLURM; say where they are.

    Args:
        todo: its jobs, of which there are some.
        words: that it was asked with, the launcher's among them.
        settings: of the config.
        name: of the search.

    Raises:
        slurm.Refused: SLURM does not take it.
    """
    ready, options = prepared_plan(todo, words, settings, _marked(name))
    assert options is not None
    yield _handed_in(ready, options, words, settings, name)
    yield f"how far it is: unlearnbench status {name}"


def _marked(sweep: str) -> str:
    """A name for the arrays of this go at it."""
    return f"{sweep}-{secrets.token_hex(2)}"


def _handed_in(
    ready: Prepared,
    options: Options,
    words: Sequence[str],
    settings: Mapping[str, Any],
    sweep: str,
) -> str:
    """Submit what is prepared, as a run with a folder; returns where it is."""
    todo = ready.plan
    launcher = {"name": "slurm", **vars(options)}
    run = run_record.begin(sweep, todo, settings, words=list(words), launcher=launcher)
    tasks = {
        job.key: array.place(index)
        for array in ready.arrays
        for index, jobs in enumerate(array.tasks)
        for job in jobs
    }
    run_record.write_jobs(run, run_record.listed(todo.jobs, tasks))
    try:
        run = submitted(run, ready.arrays, settings, options)
    except BaseException as error:
        with suppress(OSError):  # a full disk may be the reason
            run.tell(refused=text_of(error))
        raise
    numbers = ", ".join(array["job"] for array in run.told["arrays"])
    return f"submitted as {sweep}, SLURM jobs {numbers}; logs in {run.folder / 'slurm'}"


def found(sweep: str | None, words: Sequence[str]) -> tuple[Path, list[Run]]:
    """The results folder that overrides say, and the runs of a sweep there."""
    here = results_folder(words).absolute()
    return here, run_record.runs(here, sweep)


def progress_of(sweep: str | None, words: Sequence[str]) -> Progress:
    """How far a sweep is."""
    folder, runs = found(sweep, words)
    return progress(folder, Path(runs[-1].told["settings"]["paths"]["store"]), runs)


@dataclass(frozen=True)
class Again:
    """What is to be tried again, and how; or why there is nothing."""

    sweep: str
    study: str | None
    launcher: str
    words: list[str]
    chosen: set[str]
    reason: str = ""


def retry(sweep: str | None, flags: Collection[str], words: Sequence[str]) -> Again:
    """Which cells of a sweep to try again: what failed or is missing, and is not under way.

    Args:
        sweep: its name; the latest by default.
        flags: ``--failed``, ``--oom``.
        words: overrides that are added to the sweep's own.

    Raises:
        ConfigError: more memory is asked for, and of how much is not known.
    """
    at = progress_of(sweep, words)
    run = at.runs[-1]
    _no_search(run)
    chosen = at.chosen(failed="--failed" in flags, memory="--oom" in flags)
    launcher = run.told["launcher"]
    again = merged(run.told["words"], words)
    if "--oom" in flags:
        again = merged(again, _more_memory(launcher, words))
    studies = [word for word in again if word.startswith("sweep=")]
    study = run.sweep if studies else None
    states = at.cells["state"].value_counts()
    told = ", ".join(f"{states[state]:,} {state}" for state in STATES if state in states)
    reason = f"nothing to try again; cells: {told}"
    return Again(run.sweep, study, launcher["name"], again, chosen, reason)


def _no_search(run: Run) -> None:
    """Refuse what is for sweeps, where it is about a search.

    Raises:
        ConfigError: the run is one of ``unlearnbench tune``.
    """
    if run.told["words"][:1] == ["tune"]:
        again = shlex.join(["unlearnbench", *run.told["words"]])
        raise ConfigError(f"{run.sweep} is a search, with no rows: it goes on with {again}")


def _more_memory(launcher: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    if launcher["name"] == "local":
        return [] if any(word.startswith("workers=") for word in words) else ["workers=1"]
    if any(word.startswith("hydra.launcher.mem=") for word in words):
        return []
    size = re.fullmatch(r"(\d+)(\D*)", str(launcher["mem"] or ""))
    if size is None:
        told = "the sweep left the memory of a task to the cluster"
        raise ConfigError(f"retry --oom: {told}; say how much: hydra.launcher.mem=16G")
    return [f"hydra.launcher.mem={2 * int(size[1])}{size[2]}"]


def cancel(sweep: str | None, words: Sequence[str]) -> Iterator[str]:
    """End what is under way of a sweep: SLURM's tasks, or the process that runs it here."""
    _, runs = found(sweep, words)
    for run in runs:
        if names := [array["name"] for array in run.told.get("arrays", ())]:
            slurm.cancel(names)
            yield f"{run.sweep}: cancelled on SLURM: {', '.join(names)}"
        elif run.told["launcher"]["name"] == "local" and _is_at_work(run):
            os.kill(run.told["owner"]["pid"], signal.SIGINT)
            yield f"{run.sweep}: interrupted process {run.told['owner']['pid']}"
    yield f"what is finished stays; unlearnbench retry {runs[-1].sweep} goes on from there"


def _is_at_work(run: Run) -> bool:
    """Whether a local run's process is alive, here where it can be reached."""
    paths = damage.inside(run.folder / "journal", ".jsonl")
    at_work = any(journal.alive(path, list(journal.lines(path))) for path in paths)
    beginner = owner(run.told["owner"])
    return at_work and beginner.host == me().host and not beginner.dead()


def rows_there(sweep: str | None, words: Sequence[str]) -> tuple[str, Path, int]:
    """A sweep's name, the results folder, and how many of its cells have no rows."""
    folder, runs = found(sweep, words)
    _no_search(runs[-1])
    store = Path(runs[-1].told["settings"]["paths"]["store"])
    at = progress(folder, store, runs)
    missing = ~at.cells["state"].isin(["done", "skipped", "failed"])
    return runs[-1].sweep, folder, int(missing.sum())
