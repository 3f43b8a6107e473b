"""Expected cost of a plan, from measurements of earlier runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnbench.config import compose
from unlearnbench.config.overrides import without_launcher
from unlearnbench.results import load
from unlearnbench.sweep import cost, machine, run_record, slurm
from unlearnbench.sweep import local as launch
from unlearnbench.sweep import packing as pack
from unlearnbench.sweep.packing import Array, Request
from unlearnbench.sweep.plan import Plan
from unlearnbench.sweep.submit import Options

WAVES = {
    "original": "trained from scratch",
    "retrained": "trained from scratch",
    "unlearned": "unlearned",
    "traced": "seen on their way",
    "rows": "rows",
    "trial": "trials",
}

SHOWN = 3
"""Number of entries that are named in a message; the others are counted."""


def grid_of(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each cell of the grid that a sweep with these overrides computes."""
    return compose.expand([*compose.study(overrides), *without_launcher(overrides)])


def results_folder(overrides: Sequence[str]) -> Path:
    """The results folder that the overrides name; the default folder if there are none."""
    return (
        Path(compose.settings(overrides)["paths"]["results"])
        if overrides
        else load.default_folder()
    )


def merged(overrides: Sequence[str], new: Sequence[str]) -> list[str]:
    """The overrides without those that ``new`` sets again, followed by ``new``."""
    names = {item.partition("=")[0].lstrip("+") for item in new}
    return [item for item in overrides if item.partition("=")[0].lstrip("+") not in names] + [*new]


@dataclass(frozen=True)
class Prepared:
    """A plan packed into arrays, with ``seconds`` and ``bytes`` by key, and the table of jobs."""

    plan: Plan
    arrays: Sequence[Array]
    figures: pd.DataFrame
    jobs: pd.DataFrame


def prepared_plan(
    job_plan: Plan, overrides: Sequence[str], settings: Mapping[str, Any], name: str
) -> tuple[Prepared, Options | None]:
    """Pack a plan into arrays, named by a prefix, and estimate its cost.

    Returns:
        The prepared plan, and the options of the SLURM launcher, or None for another launcher.
    """
    launcher, arguments = compose.launcher(overrides)
    options = Options(**arguments) if launcher == "slurm" else None
    device, workers = settings["device"], settings["workers"]
    if options is None:
        places = machine.places(device, workers, machine.gpus())
        gpus = len(set(places) - {"cpu"})
        requests = dict.fromkeys((True, False), Request(len(places), len(places), gpus))
    else:
        requests = options.requests(device)
    table = run_record.listed(job_plan.jobs, {}).to_pandas()
    on = [bool(requests[pack.on_gpu(job)].gpus) for job in job_plan.jobs]
    folder = Path(settings["paths"]["results"])
    figures = cost.expected(table, cost.history(folder), on).set_index(table["key"])
    if options is None:
        arrays = pack.arrays(name, job_plan.jobs, _filled(figures), requests, float("inf"), 1)
    else:
        seconds = _filled(figures, options.assumed_seconds)
        target = 60 * options.target_minutes
        arrays = pack.arrays(name, job_plan.jobs, seconds, requests, target, slurm.most_tasks())
    return Prepared(job_plan, arrays, figures, table), options


def _filled(figures: pd.DataFrame, otherwise: float = 0.0) -> dict[str, float]:
    """Seconds of each job by key, with a default where they are unknown."""
    seconds = figures["seconds"].fillna(otherwise)
    return dict(zip(seconds.index.astype(str), seconds.astype(float), strict=True))


def plan(overrides: Sequence[str]) -> tuple[str, pd.DataFrame, list[str]]:
    """The plan for some overrides in one line, its cost by wave, and notes on unknown costs."""
    grid = grid_of(overrides)
    settings = compose.settings(grid[0])
    launch.check(settings)
    job_plan = launch.planned(compose.cells(grid, settings["controls"]), settings)
    tasks, bill, notes = expected(job_plan, overrides, settings)
    return job_plan.line(tasks), bill, notes


def expected(
    job_plan: Plan, overrides: Sequence[str], settings: Mapping[str, Any]
) -> tuple[int | None, pd.DataFrame, list[str]]:
    """The expected cost of a plan.

    Args:
        job_plan: the plan of jobs.
        overrides: the overrides of the run, those of the launcher included.
        settings: the settings of the config.

    Returns:
        The number of tasks on SLURM, None elsewhere; the bill by wave; notes on unknown costs.
    """
    ready, options = prepared_plan(job_plan, overrides, settings, "plan")
    tasks = None if options is None else sum(len(array.tasks) for array in ready.arrays)
    if not job_plan.jobs:
        return tasks, pd.DataFrame(), []
    bill = cost.bill(ready.arrays, ready.figures)
    bill = bill.groupby("wave", as_index=False).sum()
    unknown = [] if options is None else [f"{options.assumed_seconds:g} s are assumed for each"]
    notes = [*_unknown(ready), *unknown] if bill["unknown"].any() else []
    return tasks, drawn_table(bill, job_plan), notes


def drawn_table(bill: pd.DataFrame, job_plan: Plan) -> pd.DataFrame:
    """The bill as text, with a last row of sums."""
    names = {job.wave: WAVES[job.kind] for job in job_plan.jobs}
    lines = [
        [f"{row['wave']:.0f} {names[row['wave']]}", *_figures(row)] for _, row in bill.iterrows()
    ]
    lines.append(["all", *_figures(bill.sum())])
    return pd.DataFrame(lines, columns=["wave", "jobs", "tasks", "core-hours", "GPU-hours", "disk"])


def _figures(row: "pd.Series[Any]") -> list[str]:
    counts = [f"{int(row[name]):,}" for name in ("jobs", "tasks")]
    if row["unknown"] >= row["jobs"]:
        return [*counts, "unknown", "unknown", "unknown"]
    least = "≥ " if row["unknown"] else ""
    hours = [f"{least}{row[name]:,.2g}" for name in ("core_hours", "gpu_hours")]
    return [*counts, *hours, least + amount(row["bytes"])]


def _unknown(ready: Prepared) -> list[str]:
    """A note that names the kinds of jobs without an estimate; SHOWN of them at most."""
    unknown = ready.jobs[ready.figures["seconds"].isna().to_numpy()]
    counts = Counter(zip(unknown["kind"], unknown["dataset"], unknown["model"], strict=True))
    names = [f"{n:,} {kind} of {data} × {model}" for (kind, data, model), n in counts.items()]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"unknown, for nothing like it was done here: {', '.join(names[:SHOWN])}{more}"]


def amount(size: float) -> str:
    """A number of bytes as text, with three digits and a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
