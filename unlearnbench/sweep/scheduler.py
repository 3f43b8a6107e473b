"""The working process: imports torch once, forks one worker per core, assigns jobs to workers.

``local`` or a task of SLURM starts it as ``python -m unlearnbench.sweep.scheduler``. It reads its
orders from standard input, writes events as JSON lines to standard output and to a journal, and
ends when its standard input is closed. After a stop signal it assigns no more jobs, waits for short
jobs, and leaves the remaining ones to the next process with the same orders.
"""

import json
import os
import pickle
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TextIO

import torch

from unlearnbench.pipeline import rows
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import machine
from unlearnbench.sweep.journal import BEAT, Journal
from unlearnbench.sweep.plan import CRASH, Event, Job, Orders
from unlearnbench.sweep.worker import STOPS, fork, work

STOP_SECONDS = 20.0
"""Seconds that a worker may run after a stop request. SLURM waits 30 s by default."""

STOPPED = 75
"""Exit code after a stop request with jobs remaining; ``local.STOPPED`` contains it."""


def devices(wanted: str, workers: int | None) -> list[str]:
    """The device of each worker; by default one worker per CPU core, or two per GPU.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: number of workers; None for the default.

    Raises:
        ValueError: a GPU is requested and there is none, or none of that number.
    """
    gpus = torch.cuda.device_count()
    if wanted.startswith("cuda") and not gpus:
        raise ValueError(f"device={wanted}: no CUDA device here; take device=cpu")
    if ":" in wanted and int(wanted.split(":")[1]) >= gpus:
        raise ValueError(f"device={wanted}: the last CUDA device here is cuda:{gpus - 1}")
    return machine.places(wanted, workers, gpus)


@dataclass
class WorkerHandle:
    """A forked process, the pipe to it, its current job, and the cell whose rows it computes."""

    process: Any
    pipe: Connection
    device: str
    job: Job | None = None
    cell: str | None = None
    began: float = 0.0
    absent: tuple[Path, ...] = ()  # paths that the job will create


