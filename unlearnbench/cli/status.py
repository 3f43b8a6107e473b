"""The command ``unlearnbench status``: progress of a run."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from unlearnbench.sweep.control import progress_of
from unlearnbench.sweep.estimate import SHOWN, WAVES
from unlearnbench.sweep.progress import STATES, Progress


def status(sweep: str | None, argv: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The number of jobs by wave and state, and messages about the run."""
    progress = progress_of(sweep, argv)
    jobs = progress.jobs[progress.jobs["kind"] != "rows"]
    counts = {
        f"{wave} {WAVES[same['kind'].iloc[0]]}": same["state"].value_counts()
        for wave, same in jobs.groupby("wave")
    }
    counts["cells"] = progress.cells["state"].value_counts()
    table = pd.DataFrame(counts).reindex(STATES).fillna(0).astype(int).T
    table = table.assign(all=table.sum(axis=1)).map(lambda n: f"{n:,}" if n else "–")
    table = table.reset_index(names="wave")
    return table, [*_headline(progress), *_reasons(progress), *_times(progress), *_logs(progress)]


def _headline(progress: Progress) -> Iterator[str]:
    run = progress.runs[-1]
    states = pd.Series(list(progress.tasks.values()), dtype=str).value_counts()
    tasks = ", ".join(f"{n:,} {state}" for state, n in states.items()) or "none is left"
    where = "here" if run.told["launcher"]["name"] == "local" else "on SLURM"
    runs = f"{len(progress.runs)} run{'s' if len(progress.runs) > 1 else ''}"
    yield f"{run.sweep}: {runs}, the last {where} since {run.told['began']}; tasks: {tasks}"
    if not progress.asked:
        yield "SLURM cannot be asked: what is called waiting may have ended"
    if not run.told.get("submitted", True) and not progress.tasks:
        yield "the last run was not submitted to its end"


def _reasons(progress: Progress) -> Iterator[str]:
    troubled = progress.cells[progress.cells["state"].isin(["failed", "missing"])]
    for (state, reason), same in troubled.groupby(["state", "reason"], dropna=False):
        names = (same["method"] + " seed " + same["seed"].astype("Int64").astype(str)).dropna()
        unique_names = sorted(names.unique())
        more = f" and {len(unique_names) - SHOWN} more" if len(unique_names) > SHOWN else ""
        examples = f": {', '.join(unique_names[:SHOWN])}{more}" if unique_names else ""
        yield f"{state}, {len(same):,} cells{examples}: {reason}"
    if len(troubled):
        yield f"again, but for what is under way: unlearnbench retry {progress.runs[-1].sweep}"


def _times(progress: Progress) -> Iterator[str]:
    seconds, complete = progress.left
    running = progress.jobs[progress.jobs["state"] == "running"]
    if progress.jobs["state"].isin(["running", "waiting"]).any():
        workers = max(len(running), 1)
        least = "" if complete else "at least " if seconds else "unknown, and more than "
        yield f"time left: {least}{duration(seconds / workers)} with {workers} at work, as now"
    slow_jobs = progress.jobs[progress.jobs["seconds"].notna()].nlargest(SHOWN, "seconds")
    if len(slow_jobs):
        slowest = (f"{_name(job)} {duration(job['seconds'])}" for _, job in slow_jobs.iterrows())
        yield f"slowest: {'; '.join(slowest)}"
    if len(running):
        longest = running.sort_values("began").iloc[0]
        since = duration(max(pd.Timestamp.now("UTC").timestamp() - longest["began"], 0))
        yield f"longest at work: {_name(longest)}, for {since}"


def _name(job: "pd.Series[Any]") -> str:
    kind = job["method"] if job["kind"] in ("unlearned", "traced", "trial") else job["kind"]
    return f"{kind} of {job['dataset']} × {job['model']} seed {job['seed']}"


def _logs(progress: Progress) -> Iterator[str]:
    run = progress.runs[-1]
    is_local = run.told["launcher"]["name"] == "local"
    logs = run.folder.parent.parent / "logs" if is_local else run.folder / "slurm"
    yield f"logs in {logs}" + (
        f", tracebacks in {run.folder.parent.parent / 'failures'}"
        if (progress.cells["state"] == "failed").any()
        else ""
    )


def duration(seconds: float) -> str:
    """Seconds as text in s, min or h."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
