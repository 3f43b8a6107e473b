"""The record of a run: its overrides, the version of the code, and the jobs of each task.

A run is one attempt to compute a sweep, with a folder ``<results>/runs/<time>-<sweep>/``:

    run.json        overrides, settings, launcher, commit, and SLURM's job numbers
    jobs.parquet    one row per job: its key, its kind, and the task that runs it
    journal/        journals of the working processes, one file per task
    failed/<key>    the reason why a job failed in this run
    slurm/          logs and orders of SLURM's tasks
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
        ),  # grid, or the protocol of the model
        *((axis, pa.string()) for axis in AXES),  # names; for rows, of the first cell
        ("overrides", pa.string()),
        ("seed", pa.int64()),
        ("cells", pa.list_(pa.string())),  # keys of the rows that the job writes
        ("task", pa.string()),
    ]
)

SINGLE = "single"
"""The sweep's name for runs without a sweep: one cell, or a call from Python."""


@dataclass(frozen=True)
class Run:
    """A run: its folder, and the content of its ``run.json`` as ``told``."""

    folder: Path
    told: Mapping[str, Any]

    @property
    def sweep(self) -> str:
        """The name of the sweep."""
        return str(self.told["sweep"])

    def tell(self, **more: Any) -> "Run":
        """Add entries to ``run.json``; return the run with them."""
        manifest = {**self.told, **more}
        atomic.write(self.folder / "run.json", json.dumps(manifest, indent=1))
        return Run(self.folder, manifest)


def begin(sweep: str, plan: Plan, settings: Mapping[str, Any], **entries: Any) -> Run:
    """Create the folder of a new run, with its ``run.json``.

    Args:
        sweep: name of the sweep.
        plan: the jobs of the run.
        settings: the settings of the config; ``paths`` determine the folder.
        entries: further entries of ``run.json``.
    """
    paths = {name: Path(path).absolute() for name, path in settings["paths"].items()}
    runs, now = paths["results"] / "runs", datetime.now(UTC)
    runs.mkdir(parents=True, exist_ok=True)
    for number in range(1000):  # distinguishes runs that begin in the same second
        name = f"{now:%Y%m%d-%H%M%S}{f'.{number}' if number else ''}-{sweep_name(sweep)}"
        try:
            (runs / name).mkdir()
            break
        except FileExistsError:
            continue
    manifest: dict[str, Any] = {
        "sweep": sweep,
        "began": now.isoformat(timespec="seconds"),
        "commit": commit(),
    }
    manifest["settings"] = {**settings, "paths": {name: str(path) for name, path in paths.items()}}
    manifest["owner"] = asdict(me())
    manifest |= {"version": version("unlearnbench"), "cells": plan.cells, "in_store": plan.in_store}
    return Run(runs / name, {}).tell(**manifest, **entries)


def runs(folder: Path, sweep: str | None = None) -> list[Run]:
    """The runs of a sweep, or of the latest sweep; the oldest first.

    Args:
        folder: the results folder.
        sweep: name of the sweep; None for the latest.

    Raises:
        ValueError: there are none.
    """
    matching, names = [], set()
    for path, manifest in load.runs(folder):
        names.add(manifest["sweep"])
        if sweep is None and manifest["sweep"] != SINGLE:
            sweep = manifest["sweep"]
        if manifest["sweep"] == sweep:
            matching.append(Run(path, manifest))
    if matching:
        return matching[::-1]
    if sweep is None:
        raise ValueError(f"no sweep has been run in {folder}")
    existing = f"; there are: {', '.join(sorted(names))}" if names else ""
    raise ValueError(f"sweep {sweep} has not been run in {folder}{existing}")


def unnamed(cells: Iterable[Cell]) -> str:
    """A name for a sweep without one, determined by its cells."""
    return f"sweep-{digest(sorted(cell.key for cell in cells))[:8]}"


def write_cells(folder: Path, sweep: str, cells: Iterable[Cell]) -> None:
    """Write the list of a sweep's cells, with which its rows are loaded.

    Args:
        folder: the results folder.
        sweep: name of the sweep.
        cells: all cells of the sweep, controls included.

    Raises:
        ConfigError: the name is not valid.
    """
    records = [
        {"sweep": sweep, "key": key, "utility_key": cell.utility_key}
        for cell in cells
        for key in (cell.key, cell.trace_rows_key)
        if key
    ]
    parts.write(folder / "sweeps", sweep_name(sweep), records, schema.SWEEP)


def listed(jobs: Sequence[Job], tasks: Mapping[str, str]) -> pa.Table:
    """The table of jobs.

    Args:
        jobs: the jobs of the run.
        tasks: the name of the task of each job, by key.
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
                "cells": [key for written in job.cells for key in written.row_keys]
                if job.kind == "rows"
                else [],
                "task": tasks.get(job.key, ""),
            }
        )
    return pa.Table.from_pylist(rows, schema=JOBS)


def write_jobs(run: Run, table: pa.Table) -> None:
    """Write the table of jobs to the folder of the run."""
    parts.write(run.folder, "jobs", table, JOBS)


def jobs(run: Run) -> pd.DataFrame:
    """The table of jobs of a run; empty if the run was killed before it wrote the table."""
    repair = f"delete {run.folder}, and run the sweep again"
    frame: pd.DataFrame = parts.part(run.folder / "jobs.parquet", JOBS, repair).to_pandas()
    return frame