class Scheduler:
    """Assigns each job to a worker after all jobs that it needs are settled.

    Args:
        orders: the jobs, the folders and the devices.
        stop: a file descriptor; each byte read from it is a stop request.
    """

    def __init__(self, orders: Orders, stop: int) -> None:
        self.orders = orders
        self.stop = stop
        self.store = Store(orders.store)
        self.journal = Journal(orders.run, orders.task)
        needs = {need for job in orders.jobs for need in job.needs}
        self.failures = self.journal.failures(needs)  # of jobs, and of cells that ended a worker
        self.alive = os.pipe()
        self.deadline: float | None = None  # for the workers, after a stop request
        self.told: list[Event] = []
        for job in orders.jobs:  # settled before this task was queued again
            if line := self.journal.settled.get(job.key):
                self.told.append(Event(job.key, job.kind, line["did"], line["reason"]))
        self.jobs = {job.key: job for job in orders.jobs if job.key not in self.journal.settled}
        self.place = {key: place for place, key in enumerate(self.jobs)}
        self.lacks = {job.key: self.jobs.keys() & job.needs for job in self.jobs.values()}
        self.blocks: dict[str, list[str]] = {key: [] for key in self.jobs}
        for key, needed in self.lacks.items():
            for need in needed:
                self.blocks[need].append(key)
        self.ready = [(self.place[key], key) for key, needed in self.lacks.items() if not needed]
        heapify(self.ready)
        wanted = devices(orders.device, orders.workers)
        self.workers: list[WorkerHandle] = []
        try:
            for device in wanted[: len(self.jobs)]:
                self.workers.append(self._start(device))
        except BaseException:
            self.end_workers()
            raise

    def end_workers(self) -> None:
        """Kill all workers; a request to terminate would make them write checkpoints."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()  # otherwise its resource usage is not counted

    def _start(self, device: str) -> WorkerHandle:
        local_end, worker_end = fork.Pipe()
        arguments = (worker_end, self.alive, self.orders.store, device, self.orders.results)
        process = fork.Process(target=work, args=arguments, daemon=True)
        process.start()
        worker_end.close()
        return WorkerHandle(process, local_end, device)

    def _replaced(self, worker: WorkerHandle) -> WorkerHandle:
        place = self.workers.index(worker)
        self.workers[place] = self._start(worker.device)
        return self.workers[place]

    def run(self, events: TextIO) -> bool:
        """Run until every job has its event, or the parent has closed the pipe.

        All workers have ended when it returns or raises.

        Args:
            events: the stream for the events, as JSON lines.

        Returns:
            Whether jobs remain after a stop request.
        """
        try:
            self._hand_out_and_listen(events)
        finally:
            self.end_workers()
        self.journal.ended()
        return self.deadline is not None and bool(self.lacks)

    def _hand_out_and_listen(self, events: TextIO) -> None:
        parent = sys.stdin.fileno()
        while True:
            if self.deadline is None:
                self._hand_out()
            self._tell(events)
            busy = [worker for worker in self.workers if worker.job]
            if not busy and (self.deadline is not None or not self.ready):
                break
            patience = BEAT if self.deadline is None else self.deadline - time.monotonic()
            readable = wait(
                [*(worker.pipe for worker in busy), parent, self.stop], max(patience, 0)
            )
            self.journal.beat()
            if self.stop in readable:
                os.read(self.stop, 1)
                self._ask_to_stop()
            # The parent writes nothing more, so a readable pipe from it is closed.
            if parent in readable or (not readable and self.deadline is not None):
                break
            for worker in (handle for handle in busy if handle.pipe in readable):
                if (event := self._settle(worker)) is not None:
                    self.told.append(event)

    def _tell(self, events: TextIO) -> None:
        for event in self.told:
            print(json.dumps(vars(event)), file=events, flush=True)
        self.told.clear()

    def _ask_to_stop(self) -> None:
        if self.deadline is not None:
            return
        self.deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGUSR2)

    def _hand_out(self) -> None:
        for worker in [worker for worker in self.workers if worker.job is None]:
            job = self._next()
            if job is None:
                return
            if not worker.process.is_alive():
                worker = self._replaced(worker)
            worker.job, worker.cell, worker.began = job, None, time.monotonic()
            worker.absent = tuple(path for path in self._made(job) if not path.exists())
            related = {*job.needs, *(cell.key for cell in job.cells)}
            self.journal.began(job.key)
            failed = related & self.failures.keys()
            with suppress(BrokenPipeError, ConnectionResetError):  # it died; see ``_settle``
                worker.pipe.send((job, {key: self.failures[key] for key in failed}))

    def _next(self) -> Job | None:
        """The first job that is ready; models that another process has made are settled as done."""
        while self.ready:
            job = self.jobs[heappop(self.ready)[1]]
            if job.kind in ("rows", "trial") or not self.store.has(job.key):
                return job
            self.told.append(self._settled(job, Event(job.key, job.kind, "done")))
        return None

    def _made(self, job: Job) -> list[Path]:
        """The paths that the job creates."""
        cell, folder = job.cells[0], self.orders.results
        if job.kind == "trial":
            return []  # it adds a line to the journal of its study
        if job.kind == "rows":
            return [folder / table / f"{job.key}.parquet" for table in ("rows", "scores", "roc")]
        keys = [job.key] if job.kind == "traced" else [job.key, cell.model_key]
        keys += [cell.prepared_key] if cell.method.get("prepare") is not None else []
        return [self.store.path(key) for key in keys]

    def _settle(self, worker: WorkerHandle) -> Event | None:
        """Read a message of a worker; return the event that settles its job, or None."""
        job = worker.job
        assert job is not None
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            message = self._lost(worker, job)
        if not isinstance(message, Event):
            worker.cell = message
            return None
        worker.job = None
        if self.deadline is not None and message.status == "failed":
            return None  # the stop request can be the cause, so the job runs again
        seconds, size = time.monotonic() - worker.began, sum(map(_bytes, worker.absent))
        measured = worker.absent or job.kind == "trial"
        costs = {"seconds": round(seconds, 3), "bytes": size} if measured else {}
        return self._settled(job, message, device=worker.device, **costs)

    def _settled(self, job: Job, event: Event, **costs: Any) -> Event:
        self.journal.settle(event.key, event.status, event.reason, **costs)
        for blocked in self.blocks[job.key]:
            self.lacks[blocked].discard(job.key)
            if not self.lacks[blocked]:
                heappush(self.ready, (self.place[blocked], blocked))
        del self.lacks[job.key]
        if event.status == "failed":
            self.failures[job.key] = event.reason
        return event

    def _lost(self, worker: WorkerHandle, job: Job) -> Event | None:
        """Handle a worker that ended during a job; return the event of the job if it has failed."""
        worker.process.join()
        if self.deadline is not None:  # it ended after the stop request
            worker.job = None
            return None
        code = worker.process.exitcode
        names = {number.value: number.name for number in signal.Signals}  # some have none
        how = f"was killed ({names.get(-code, -code)})" if code < 0 else f"ended with {code}"
        reason = f"the worker process {how}"
        self._replaced(worker)
        if worker.cell is None or worker.cell in self.failures:
            return Event(job.key, job.kind, "failed", reason)
        # The attack of one cell must not prevent the rows of other cells in the same file.
        self.failures[worker.cell] = reason
        heappush(self.ready, (self.place[job.key], job.key))
        return None


def _bytes(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; 0 if it does not exist."""
    with suppress(OSError):
        files = list(path.iterdir()) if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    return 0


def main() -> None:
    """Read orders, run the jobs, write events."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from the terminal; the parent process handles it
    stop = os.pipe()
    for number in STOPS:
        signal.signal(number, lambda *_: os.write(stop[1], b"."))
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # other output goes to the log
    try:
        orders = pickle.load(sys.stdin.buffer)  # written by the parent process into a pipe
        unfinished = Scheduler(orders, stop[0]).run(events)
    except Exception as error:  # noqa: BLE001 - a full disk, a process too many, …
        with suppress(OSError, ValueError):  # the parent process has ended
            crash = Event("", CRASH, "failed", rows.reason(error))
            print(json.dumps(vars(crash)), file=events, flush=True)
        with suppress(OSError):  # the log may be on a full disk
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)  # without waiting for workers or flushing buffers
    if unfinished:
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
