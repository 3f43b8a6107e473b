"""The command ``unlearnbench status``: how far a run is."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from unlearnbench.sweep.control import progress_of
from unlearnbench.sweep.estimate import SHOWN, WAVES
from unlearnbench.sweep.progress import STATES, Progress


def status(sweep: str | None, words: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Counts by wave and state, and what there is to say beside them."""
    at = progress_of(sweep, words)
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
