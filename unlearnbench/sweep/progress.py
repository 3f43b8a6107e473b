"""How far a sweep is: from the store, the rows and the journals; SLURM tells what is to come.

A model that is in the store is done, and so is a cell that has its rows, whatever became of the
process that made them. What is neither there nor known to have failed is waiting while there is a
task that will come to it, and missing once there is none.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnbench.core import damage
from unlearnbench.results import load
from unlearnbench.store.artifacts import Store
from unlearnbench.store.lock import me, owner
from unlearnbench.sweep import cost, journal, run_record, slurm
from unlearnbench.sweep.run_record import Run

STATES = ["done", "skipped", "running", "waiting", "failed", "missing"]

MEMORY = r"SIGKILL|MemoryError|[Oo]ut of memory|OUT_OF_ME"
"""What reasons say of what was killed for memory; a SIGKILL is the kernel's way of doing it."""


@dataclass(frozen=True)
class Progress:
    """The state of a sweep.

    Attributes:
        runs: the goes at it, the oldest first.
        cells: ``key``, ``state`` and ``reason`` of each cell.
        jobs: the table of jobs, each once, with ``state``, ``reason``, ``seconds``, ``began``.
        tasks: the state of each task that is not over: ``running`` or ``waiting``, by run and name.
        asked: whether SLURM could be asked, where it had to be.
        left: seconds that what is to come should take one worker, and whether all of it is known.
    """

    runs: Sequence[Run]
    cells: pd.DataFrame
    jobs: pd.DataFrame
    tasks: Mapping[tuple[int, str], str]
    asked: bool
    left: tuple[float, bool]

    def chosen(self, *, failed: bool, memory: bool) -> set[str]:
        """Keys of cells to try again: what failed and what is missing.

        Args:
            failed: only what failed.
            memory: only what was killed for memory.
        """
        cells = self.cells
        chosen = cells["state"].isin(["failed"] if failed else ["failed", "missing"])
        if memory:
            chosen &= cells["reason"].fillna("").str.contains(MEMORY)
        return set(cells["key"][chosen])


def progress(folder: Path, store: Path, runs: Sequence[Run]) -> Progress:
    """Where a sweep stands.

    Args:
        folder: the results folder.
        store: where artifacts are.
        runs: the goes at it.
    """
    jobs = pd.concat([run_record.jobs(run).assign(run=place) for place, run in enumerate(runs)])
    jobs = jobs.drop_duplicates("key", keep="last").reset_index(drop=True)
    arrays = {a["name"]: a["job"] for run in runs for a in run.told.get("arrays", ())}
    queued = slurm.queue(arrays)
    tasks: dict[tuple[int, str], str] = {}
    lines: dict[tuple[int, str], dict[str, Any]] = {}
    for place, run in enumerate(runs):
        alive = _read(run, place, lines)
        tasks |= {(place, task): state for task, state in _tasks(run, alive, queued).items()}
    jobs = _stated(jobs, set(Store(store).artifacts()), lines, tasks)
    cells = _cells(folder, runs[-1].sweep, jobs)
    if (cells["state"] == "missing").any():
        cells = _explained(cells, slurm.accounted(arrays))
    return Progress(runs, cells, jobs, tasks, queued is not None, _left(folder, runs, jobs))


def _read(run: Run, place: int, lines: dict[tuple[int, str], dict[str, Any]]) -> set[str]:
    """Take in a run's journals: the latest of each job. Returns the tasks that are written at."""
    alive = set()
    for path in damage.inside(run.folder / "journal", ".jsonl"):
        told = list(journal.lines(path))
        for line in told:
            if "key" in line:
                lines[place, line["key"]] = line
        if journal.alive(path, told):
            alive.add(path.stem)
    return alive


def _tasks(
    run: Run, alive: set[str], queued: Mapping[str, tuple[str, str]] | None
) -> dict[str, str]:
    """The run's tasks that are not over."""
    if run.told["launcher"]["name"] == "local":
        return {"local": "running"} if alive or _starting(run) else {}
    names = [f"{a['name']}-{n}" for a in run.told.get("arrays", ()) for n in range(a["tasks"])]
    # Who writes is at work, whatever SLURM says. Where it cannot be asked, the others may come.
    to_come = names if queued is None else [name for name in names if name in queued]
    return dict.fromkeys(to_come, "waiting") | dict.fromkeys(alive, "running")


