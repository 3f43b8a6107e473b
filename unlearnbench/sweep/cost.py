"""Expected cost of jobs, from the measured cost of earlier similar jobs. Imports no torch.

There are three degrees of similarity: the same options and settings, with only the seeds different;
the same names of options, except the defense; the same names, except method, attack and defense.
The estimate is the median of the closest degree with an earlier job, and NaN if there is none.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unlearnbench.core import damage
from unlearnbench.sweep import journal, run_record
from unlearnbench.sweep.packing import Array

RUNS = 50
"""Number of latest runs that are read."""

LIKE = [
    ["kind", "part", "dataset", "model", "train", "method", "attack", "defense", "overrides"],
    ["kind", "part", "dataset", "model", "train", "method", "attack"],
    ["kind", "part", "dataset", "model", "train"],
]
FIGURES = ["seconds", "bytes"]


def history(results: Path) -> pd.DataFrame:
    """Cost of earlier jobs: the table of jobs with ``seconds`` and ``bytes`` per cell, and ``gpu``.

    Args:
        results: the results folder.
    """
    frames = [_of(path) for path in damage.inside(results / "runs")[: -RUNS - 1 : -1]]
    columns = [*run_record.JOBS.names, *FIGURES, "gpu"]
    return pd.concat([pd.DataFrame(columns=columns), *(frame for frame in frames if len(frame))])


def _of(folder: Path) -> pd.DataFrame:
    records = [
        {"key": line["key"], "gpu": line["device"] != "cpu", **{n: line[n] for n in FIGURES}}
        for path in damage.inside(folder / "journal", ".jsonl")
        for line in journal.lines(path)
        if line["did"] == "done" and line.keys() >= {"device", *FIGURES}
    ]
    if not records:
        return pd.DataFrame()
    frame = run_record.jobs(run_record.Run(folder, {})).merge(pd.DataFrame(records), on="key")
    frame[FIGURES] = frame[FIGURES].div(_size(frame), axis=0)
    return frame


def _size(jobs: pd.DataFrame) -> pd.Series:
    """Number of units of equal cost per job: 1 for a model, the number of cells for rows."""
    return jobs["cells"].map(len).clip(lower=1)


def expected(jobs: pd.DataFrame, earlier: pd.DataFrame, gpu: Sequence[bool]) -> pd.DataFrame:
    """``seconds`` and ``bytes`` of each job; NaN where no earlier job is similar.

    Args:
        jobs: a table of jobs.
        earlier: the table from ``history``.
        gpu: whether each job will run on a GPU; only earlier jobs on the same kind are compared.
    """
    jobs_by_device = jobs.assign(gpu=list(gpu)).astype({"gpu": object})
    figures = pd.DataFrame(float("nan"), index=jobs.index, columns=FIGURES)
    for columns in LIKE:
        like = [*columns, "gpu"]
        medians = earlier.groupby(like, dropna=False)[FIGURES].median()
        matched = jobs_by_device[like].merge(medians, how="left", left_on=like, right_index=True)
        figures = figures.fillna(matched[FIGURES].astype(float))
    return figures.mul(_size(jobs), axis=0)


def bill(arrays: Sequence[Array], figures: pd.DataFrame) -> pd.DataFrame:
    """Expected cost of arrays of tasks, one row per array.

    A task lasts Σs/W seconds for W workers, or as long as its longest job. ``unknown`` counts the
    jobs without an estimate; the other figures exclude them.

    Args:
        arrays: the arrays of a plan.
        figures: ``seconds`` and ``bytes`` of the jobs of the plan, by key.

    Returns:
        Columns wave, jobs, tasks, core_hours, gpu_hours, bytes, unknown.
    """
    seconds = figures["seconds"].fillna(0.0).to_dict()
    lines = []
    for array in arrays:
        request = array.request
        seconds_by_task = [[seconds[job.key] for job in task] for task in array.tasks]
        hours = sum(max(*task, sum(task) / request.workers) for task in seconds_by_task) / 3600
        selected = figures.loc[[job.key for task in array.tasks for job in task]]
        lines.append(
            {
                "wave": array.wave,
                "jobs": len(selected),
                "tasks": len(array.tasks),
                "core_hours": hours * request.cpus,
                "gpu_hours": hours * request.gpus,
                "bytes": selected["bytes"].sum(),
                "unknown": int(selected["seconds"].isna().sum()),
            }
        )
    return pd.DataFrame(lines)
