"""What jobs are expected to cost, from what earlier ones like them took. Imports no torch.

Jobs are alike in three degrees: all options and settings the same, so that only seeds differ; the
same options by name; the same but for the method. The median of the closest degree of which there
is one is taken. What is like nothing is unknown, and said to be.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unlearnbench.core import damage
from unlearnbench.sweep import journal, run_record
from unlearnbench.sweep.packing import Array

RUNS = 50
"""How many of the latest runs are looked at."""

LIKE = [
    ["kind", "part", "dataset", "model", "train", "method", "attack", "defense", "overrides"],
    ["kind", "part", "dataset", "model", "train", "method", "attack"],
    ["kind", "part", "dataset", "model", "train"],
]
FIGURES = ["seconds", "bytes"]


def history(results: Path) -> pd.DataFrame:
    """What earlier jobs took: the table of jobs, with ``seconds`` and ``bytes`` of a cell of each.

    Args:
        results: the results folder.
    """
    found = [_of(path) for path in damage.inside(results / "runs")[: -RUNS - 1 : -1]]
    columns = [*run_record.JOBS.names, *FIGURES, "gpu"]
    return pd.concat([pd.DataFrame(columns=columns), *(one for one in found if len(one))])


def _of(folder: Path) -> pd.DataFrame:
    told = [
        {"key": line["key"], "gpu": line["device"] != "cpu", **{n: line[n] for n in FIGURES}}
        for path in damage.inside(folder / "journal", ".jsonl")
        for line in journal.lines(path)
        if line["did"] == "done" and line.keys() >= {"device", *FIGURES}
    ]
    if not told:
        return pd.DataFrame()
    frame = run_record.jobs(run_record.Run(folder, {})).merge(pd.DataFrame(told), on="key")
    frame[FIGURES] = frame[FIGURES].div(_size(frame), axis=0)
    return frame


def _size(jobs: pd.DataFrame) -> pd.Series:
    """How many things a job does that cost alike: a model is one, a file of rows so many cells."""
    return jobs["cells"].map(len).clip(lower=1)


def expected(jobs: pd.DataFrame, earlier: pd.DataFrame, gpu: Sequence[bool]) -> pd.DataFrame:
    """``seconds`` and ``bytes`` of each job, NaN where nothing like it was done.

    Args:
        jobs: a table of jobs.
        earlier: as ``history`` tells.
        gpu: whether each will run on a GPU; seconds on a CPU say nothing of that.
    """
    asked = jobs.assign(gpu=list(gpu)).astype({"gpu": object})
    told = pd.DataFrame(float("nan"), index=jobs.index, columns=FIGURES)
    for columns in LIKE:
        like = [*columns, "gpu"]
        medians = earlier.groupby(like, dropna=False)[FIGURES].median()
        found = asked[like].merge(medians, how="left", left_on=like, right_index=True)
        told = told.fillna(found[FIGURES].astype(float))
    return told.mul(_size(jobs), axis=0)


def bill(arrays: Sequence[Array], figures: pd.DataFrame) -> pd.DataFrame:
    """What arrays of tasks are expected to cost: a line each.

    A task lasts Σs/W for W workers, or as long as its longest job. ``unknown`` counts the jobs
    that are like none before; the other figures are without them.

    Args:
        arrays: of a plan.
        figures: ``seconds`` and ``bytes`` of its jobs, by key.
    """
    seconds = figures["seconds"].fillna(0.0).to_dict()
    lines = []
    for array in arrays:
        request = array.request
        each = [[seconds[job.key] for job in task] for task in array.tasks]
        hours = sum(max(*task, sum(task) / request.workers) for task in each) / 3600
        known = figures.loc[[job.key for task in array.tasks for job in task]]
        lines.append(
            {
                "wave": array.wave,
                "jobs": len(known),
                "tasks": len(array.tasks),
                "core_hours": hours * request.cpus,
                "gpu_hours": hours * request.gpus,
                "bytes": known["bytes"].sum(),
                "unknown": int(known["seconds"].isna().sum()),
            }
        )
    return pd.DataFrame(lines)
