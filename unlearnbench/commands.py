"""What ``unlearnbench plan``, ``status``, ``retry``, ``cancel`` and ``collect`` find out and do.

They take words as a sweep does; ``cli`` prints what they say.
"""

import os
import re
import secrets
import shlex
import signal
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnbench import (
    config,
    cost,
    damage,
    journal,
    launch,
    machine,
    pack,
    record,
    results,
    slurm,
)
from unlearnbench.cell import Cell
from unlearnbench.lock import me, owner
from unlearnbench.pack import Array, Request
from unlearnbench.plan import Plan
from unlearnbench.progress import STATES, Progress, progress
from unlearnbench.record import Run
from unlearnbench.submit import Options, submitted
from unlearnbench.words import ConfigError, text_of

WAVES = {
    "original": "trained from scratch",
    "retrained": "trained from scratch",
    "unlearned": "unlearned",
    "traced": "seen on their way",
    "rows": "rows",
    "trial": "trials",
}

SHOWN = 3
"""How many of a kind are named; of the others their number."""


# ---------------------------------------------------------------------------------------------
# Words.


def grid_of(words: Sequence[str]) -> list[list[str]]:
    """The cells' overrides that words ask for, as a sweep would multiply them out."""
    return config.expand([*config.study(words), *config.without_launcher(words)])


def results_folder(words: Sequence[str]) -> Path:
    """The results folder that overrides say; without any there is nothing to compose for it."""
    return Path(config.settings(words)["paths"]["results"]) if words else results.default_folder()


def _merged(words: Sequence[str], more: Sequence[str]) -> list[str]:
    """Words, of which others set some anew."""
    names = {word.partition("=")[0].lstrip("+") for word in more}
    return [word for word in words if word.partition("=")[0].lstrip("+") not in names] + [*more]


# ---------------------------------------------------------------------------------------------
# Before anything runs.


@dataclass(frozen=True)
class Prepared:
    """A plan, packed and estimated."""

    plan: Plan
    arrays: Sequence[Array]
    figures: pd.DataFrame
    jobs: pd.DataFrame


def _prepared(
    todo: Plan, words: Sequence[str], settings: Mapping[str, Any], name: str
) -> tuple[Prepared, Options | None]:
    launcher, told = config.launcher(words)
    options = Options(**told) if launcher == "slurm" else None
    device, workers = settings["device"], settings["workers"]
    if options is None:
        places = machine.places(device, workers, machine.gpus())
        gpus = len(set(places) - {"cpu"})
        requests = dict.fromkeys((True, False), Request(len(places), len(places), gpus))
    else:
        requests = options.requests(device)
    table = record.listed(todo.jobs, {}).to_pandas()
    on = [bool(requests[pack.on_gpu(job)].gpus) for job in todo.jobs]
    folder = Path(settings["paths"]["results"])
    figures = cost.expected(table, cost.history(folder), on).set_index(table["key"])
    if options is None:
        arrays = pack.arrays(name, todo.jobs, _known(figures), requests, float("inf"), 1)
    else:
        seconds = _known(figures, options.assumed_seconds)
        target = 60 * options.target_minutes
        arrays = pack.arrays(name, todo.jobs, seconds, requests, target, slurm.most_tasks())
    return Prepared(todo, arrays, figures, table), options


def _known(figures: pd.DataFrame, otherwise: float = 0.0) -> dict[str, float]:
    seconds = figures["seconds"].fillna(otherwise)
    return dict(zip(seconds.index.astype(str), seconds.astype(float), strict=True))


def plan(words: Sequence[str]) -> tuple[str, pd.DataFrame, list[str]]:
    """What words ask for: the plan in a line, its cost by wave, and what is unknown of that."""
    grid = grid_of(words)
    settings = config.settings(grid[0])
    launch.check(settings)
    todo = launch.planned(config.cells(grid, settings["controls"]), settings)
    tasks, bill, notes = expected(todo, words, settings)
    return todo.line(tasks), bill, notes


def expected(
    todo: Plan, words: Sequence[str], settings: Mapping[str, Any]
) -> tuple[int | None, pd.DataFrame, list[str]]:
    """What jobs should cost: tasks, on SLURM; the bill by wave; and what is unknown of that.

    Args:
        todo: the jobs.
        words: that they were asked with, the launcher's among them.
        settings: of the config.
    """
    ready, options = _prepared(todo, words, settings, "plan")
    tasks = None if options is None else sum(len(array.tasks) for array in ready.arrays)
    if not todo.jobs:
        return tasks, pd.DataFrame(), []
    bill = cost.bill(ready.arrays, ready.figures)
    bill = bill.groupby("wave", as_index=False).sum()
    unknown = [] if options is None else [f"{options.assumed_seconds:g} s are assumed for each"]
    notes = [*_unknown(ready), *unknown] if bill["unknown"].any() else []
    return tasks, _drawn(bill, todo), notes


def _drawn(bill: pd.DataFrame, todo: Plan) -> pd.DataFrame:
    """The bill as text, with its sum."""
    names = {job.wave: WAVES[job.kind] for job in todo.jobs}
    lines = [
        [f"{one['wave']:.0f} {names[one['wave']]}", *_figures(one)] for _, one in bill.iterrows()
    ]
    lines.append(["all", *_figures(bill.sum())])
    return pd.DataFrame(lines, columns=["wave", "jobs", "tasks", "core-hours", "GPU-hours", "disk"])


