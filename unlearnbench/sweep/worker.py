"""One process that does jobs."""

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
"""What SLURM sends each process of a job before it ends, preempts or queues it again."""


def run_job(job: Job, workspace: Workspace, folder: Path, begin: Callable[[str], None]) -> Event:
    """Do one job. What goes wrong is told, with its traceback kept in ``failures/``.

    Args:
        job: what to do.
        workspace: what to do it with; a cell among its failures gets a failed row.
        folder: of the results.
        begin: told the key of each cell before its rows are computed.
    """
    if job.slot is not None:
        return run_trial(job, job.slot, workspace, folder)
    if job.kind != "rows":
        try:
            (trace.trace if job.kind == "traced" else outputs.predict)(workspace, job.cells[0])
        except RAISED as error:  # whatever a method raises is told, not a crash
            status = "skipped" if isinstance(error, Skip) else "failed"
            if status == "failed":
                _keep(folder, job.key, error)
            return Event(job.key, job.kind, status, reason(error))
        return Event(job.key, job.kind, "done")
    found = []
    for cell in job.cells:
        begin(cell.key)
        found.append(rows_of(_without(workspace, cell), cell))
    for cell, one in zip(job.cells, found, strict=True):
        if one.error is not None and not isinstance(one.error, Skip | Failed):
            _keep(folder, cell.key, one.error)
        if one.picture is not None:
            picture.save(folder / "pictures" / f"{_picture_name(cell)}.png", one.picture)
    if scores := [one.scores for one in found if one.scores is not None]:
        parts.write(folder / "scores", job.key, parts.joined(scores), schema.SCORES)
    if curves := [one.roc for one in found if one.roc is not None]:
        parts.write(folder / "roc", job.key, parts.joined(curves), schema.ROC)
    rows = {(r["key"], r.get("metric"), r.get("step")): r for one in found for r in one.rows}
    parts.write(folder / "rows", job.key, list(rows.values()), schema.ROWS)
    return Event(job.key, job.kind, "done")


def run_trial(job: Job, slot: Slot, workspace: Workspace, folder: Path) -> Event:
    """Do a trial of a search. One that fails is a trial too; without its models there is none."""
    from unlearnbench.search import journal_study as search
    from unlearnbench.search import trial  # Optuna takes half a second, which only these need

    impossible = [workspace.failures[key] for key in job.needs if key in workspace.failures]
    if impossible:
        return Event(job.key, job.kind, "failed", impossible[0])
    if slot.until is not None and time.time() > slot.until:
        return Event(job.key, job.kind, "skipped", "timeout: its time was over before it began")
    evaluate = trial.evaluator(workspace, slot.study, lambda error: _keep(folder, job.key, error))
    over = search.run(folder, slot, evaluate, slurm.known)
    if over is None:
        return Event(job.key, job.kind, "skipped", "there are fewer that could be run again")
    if over.status == search.SKIPPED:
        return Event(job.key, job.kind, "skipped", over.reason)
    return Event(job.key, job.kind, "done", over.reason, over.score)


def _without(workspace: Workspace, cell: Cell) -> Workspace:
    """The lab as a cell sees it that is known to fail: its outputs are out of reach."""
    if cell.key not in workspace.failures:
        return workspace
    return replace(
        workspace,
        failures={**workspace.failures, cell.predictions_key: workspace.failures[cell.key]},
    )


def _picture_name(cell: Cell) -> str:
    """The cell in a few words, and enough of its key to tell it from others."""
    axes = ("dataset", "model", "train", "method", "attack")
    words = [*(cell.names[axis] for axis in axes), f"seed{cell.seed}", cell.key[:8]]
    return re.sub(r"[^\w.-]", "_", "-".join(words))


def _keep(folder: Path, key: str, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    with suppress(OSError):  # a full disk; the row and the event have the reason
        (folder / "failures").mkdir(exist_ok=True)
        atomic.write(folder / "failures" / f"{key}.txt", text)


def configure(device: str) -> None:
    """Set up this process for arithmetic on a device: one thread, the same bits, memory kept."""
    torch.set_num_threads(1)
    if device == "cpu":
        # Each step of Adam asks whether CUDA is there. As launch has this answered, torch looks for
        # the driver's library every time; where no GPU is visible, it knows without looking.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # or float32 convolutions are off by 1e-3
    memory.keep_freed()


def work(
    orders: Connection, alive: tuple[int, int], store: Path, device: str, folder: Path
) -> None:
    """Do jobs until there are no more, or the process that gives them has died."""
    for one in STOPS:  # a long training writes a checkpoint; the host waits for what is short
        signal.signal(one, lambda *_: checkpoint.request())
    os.close(alive[1])  # the host's alone
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
    """End with the host, however it ends and whatever this process is at."""
    os.read(alive, 1)  # nothing is ever written there; it returns when the host's end is closed
    os._exit(1)
