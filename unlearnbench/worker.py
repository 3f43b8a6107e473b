"""The process that works: imports torch once, forks a worker a core, hands out jobs.

Run by ``launch`` as ``python -m unlearnbench.worker``. It reads its orders from standard input,
tells what happens as JSON lines on standard output, and ends when the other end of its input does.
"""

import ctypes
import json
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TextIO

import torch

from unlearnbench import outputs, picture, pipeline, results, table, trace
from unlearnbench.cell import Cell
from unlearnbench.plan import Event, Job, Orders
from unlearnbench.store import Store
from unlearnbench.values import Skip

_fork = multiprocessing.get_context("fork")


def devices(wanted: str, workers: int | None) -> list[str]:
    """The device of each worker: by default one a CPU core, or two a GPU.

    Raises:
        ValueError: a GPU is wanted and there is none, or none of that number.
    """
    gpus = torch.cuda.device_count()
    if wanted.startswith("cuda") and not gpus:
        raise ValueError(f"device={wanted}: no CUDA device here; take device=cpu")
    if ":" in wanted and int(wanted.split(":")[1]) >= gpus:
        raise ValueError(f"device={wanted}: the last CUDA device here is cuda:{gpus - 1}")
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return ["cpu"] * (workers or _cores())
    named = [wanted] if ":" in wanted else [f"cuda:{index}" for index in range(gpus)]
    count = workers or 2 * len(named)
    return [named[index % len(named)] for index in range(count)]


