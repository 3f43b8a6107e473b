"""Progress of a sweep, from the store, the rows, the journals and the queue of SLURM.

A model in the store is done, and so is a cell with rows, whatever happened to the process that made
them. A job that is neither done nor failed is waiting while a task remains that will run it, and
missing otherwise.
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
"""Pattern of the reasons of jobs that ran out of memory; the kernel kills them with SIGKILL."""


@dataclass(frozen=True)
class Progress:
    """The state of a sweep.

    Attributes:
        runs: the runs of the sweep, the oldest first.
        cells: ``key``, ``state`` and ``reason`` of each cell.
        jobs: the table of jobs, each once, with ``state``, ``reason``, ``seconds``, ``began``.
        tasks: ``running`` or ``waiting`` for each unfinished task, by index of the run and name.
        asked: False if SLURM did not answer.
        left: expected seconds of the remaining jobs on one worker, and whether all are estimated.
    """

    runs: Sequence[Run]
    cells: pd.DataFrame
    jobs: pd.DataFrame
    tasks: Mapping[tuple[int, str], str]
    asked: bool
    left: tuple[float, bool]

    def chosen(self, *, failed: bool, memory: bool) -> set[str]:
        """Keys of failed and missing cells, for another run.

        Args:
            failed: select failed cells only.
            memory: select cells that ran out of memory only.
        """
        cells = self.cells
        chosen = cells["state"].isin(["failed"] if failed else ["failed", "missing"])
        if memory:
            chosen &= cells["reason"].fillna("").str.contains(MEMORY)
        return set(cells["key"][chosen])


def progress(folder: Path, store: Path, runs: Sequence[Run]) -> Progress:
    """Compute the state of a sweep.

    Args:
        folder: the results folder.
        store: the folder of the store.
        runs: the runs of the sweep, the oldest first.
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
    return Progress(runs, cells, jobs, tasks, queued is not None, _remaining(folder, runs, jobs))


def _read(run: Run, place: int, lines: dict[tuple[int, str], dict[str, Any]]) -> set[str]:
    """Add the latest record of each job of a run to ``lines``; return the names of live tasks."""
    alive = set()
    for path in damage.inside(run.folder / "journal", ".jsonl"):
        records = list(journal.lines(path))
        for line in records:
            if "key" in line:
                lines[place, line["key"]] = line
        if journal.alive(path, records):
            alive.add(path.stem)
    return alive


def _tasks(
    run: Run, alive: set[str], queued: Mapping[str, tuple[str, str]] | None
) -> dict[str, str]:
    """``running`` or ``waiting`` for each unfinished task of a run, by name."""
    if run.told["launcher"]["name"] == "local":
        return {"local": "running"} if alive or _starting(run) else {}
    names = [f"{a['name']}-{n}" for a in run.told.get("arrays", ()) for n in range(a["tasks"])]
    # A live journal means running, whatever SLURM says. Without an answer the others may still run.
    to_come = names if queued is None else [name for name in names if name in queued]
    return dict.fromkeys(to_come, "waiting") | dict.fromkeys(alive, "running")


def _starting(run: Run) -> bool:
    """Whether the working process of a run can still be about to create its journal."""
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
    """The jobs with the columns ``state``, ``reason``, ``seconds`` and ``began``."""
    states, reasons, seconds, began = [], [], [], []
    for key, kind, run, task in zip(
        jobs["key"], jobs["kind"], jobs["run"], jobs["task"], strict=True
    ):
        line = lines.get((run, key), {})
        did = line.get("did")
        is_done = did == "done" if kind in ("rows", "trial") else key in stored
        if is_done:
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
    texts, numbers = {"state": states, "reason": reasons}, {"seconds": seconds, "began": began}
    columns = {name: pd.Series(column, dtype=object) for name, column in texts.items()}
    columns |= {name: pd.Series(column, dtype=float) for name, column in numbers.items()}
    return jobs.assign(**columns)


def _cells(folder: Path, sweep: str, jobs: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep with the state of each, from its rows, or else from its job."""
    rows = jobs[jobs["kind"] == "rows"][["key", "cells", "state", "task", "run"]]
    rows = rows.rename(columns={"key": "job"}).explode("cells").rename(columns={"cells": "key"})
    if (folder / "sweeps" / f"{sweep}.parquet").exists():
        cells = load.listed_cells([folder], sweep)
    else:
        cells = pd.DataFrame({"key": rows["key"], "utility_key": rows["key"]})
    statuses = load.statuses(folder).set_index("key")
    cells = cells.merge(rows.drop_duplicates("key", keep="last"), how="left", on="key")
    names = ("key", "utility_key")
    own, model = (statuses.reindex(cells[name]).reset_index(drop=True) for name in names)
    both = own["status"].where(own["status"] != "ok", model["status"])
    reason = own["reason"].where(own["status"] != "ok", model["reason"])
    final = both.map({"ok": "done", "skipped": "skipped"})
    to_come = cells["state"].where(cells["state"].isin(["running", "waiting"]))
    failed = both.where(both == "failed")
    state = final.fillna(to_come).fillna(failed).fillna("missing")
    columns = {"state": state, "reason": reason, "method": own["method"], "seed": own["seed"]}
    table: pd.DataFrame = cells.assign(**columns)
    return table


def _explained(cells: pd.DataFrame, task_states: Mapping[str, str]) -> pd.DataFrame:
    """The cells, with SLURM's final state of the task as the reason of each missing cell."""
    missing = cells["state"] == "missing"
    reasons = (
        cells["task"].map(task_states).map(lambda state: f"SLURM says {state}", na_action="ignore")
    )
    return cells.assign(reason=cells["reason"].where(~missing, reasons.fillna("no task is left")))


def _remaining(folder: Path, runs: Sequence[Run], jobs: pd.DataFrame) -> tuple[float, bool]:
    """Expected seconds of running and waiting jobs, and whether all of them are estimated."""
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
