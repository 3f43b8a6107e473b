"""What a plan is expected to take, from what was measured before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnbench.config import compose, overrides
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
"""How many of a kind are named; of the others their number."""


def grid_of(words: Sequence[str]) -> list[list[str]]:
    """The cells' overrides that words ask for, as a sweep would multiply them out."""
    return compose.expand([*compose.study(words), *overrides.without_launcher(words)])


def results_folder(words: Sequence[str]) -> Path:
    """The results folder that overrides say; without any there is nothing to compose for it."""
    return Path(compose.settings(words)["paths"]["results"]) if words else load.default_folder()


def merged(words: Sequence[str], more: Sequence[str]) -> list[str]:
    """Words, of which others set some anew."""
    names = {word.partition("=")[0].lstrip("+") for word in more}
    return [word for word in words if word.partition("=")[0].lstrip("+") not in names] + [*more]


@dataclass(frozen=True)
class Prepared:
    """A plan, packed and estimated."""

    plan: Plan
    arrays: Sequence[Array]
    figures: pd.DataFrame
    jobs: pd.DataFrame


def prepared_plan(
    todo: Plan, words: Sequence[str], settings: Mapping[str, Any], name: str
) -> tuple[Prepared, Options | None]:
    """A plan with what it is expected to take."""
    launcher, told = compose.launcher(words)
    options = Options(**told) if launcher == "slurm" else None
    device, workers = settings["device"], settings["workers"]
    if options is None:
        places = machine.places(device, workers, machine.gpus())
        gpus = len(set(places) - {"cpu"})
        requests = dict.fromkeys((True, False), Request(len(places), len(places), gpus))
    else:
        requests = options.requests(device)
    table = run_record.listed(todo.jobs, {}).to_pandas()
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
    settings = compose.settings(grid[0])
    launch.check(settings)
    todo = launch.planned(compose.cells(grid, settings["controls"]), settings)
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
    ready, options = prepared_plan(todo, words, settings, "plan")
    tasks = None if options is None else sum(len(array.tasks) for array in ready.arrays)
    if not todo.jobs:
        return tasks, pd.DataFrame(), []
    bill = cost.bill(ready.arrays, ready.figures)
    bill = bill.groupby("wave", as_index=False).sum()
    unknown = [] if options is None else [f"{options.assumed_seconds:g} s are assumed for each"]
    notes = [*_unknown(ready), *unknown] if bill["unknown"].any() else []
    return tasks, drawn_table(bill, todo), notes


def drawn_table(bill: pd.DataFrame, todo: Plan) -> pd.DataFrame:
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
