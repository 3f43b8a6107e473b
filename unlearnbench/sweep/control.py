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
    overrides: Sequence[str],
    settings: Mapping[str, Any],
    sweep: str,
    only: Collection[str] | None = None,
) -> Iterator[str]:
    """Submit the jobs of the cells to SLURM; yield messages: the plan, then the SLURM jobs.

    Args:
        cells: the grid, controls included.
        overrides: the overrides that describe the grid, and those of the launcher.
        settings: the settings of the config.
        sweep: name of the sweep.
        only: keys of the cells to compute; all by default.

    Raises:
        slurm.Refused: SLURM rejects the submission.
    """
    launch.check(settings)
    plan = launch.planned(cells, settings, only)
    ready, options = prepared_plan(plan, overrides, settings, _marked(sweep))
    assert options is not None
    yield plan.line(sum(len(array.tasks) for array in ready.arrays))
    launch.keep_list(cells, settings, sweep)
    if not plan.jobs:
        yield f"the tables: unlearnbench collect {sweep}"
        return
    yield _handed_in(ready, options, overrides, settings, sweep)
    yield f"how far it is: unlearnbench status {sweep}; its tables: unlearnbench collect {sweep}"


def submit_search(
    plan: Plan, overrides: Sequence[str], settings: Mapping[str, Any], name: str
) -> Iterator[str]:
    """Submit the trials of a search to SLURM; yield messages that name the SLURM jobs.

    Args:
        plan: the jobs of the search, at least one.
        overrides: the overrides of the search, those of the launcher included.
        settings: the settings of the config.
        name: name of the search.

    Raises:
        slurm.Refused: SLURM rejects the submission.
    """
    ready, options = prepared_plan(plan, overrides, settings, _marked(name))
    assert options is not None
    yield _handed_in(ready, options, overrides, settings, name)
    yield f"how far it is: unlearnbench status {name}"


def _marked(sweep: str) -> str:
    """A unique name for the arrays of this run."""
    return f"{sweep}-{secrets.token_hex(2)}"


def _handed_in(
    ready: Prepared,
    options: Options,
    overrides: Sequence[str],
    settings: Mapping[str, Any],
    sweep: str,
) -> str:
    """Submit a prepared plan as a run with a folder; return a message with job numbers."""
    plan = ready.plan
    launcher = {"name": "slurm", **vars(options)}
    run = run_record.begin(sweep, plan, settings, words=list(overrides), launcher=launcher)
    tasks = {
        job.key: array.place(index)
        for array in ready.arrays
        for index, jobs in enumerate(array.tasks)
        for job in jobs
    }
    run_record.write_jobs(run, run_record.listed(plan.jobs, tasks))
    try:
        run = submitted(run, ready.arrays, settings, options)
    except BaseException as error:
        with suppress(OSError):  # a full disk can be the cause
            run.tell(refused=text_of(error))
        raise
    numbers = ", ".join(array["job"] for array in run.told["arrays"])
    return f"submitted as {sweep}, SLURM jobs {numbers}; logs in {run.folder / 'slurm'}"


def found(sweep: str | None, overrides: Sequence[str]) -> tuple[Path, list[Run]]:
    """The results folder that the overrides name, and the runs of a sweep in it."""
    folder = results_folder(overrides).absolute()
    return folder, run_record.runs(folder, sweep)


def progress_of(sweep: str | None, overrides: Sequence[str]) -> Progress:
    """The progress of a sweep."""
    folder, runs = found(sweep, overrides)
    return progress(folder, Path(runs[-1].told["settings"]["paths"]["store"]), runs)


@dataclass(frozen=True)
class Again:
    """A retry of a sweep: launcher, overrides, and keys of the cells, or why there are none."""

    sweep: str
    study: str | None
    launcher: str
    words: list[str]
    chosen: set[str]
    reason: str = ""


def retry(sweep: str | None, flags: Collection[str], overrides: Sequence[str]) -> Again:
    """Choose the cells of a sweep to compute again: failed or missing, and not in progress.

    Args:
        sweep: name of the sweep; the latest by default.
        flags: ``--failed``, ``--oom``.
        overrides: overrides that are added to those of the sweep.

    Raises:
        ConfigError: ``--oom`` is set and the memory of the sweep's tasks is not known, or the
            run is a search.
    """
    state = progress_of(sweep, overrides)
    run = state.runs[-1]
    _no_search(run)
    chosen = state.chosen(failed="--failed" in flags, memory="--oom" in flags)
    launcher = run.told["launcher"]
    merged_overrides = merged(run.told["words"], overrides)
    if "--oom" in flags:
        merged_overrides = merged(merged_overrides, _more_memory(launcher, overrides))
    studies = [item for item in merged_overrides if item.startswith("sweep=")]
    study = run.sweep if studies else None
    counts = state.cells["state"].value_counts()
    summary = ", ".join(f"{counts[name]:,} {name}" for name in STATES if name in counts)
    reason = f"nothing to try again; cells: {summary}"
    return Again(run.sweep, study, launcher["name"], merged_overrides, chosen, reason)


def _no_search(run: Run) -> None:
    """Reject a run of a search, for commands that apply to sweeps only.

    Raises:
        ConfigError: the run is one of ``unlearnbench tune``.
    """
    if run.told["words"][:1] == ["tune"]:
        command = shlex.join(["unlearnbench", *run.told["words"]])
        raise ConfigError(f"{run.sweep} is a search, with no rows: it goes on with {command}")


def _more_memory(launcher: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    if launcher["name"] == "local":
        return [] if any(item.startswith("workers=") for item in overrides) else ["workers=1"]
    if any(item.startswith("hydra.launcher.mem=") for item in overrides):
        return []
    size = re.fullmatch(r"(\d+)(\D*)", str(launcher["mem"] or ""))
    if size is None:
        cause = "the sweep left the memory of a task to the cluster"
        raise ConfigError(f"retry --oom: {cause}; say how much: hydra.launcher.mem=16G")
    return [f"hydra.launcher.mem={2 * int(size[1])}{size[2]}"]


def cancel(sweep: str | None, overrides: Sequence[str]) -> Iterator[str]:
    """End the SLURM tasks of a sweep, or the process that runs it here; yield messages."""
    _, runs = found(sweep, overrides)
    for run in runs:
        if names := [array["name"] for array in run.told.get("arrays", ())]:
            slurm.cancel(names)
            yield f"{run.sweep}: cancelled on SLURM: {', '.join(names)}"
        elif run.told["launcher"]["name"] == "local" and _is_at_work(run):
            os.kill(run.told["owner"]["pid"], signal.SIGINT)
            yield f"{run.sweep}: interrupted process {run.told['owner']['pid']}"
    yield f"what is finished stays; unlearnbench retry {runs[-1].sweep} goes on from there"


def _is_at_work(run: Run) -> bool:
    """Whether the process of a local run is alive and runs on this machine."""
    paths = damage.inside(run.folder / "journal", ".jsonl")
    at_work = any(journal.alive(path, list(journal.lines(path))) for path in paths)
    beginner = owner(run.told["owner"])
    return at_work and beginner.host == me().host and not beginner.dead()


def rows_there(sweep: str | None, overrides: Sequence[str]) -> tuple[str, Path, int]:
    """A sweep's name, the results folder, and the number of its cells without rows."""
    folder, runs = found(sweep, overrides)
    _no_search(runs[-1])
    store = Path(runs[-1].told["settings"]["paths"]["store"])
    state = progress(folder, store, runs)
    missing = ~state.cells["state"].isin(["done", "skipped", "failed"])
    return runs[-1].sweep, folder, int(missing.sum())