def _cores() -> int:
    """Cores this process may use; SLURM and containers give fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------
# In a worker.


def perform(job: Job, lab: pipeline.Lab, folder: Path, begin: Callable[[str], None]) -> Event:
    """Do one job. What goes wrong is told, with its traceback kept in ``failures/``.

    Args:
        job: what to do.
        lab: what to do it with; a cell among its failures gets a failed row.
        folder: of the results.
        begin: told the key of each cell before its rows are computed.
    """
    if job.kind != "rows":
        try:
            (trace.trace if job.kind == "traced" else outputs.predict)(lab, job.cells[0])
        except Exception as error:  # noqa: BLE001 - whatever a method raises is told, not a crash
            status = "skipped" if isinstance(error, Skip) else "failed"
            if status == "failed":
                _keep(folder, job.key, error)
            return Event(job.key, job.kind, status, table.reason(error))
        return Event(job.key, job.kind, "done")
    found = []
    for cell in job.cells:
        begin(cell.key)
        found.append(table.rows(_without(lab, cell), cell))
    for cell, one in zip(job.cells, found, strict=True):
        if one.error is not None and not isinstance(one.error, Skip | pipeline.Failed):
            _keep(folder, cell.key, one.error)
        if one.picture is not None:
            picture.save(folder / "pictures" / f"{_picture_name(cell)}.png", one.picture)
    if scores := [one.scores for one in found if one.scores is not None]:
        results.write(folder / "scores", job.key, results.joined(scores), results.SCORES)
    if curves := [one.roc for one in found if one.roc is not None]:
        results.write(folder / "roc", job.key, results.joined(curves), results.ROC)
    rows = {(r["key"], r.get("metric"), r.get("step")): r for one in found for r in one.rows}
    results.write(folder / "rows", job.key, list(rows.values()), results.ROWS)
    return Event(job.key, job.kind, "done")


def _without(lab: pipeline.Lab, cell: Cell) -> pipeline.Lab:
    """The lab as a cell sees it that is known to fail: its outputs are out of reach."""
    if cell.key not in lab.failures:
        return lab
    return replace(lab, failures={**lab.failures, cell.predictions_key: lab.failures[cell.key]})


def _picture_name(cell: Cell) -> str:
    """The cell in a few words, and enough of its key to tell it from others."""
    axes = ("dataset", "model", "train", "method", "attack")
    words = [*(cell.names[axis] for axis in axes), f"seed{cell.seed}", cell.key[:8]]
    return re.sub(r"[^\w.-]", "_", "-".join(words))


def _keep(folder: Path, key: str, error: Exception) -> None:
    (folder / "failures").mkdir(exist_ok=True)
    text = "".join(traceback.format_exception(error))
    (folder / "failures" / f"{key}.txt").write_text(text)


def configure(device: str) -> None:
    """Set up this process for arithmetic on a device: one thread, the same bits, memory kept."""
    torch.set_num_threads(1)
    if device == "cpu":
        # Each step of Adam asks whether CUDA is there. As launch has this answered, torch looks for
        # the driver's library every time; where no GPU is visible, it knows without looking.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # or float32 convolutions are off by 1e-3
    # What a step frees, the next one asks for again: the C library is told to keep it. Fetching
    # fresh pages instead takes 5 % of a ResNet-18 step. glibc only.
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # as <malloc.h> numbers them


def _work(
    orders: Connection, alive: tuple[int, int], store: Path, device: str, folder: Path
) -> None:
    """Do jobs until there are no more, or the process that gives them has died."""
    os.close(alive[1])  # the host's alone
    threading.Thread(target=_die_with, args=alive[:1], daemon=True).start()
    configure(device)
    lab = pipeline.Lab(Store(store), device)
    while True:
        try:
            job, lab.failures = orders.recv()
        except EOFError:
            return
        try:
            event = perform(job, lab, folder, orders.send)
        except Exception as error:  # noqa: BLE001 - a full disk, a folder that is read-only, …
            event = Event(job.key, job.kind, "failed", table.reason(error))
        orders.send(event)


def _die_with(alive: int) -> None:
    """End with the host, however it ends and whatever this process is at."""
    os.read(alive, 1)  # nothing is ever written there; it returns when the host's end is closed
    os._exit(1)


# ---------------------------------------------------------------------------------------------
# In the process that hands out.


@dataclass
class Worker:
    """A forked process, the pipe to it, the job it is at, and the cell whose rows it makes."""

    process: Any
    pipe: Connection
    device: str
    job: Job | None = None
    cell: str | None = None


class Host:
    """Hands each job out once all it needs is done or has failed."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.failures: dict[str, str] = {}  # of predictions, and of cells whose rows killed
        self.alive = os.pipe()
        self.jobs = {job.key: job for job in orders.jobs}
        self.place = {key: place for place, key in enumerate(self.jobs)}
        self.lacks = {j.key: self.jobs.keys() & j.needs for j in orders.jobs}
        self.blocks: dict[str, list[str]] = {key: [] for key in self.jobs}
        for key, needs in self.lacks.items():
            for need in needs:
                self.blocks[need].append(key)
        self.ready = [(self.place[key], key) for key, needs in self.lacks.items() if not needs]
        heapify(self.ready)
        wanted = devices(orders.device, orders.workers)
        self.workers = [self._start(device) for device in wanted[: len(orders.jobs)]]

    def _start(self, device: str) -> Worker:
        here, there = _fork.Pipe()
        arguments = (there, self.alive, self.orders.store, device, self.orders.results)
        process = _fork.Process(target=_work, args=arguments, daemon=True)
        process.start()
        there.close()
        return Worker(process, here, device)

    def _replaced(self, worker: Worker) -> Worker:
        place = self.workers.index(worker)
        self.workers[place] = self._start(worker.device)
        return self.workers[place]

    def run(self, events: TextIO) -> None:
        """Until every job has its event, or nobody reads them any more."""
        parent = sys.stdin.fileno()
        while self.ready or any(worker.job for worker in self.workers):
            self._hand_out()
            busy = [worker for worker in self.workers if worker.job]
            ready = wait([*(worker.pipe for worker in busy), parent])
            if parent in ready:  # nothing is ever written there: it was closed
                break
            for worker in (one for one in busy if one.pipe in ready):
                event = self._settle(worker)
                if event is not None:
                    print(json.dumps(vars(event)), file=events, flush=True)
        for worker in self.workers:
            worker.process.kill()

    def _hand_out(self) -> None:
        idle = [worker for worker in self.workers if worker.job is None]
        for worker in idle[: len(self.ready)]:
            if not worker.process.is_alive():
                worker = self._replaced(worker)
            worker.cell = None
            job = worker.job = self.jobs[heappop(self.ready)[1]]
            about = {*job.needs, *(cell.key for cell in job.cells)}
            worker.pipe.send((job, {key: self.failures[key] for key in about & {*self.failures}}))

    def _settle(self, worker: Worker) -> Event | None:
        """What a worker has told: the event that settles its job, if it is settled."""
        job = worker.job
        assert job is not None
        try:
            told = worker.pipe.recv()
        except (EOFError, OSError):
            told = self._lost(worker, job)
        if not isinstance(told, Event):
            worker.cell = told
            return None
        worker.job = None
        for blocked in self.blocks[job.key]:
            self.lacks[blocked].discard(job.key)
            if not self.lacks[blocked]:
                heappush(self.ready, (self.place[blocked], blocked))
        if told.status == "failed":
            self.failures[job.key] = told.reason
        return told

    def _lost(self, worker: Worker, job: Job) -> Event | None:
        """The worker died at this job: killed for memory, or crashed."""
        worker.process.join()
        code = worker.process.exitcode
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with {code}"
        reason = f"the worker process {how}"
        self._replaced(worker)
        if worker.cell is None or worker.cell in self.failures:
            return Event(job.key, job.kind, "failed", reason)
        # One cell's attack must not take along the rows of those it shares a file with.
        self.failures[worker.cell] = reason
        heappush(self.ready, (self.place[job.key], job.key))
        return None


def main() -> None:
    """Read orders, work, tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; our parent decides
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints goes to the log
    orders = pickle.load(sys.stdin.buffer)  # written by our own parent into a pipe
    try:
        host = Host(orders)
    except ValueError as error:
        sys.exit(str(error))
    with suppress(BrokenPipeError):
        host.run(events)


if __name__ == "__main__":
    main()
