"""The worker process, which runs jobs."""

import multiprocessing
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from unlearnbench.core import atomic, picture
from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import RAISED, Failed, Skip
from unlearnbench.pipeline import outputs, trace
from unlearnbench.pipeline.rows import reason, rows_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.results import parts, schema
from unlearnbench.search.study import Slot
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import memory, slurm
from unlearnbench.sweep.plan import Event, Job
from unlearnbench.train import checkpoint

fork = multiprocessing.get_context("fork")

STOPS = (signal.SIGTERM, signal.SIGUSR2)
"""Signals that SLURM sends to the processes of a job before it ends, preempts or requeues it."""


def run_job(job: Job, workspace: Workspace, folder: Path, begin: Callable[[str], None]) -> Event:
    """Run one job. The event reports an error; its traceback is written to ``failures/``.

    Args:
        job: the job.
        workspace: the store, the device and the earlier failures; a failed cell gets a failed row.
        folder: the results folder.
        begin: called with the key of each cell before its rows are computed.
    """
    if job.slot is not None:
        return run_trial(job, job.slot, workspace, folder)
    if job.kind != "rows":
        try:
            (trace.trace if job.kind == "traced" else outputs.predict)(workspace, job.cells[0])
        except RAISED as error:  # an exception of a method is an event, not a crash
            status = "skipped" if isinstance(error, Skip) else "failed"
            if status == "failed":
                _save(folder, job.key, error)
            return Event(job.key, job.kind, status, reason(error))
        return Event(job.key, job.kind, "done")
    results = []
    for cell in job.cells:
        begin(cell.key)
        results.append(rows_of(_without(workspace, cell), cell))
    for cell, result in zip(job.cells, results, strict=True):
        if result.error is not None and not isinstance(result.error, Skip | Failed):
            _save(folder, cell.key, result.error)
        if result.picture is not None:
            picture.save(folder / "pictures" / f"{_picture_name(cell)}.png", result.picture)
    if scores := [result.scores for result in results if result.scores is not None]:
        parts.write(folder / "scores", job.key, parts.joined(scores), schema.SCORES)
    if curves := [result.roc for result in results if result.roc is not None]:
        parts.write(folder / "roc", job.key, parts.joined(curves), schema.ROC)
    rows = {
        (r["key"], r.get("metric"), r.get("step")): r for result in results for r in result.rows
    }
    parts.write(folder / "rows", job.key, list(rows.values()), schema.ROWS)
    return Event(job.key, job.kind, "done")


def run_trial(job: Job, slot: Slot, workspace: Workspace, folder: Path) -> Event:
    """Run a trial of a search; its event is ``failed`` only if a model that it needs has failed."""
    from unlearnbench.search import journal_study as search
    from unlearnbench.search import trial  # Optuna, imported here only, takes half a second

    impossible = [workspace.failures[key] for key in job.needs if key in workspace.failures]
    if impossible:
        return Event(job.key, job.kind, "failed", impossible[0])
    if slot.until is not None and time.time() > slot.until:
        return Event(job.key, job.kind, "skipped", "timeout: its time was over before it began")
    evaluate = trial.evaluator(workspace, slot.study, lambda error: _save(folder, job.key, error))
    outcome = search.run(folder, slot, evaluate, slurm.known)
    if outcome is None:
        return Event(job.key, job.kind, "skipped", "there are fewer that could be run again")
    if outcome.status == search.SKIPPED:
        return Event(job.key, job.kind, "skipped", outcome.reason)
    return Event(job.key, job.kind, "done", outcome.reason, outcome.score)


def _without(workspace: Workspace, cell: Cell) -> Workspace:
    """The workspace for a cell; if the cell has failed before, its predictions count as failed."""
    if cell.key not in workspace.failures:
        return workspace
    return replace(
        workspace,
        failures={**workspace.failures, cell.predictions_key: workspace.failures[cell.key]},
    )


def _picture_name(cell: Cell) -> str:
    """File name of a cell's picture: names of its options, seed, and first 8 digits of its key."""
    axes = ("dataset", "model", "train", "method", "attack")
    names = [*(cell.names[axis] for axis in axes), f"seed{cell.seed}", cell.key[:8]]
    return re.sub(r"[^\w.-]", "_", "-".join(names))


def _save(folder: Path, key: str, error: BaseException) -> None:
    """Write a traceback to ``failures/``."""
    text = "".join(traceback.format_exception(error))
    with suppress(OSError):  # a full disk; the row and the event contain the reason
        (folder / "failures").mkdir(exist_ok=True)
        atomic.write(folder / "failures" / f"{key}.txt", text)


def configure(device: str) -> None:
    """Set up this process for a device: one thread, deterministic results, freed memory kept."""
    torch.set_num_threads(1)
    if device == "cpu":
        # Each step of Adam checks whether CUDA is available. With the settings of ``local`` torch
        # then searches the driver's library every time, unless no GPU is visible.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # with TF32, float32 convolutions have errors of 1e-3
    memory.keep_freed()


def work(
    orders: Connection, alive: tuple[int, int], store: Path, device: str, folder: Path
) -> None:
    """Run jobs from the pipe until it is closed, or the working process has died."""
    for number in STOPS:  # a long training writes a checkpoint; the scheduler waits for short jobs
        signal.signal(number, lambda *_: checkpoint.request())
    os.close(alive[1])  # the end that only the scheduler holds
    threading.Thread(target=_die_with, args=alive[:1], daemon=True).start()
    configure(device)
    workspace = Workspace(Store(store, slurm.known), device)
    while True:
        try:
            job, workspace.failures = orders.recv()
        except EOFError:
            return
        try:
            event = run_job(job, workspace, folder, orders.send)
        except checkpoint.Interrupted:
            return
        except RAISED as error:  # a full disk, a folder that is read-only, …
            event = Event(job.key, job.kind, "failed", reason(error))
        orders.send(event)


def _die_with(alive: int) -> None:
    """End this process, whatever it does, when the scheduler's process ends."""
    os.read(alive, 1)  # nothing is ever written to it; ``read`` returns when its other end closes
    os._exit(1)
