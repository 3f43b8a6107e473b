"""What a run leaves about itself: what was asked, of what code, which jobs went to which task.

A run is one go at a sweep, and has a folder ``<results>/runs/<time>-<sweep>/``:

    run.json        the words it was asked with, settings, launcher, commit, SLURM's job numbers
    jobs.parquet    one row a job: its key, what it makes, the task that does it
    journal/        what the working processes say, a file a task
    failed/<key>    why a job failed in this run
    slurm/          logs of SLURM's tasks, and their orders
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from unlearnbench.config.arguments import sweep_name
from unlearnbench.core import atomic
from unlearnbench.core.cell import AXES, Cell, digest
from unlearnbench.core.provenance import commit
from unlearnbench.results import load, parts, schema
from unlearnbench.store.lock import me
from unlearnbench.sweep.plan import Job, Plan

JOBS = pa.schema(
    [
        ("key", pa.string()),
        ("kind", pa.string()),
        ("wave", pa.int64()),
        (
            "part",
            pa.string(),
        ),  # grid, or the protocol that its model belongs to
        *((axis, pa.string()) for axis in AXES),  # names; of rows, those of the first cell
        ("overrides", pa.string()),
        ("seed", pa.int64()),
        ("cells", pa.list_(pa.string())),  # keys of the rows that it writes
        ("task", pa.string()),
    ]
)

SINGLE = "single"
"""The sweep of runs that are none: one cell, or what Python asked for."""


@dataclass(frozen=True)
class Run:
    """A run's folder and what its ``run.json`` says."""

    folder: Path
    told: Mapping[str, Any]

    @property
    def sweep(self) -> str:
        """The name of the sweep it is a go at."""
        return str(self.told["sweep"])

    def tell(self, **more: Any) -> "Run":
        """The same run, having written down something more about itself."""
        told = {**self.told, **more}
        atomic.write(self.folder / "run.json", json.dumps(told, indent=1))
        return Run(self.folder, told)


def begin(sweep: str, plan: Plan, settings: Mapping[str, Any], **told: Any) -> Run:
    """A new run's folder, and the first it says about itself.

    Args:
        sweep: the name.
        plan: what it will do.
        settings: of the config; ``paths`` say where the folder is made.
        told: more to write down.
    """
    paths = {name: Path(path).absolute() for name, path in settings["paths"].items()}
    runs, now = paths["results"] / "runs", datetime.now(UTC)
    runs.mkdir(parents=True, exist_ok=True)
    for more in range(1000):  # two of one second are told apart
        name = f"{now:%Y%m%d-%H%M%S}{f'.{more}' if more else ''}-{sweep_name(sweep)}"
        try:
            (runs / name).mkdir()
            break
        except FileExistsError:
            continue
    about: dict[str, Any] = {
        "sweep": sweep,
        "began": now.isoformat(timespec="seconds"),
        "commit": commit(),
    }
    about["settings"] = {**settings, "paths": {name: str(path) for name, path in paths.items()}}
    about["owner"] = asdict(me())
    about |= {"version": version("unlearnbench"), "cells": plan.cells, "in_store": plan.in_store}
    return Run(runs / name, {}).tell(**about, **told)


def runs(folder: Path, sweep: str | None = None) -> list[Run]:
    """The runs of a sweep, or of the latest sweep; the oldest first.

    Args:
        folder: the results folder.
        sweep: a name.

    Raises:
        ValueError: there are none.
    """
    found, known = [], set()
    for path, told in load.runs(folder):
        known.add(told["sweep"])
        if sweep is None and told["sweep"] != SINGLE:
            sweep = told["sweep"]
        if told["sweep"] == sweep:
            found.append(Run(path, told))
    if found:
        return found[::-1]
    if sweep is None:
        raise ValueError(f"no sweep has been run in {folder}")
    there = f"; there are: {', '.join(sorted(known))}" if known else ""
    raise ValueError(f"sweep {sweep} has not been run in {folder}{there}")


def unnamed(cells: Iterable[Cell]) -> str:
    """The name of a sweep that has none: the same for the same cells."""
    return f"sweep-{digest(sorted(cell.key for cell in cells))[:8]}"


def write_cells(folder: Path, sweep: str, cells: Iterable[Cell]) -> None:
    """Keep the list of a sweep's cells, for who loads its rows.

    Args:
        folder: the results folder.
        sweep: its name.
        cells: all of it, controls included.

    Raises:
        ConfigError: it is no name.
    """
    listed = [
        {"sweep": sweep, "key": key, "utility_key": cell.utility_key}
        for cell in cells
        for key in (cell.key, cell.trace_rows_key)
        if key
    ]
    parts.write(folder / "sweeps", sweep_name(sweep), listed, schema.SWEEP)


def listed(jobs: Sequence[Job], tasks: Mapping[str, str]) -> pa.Table:
    """The table of jobs.

    Args:
        jobs: of the run.
        tasks: the task of each, by key.
    """
    rows = []
    for job in jobs:
        cell = job.cells[0]
        rows.append(
            {
                "key": job.key,
                "kind": job.kind,
                "wave": job.wave,
                "part": cell.protocol or "grid",
                **cell.names,
                "overrides": cell.overrides,
                "seed": cell.seed,
                "cells": [key for one in job.cells for key in one.row_keys]
                if job.kind == "rows"
                else [],
                "task": tasks.get(job.key, ""),
            }
        )
    return pa.Table.from_pylist(rows, schema=JOBS)


def write_jobs(run: Run, table: pa.Table) -> None:
    """Keep the table of jobs with the run."""
    parts.write(run.folder, "jobs", table, JOBS)


def jobs(run: Run) -> pd.DataFrame:
    """The table of jobs of a run; none of one that was killed before it could write it."""
    repair = f"delete {run.folder}, and run the sweep again"
    frame: pd.DataFrame = parts.part(run.folder / "jobs.parquet", JOBS, repair).to_pandas()
    return frame