def _figures(one: "pd.Series[Any]") -> list[str]:
    counts = [f"{int(one[name]):,}" for name in ("jobs", "tasks")]
    if one["unknown"] >= one["jobs"]:
        return [*counts, "unknown", "unknown", "unknown"]
    least = "≥ " if one["unknown"] else ""
    hours = [f"{least}{one[name]:,.2g}" for name in ("core_hours", "gpu_hours")]
    return [*counts, *hours, least + amount(one["bytes"])]


def _unknown(ready: Prepared) -> list[str]:
    """Which jobs are like none before."""
    alone = ready.jobs[ready.figures["seconds"].isna().to_numpy()]
    like = Counter(zip(alone["kind"], alone["dataset"], alone["model"], strict=True))
    told = [f"{n:,} {kind} of {data} × {model}" for (kind, data, model), n in like.items()]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return [f"unknown, for nothing like it was done here: {', '.join(told[:SHOWN])}{more}"]


def amount(size: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


# ---------------------------------------------------------------------------------------------
# Running.


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
    ready, options = _prepared(todo, words, settings, _marked(sweep))
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
    ready, options = _prepared(todo, words, settings, _marked(name))
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
    run = record.begin(sweep, todo, settings, words=list(words), launcher=launcher)
    tasks = {
        job.key: array.place(index)
        for array in ready.arrays
        for index, jobs in enumerate(array.tasks)
        for job in jobs
    }
    record.write_jobs(run, record.listed(todo.jobs, tasks))
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
    return here, record.runs(here, sweep)


def _progress(sweep: str | None, words: Sequence[str]) -> Progress:
    folder, runs = found(sweep, words)
    return progress(folder, Path(runs[-1].told["settings"]["paths"]["store"]), runs)


def status(sweep: str | None, words: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Counts by wave and state, and what there is to say beside them."""
    at = _progress(sweep, words)
    jobs = at.jobs[at.jobs["kind"] != "rows"]
    counts = {
        f"{wave} {WAVES[same['kind'].iloc[0]]}": same["state"].value_counts()
        for wave, same in jobs.groupby("wave")
    }
    counts["cells"] = at.cells["state"].value_counts()
    table = pd.DataFrame(counts).reindex(STATES).fillna(0).astype(int).T
    table = table.assign(all=table.sum(axis=1)).map(lambda n: f"{n:,}" if n else "–")
    table = table.reset_index(names="wave")
    return table, [*_headline(at), *_reasons(at), *_times(at), *_logs(at)]


def _headline(at: Progress) -> Iterator[str]:
    run = at.runs[-1]
    states = pd.Series(list(at.tasks.values()), dtype=str).value_counts()
    told = ", ".join(f"{n:,} {state}" for state, n in states.items()) or "none is left"
    where = "here" if run.told["launcher"]["name"] == "local" else "on SLURM"
    runs = f"{len(at.runs)} run{'s' if len(at.runs) > 1 else ''}"
    yield f"{run.sweep}: {runs}, the last {where} since {run.told['began']}; tasks: {told}"
    if not at.asked:
        yield "SLURM cannot be asked: what is called waiting may have ended"
    if not run.told.get("submitted", True) and not at.tasks:
        yield "the last run was not submitted to its end"


def _reasons(at: Progress) -> Iterator[str]:
    troubled = at.cells[at.cells["state"].isin(["failed", "missing"])]
    for (state, reason), same in troubled.groupby(["state", "reason"], dropna=False):
        names = (same["method"] + " seed " + same["seed"].astype("Int64").astype(str)).dropna()
        named = sorted(names.unique())
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        who = f": {', '.join(named[:SHOWN])}{more}" if named else ""
        yield f"{state}, {len(same):,} cells{who}: {reason}"
    if len(troubled):
        yield f"again, but for what is under way: unlearnbench retry {at.runs[-1].sweep}"


def _times(at: Progress) -> Iterator[str]:
    seconds, whole = at.left
    running = at.jobs[at.jobs["state"] == "running"]
    if at.jobs["state"].isin(["running", "waiting"]).any():
        workers = max(len(running), 1)
        least = "" if whole else "at least " if seconds else "unknown, and more than "
        yield f"time left: {least}{duration(seconds / workers)} with {workers} at work, as now"
    slow = at.jobs[at.jobs["seconds"].notna()].nlargest(SHOWN, "seconds")
    if len(slow):
        told = (f"{_name(job)} {duration(job['seconds'])}" for _, job in slow.iterrows())
        yield f"slowest: {'; '.join(told)}"
    if len(running):
        first = running.sort_values("began").iloc[0]
        since = duration(max(pd.Timestamp.now("UTC").timestamp() - first["began"], 0))
        yield f"longest at work: {_name(first)}, for {since}"


def _name(job: "pd.Series[Any]") -> str:
    what = job["method"] if job["kind"] in ("unlearned", "traced", "trial") else job["kind"]
    return f"{what} of {job['dataset']} × {job['model']} seed {job['seed']}"


def _logs(at: Progress) -> Iterator[str]:
    run = at.runs[-1]
    here = run.told["launcher"]["name"] == "local"
    logs = run.folder.parent.parent / "logs" if here else run.folder / "slurm"
    yield f"logs in {logs}" + (
        f", tracebacks in {run.folder.parent.parent / 'failures'}"
        if (at.cells["state"] == "failed").any()
        else ""
    )


def duration(seconds: float) -> str:
    """Seconds, in the units that fit."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


# ---------------------------------------------------------------------------------------------
# Afterwards.


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
    at = _progress(sweep, words)
    run = at.runs[-1]
    _no_search(run)
    chosen = at.chosen(failed="--failed" in flags, memory="--oom" in flags)
    launcher = run.told["launcher"]
    again = _merged(run.told["words"], words)
    if "--oom" in flags:
        again = _merged(again, _more_memory(launcher, words))
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