def _starting(run: Run) -> bool:
    """Whether a run's working process may be about to begin its journal."""
    if damage.inside(run.folder / "journal", ".jsonl"):
        return False
    beginner = owner(run.told["owner"])
    if beginner.host == me().host:
        return not beginner.dead()
    return journal.heard(run.folder / "run.json")


def _stated(
    jobs: pd.DataFrame,
    stored: set[str],
    lines: Mapping[tuple[int, str], Mapping[str, Any]],
    tasks: Mapping[tuple[int, str], str],
) -> pd.DataFrame:
    """The jobs with what became of each."""
    states, reasons, seconds, began = [], [], [], []
    for key, kind, run, task in zip(
        jobs["key"], jobs["kind"], jobs["run"], jobs["task"], strict=True
    ):
        line = lines.get((run, key), {})
        did = line.get("did")
        there = did == "done" if kind in ("rows", "trial") else key in stored
        if there:
            state = "done"
        elif did in ("skipped", "failed"):
            state = did
        elif (run, task) in tasks:
            at_work = did == "began" and tasks[run, task] == "running"
            state = "running" if at_work else "waiting"
        else:
            state = "missing"
        states.append(state)
        reasons.append(line.get("reason"))
        seconds.append(line.get("seconds"))
        began.append(line.get("at") if state == "running" else None)
    words, numbers = {"state": states, "reason": reasons}, {"seconds": seconds, "began": began}
    told = {name: pd.Series(column, dtype=object) for name, column in words.items()}
    told |= {name: pd.Series(column, dtype=float) for name, column in numbers.items()}
    return jobs.assign(**told)


def _cells(folder: Path, sweep: str, jobs: pd.DataFrame) -> pd.DataFrame:
    """The sweep's cells with what became of each: what rows say, else what their job does."""
    rows = jobs[jobs["kind"] == "rows"][["key", "cells", "state", "task", "run"]]
    rows = rows.rename(columns={"key": "job"}).explode("cells").rename(columns={"cells": "key"})
    if (folder / "sweeps" / f"{sweep}.parquet").exists():
        cells = load.listed_cells([folder], sweep)
    else:
        cells = pd.DataFrame({"key": rows["key"], "utility_key": rows["key"]})
    told = load.statuses(folder).set_index("key")
    cells = cells.merge(rows.drop_duplicates("key", keep="last"), how="left", on="key")
    names = ("key", "utility_key")
    own, model = (told.reindex(cells[name]).reset_index(drop=True) for name in names)
    both = own["status"].where(own["status"] != "ok", model["status"])
    reason = own["reason"].where(own["status"] != "ok", model["reason"])
    final = both.map({"ok": "done", "skipped": "skipped"})
    to_come = cells["state"].where(cells["state"].isin(["running", "waiting"]))
    failed = both.where(both == "failed")
    state = final.fillna(to_come).fillna(failed).fillna("missing")
    columns = {"state": state, "reason": reason, "method": own["method"], "seed": own["seed"]}
    found: pd.DataFrame = cells.assign(**columns)
    return found


def _explained(cells: pd.DataFrame, ends: Mapping[str, str]) -> pd.DataFrame:
    """The same, missing cells with how SLURM says that their task ended, if it does."""
    missing = cells["state"] == "missing"
    told = cells["task"].map(ends).map(lambda end: f"SLURM says {end}", na_action="ignore")
    return cells.assign(reason=cells["reason"].where(~missing, told.fillna("no task is left")))


def _left(folder: Path, runs: Sequence[Run], jobs: pd.DataFrame) -> tuple[float, bool]:
    to_come = jobs[jobs["state"].isin(["running", "waiting"])].reset_index(drop=True)
    if not len(to_come):
        return 0.0, True
    gpus = {
        (place, f"{array['name']}-{n}")
        for place, run in enumerate(runs)
        for array in run.told.get("arrays", ())
        for n in range(array["tasks"])
        if array["gpus"]
    }
    on = [pair in gpus for pair in zip(to_come["run"], to_come["task"], strict=True)]
    expected = cost.expected(to_come, cost.history(folder), on)["seconds"]
    passed = (time.time() - to_come["began"]).fillna(0)
    return float((expected - passed).clip(lower=0).sum()), bool(expected.notna().all())
