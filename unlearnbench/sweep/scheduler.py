"""The process that works: imports torch once, forks a worker a core, hands out jobs.

Run by ``local``, or by a task of SLURM, as ``python -m unlearnbench.sweep.scheduler``. It reads its
orders from standard input, writes events as JSON lines to standard output, keeps a journal of them,
and ends when the other end of its input does. After a signal to stop, it hands out no more jobs,
lets short jobs end, and leaves the rest to the next process with the same orders.
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
"""How long a worker may go on once it is asked to stop. SLURM's own patience is 30 s by default."""

STOPPED = 75
"""Exit code of a host that was asked to stop and has left work; ``launch`` knows it."""


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
    return machine.places(wanted, workers, gpus)


@dataclass
class WorkerHandle:
    """A forked process, the pipe to it, the job it is at, and the cell whose rows it makes."""

    process: Any
    pipe: Connection
    device: str
    job: Job | None = None
    cell: str | None = None
    began: float = 0.0
    absent: tuple[Path, ...] = ()  # what the job is to make


class Scheduler:
    """Hands each job out once all it needs is done or has failed.

    Args:
        orders: the jobs, and on what to work.
        stop: a file descriptor; what can be read from it asks to stop.
    """

    def __init__(self, orders: Orders, stop: int) -> None:
        self.orders = orders
        self.stop = stop
        self.store = Store(orders.store)
        self.journal = Journal(orders.run, orders.task)
        needs = {need for job in orders.jobs for need in job.needs}
        self.failures = self.journal.failures(needs)  # of jobs, and of cells whose rows killed
        self.alive = os.pipe()
        self.deadline: float | None = None  # of workers, once asked to stop
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
        """End all workers, whatever they are at: asked to terminate they write checkpoints."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()  # or what it took is in nobody's account

    def _start(self, device: str) -> WorkerHandle:
        here, there = fork.Pipe()
        arguments = (there, self.alive, self.orders.store, device, self.orders.results)
        process = fork.Process(target=work, args=arguments, daemon=True)
        process.start()
        there.close()
        return WorkerHandle(process, here, device)

    def _replaced(self, worker: WorkerHandle) -> WorkerHandle:
        place = self.workers.index(worker)
        self.workers[place] = self._start(worker.device)
        return self.workers[place]

    def run(self, events: TextIO) -> bool:
        """Until every job has its event, or nobody reads them any more.

        However it ends, no worker is left.

        Returns:
            Whether there is work left, having been asked to stop.
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
            heard = wait([*(worker.pipe for worker in busy), parent, self.stop], max(patience, 0))
            self.journal.beat()
            if self.stop in heard:
                os.read(self.stop, 1)
                self._ask_to_stop()
            # Nothing is ever written to the parent's end: it was closed.
            if parent in heard or (not heard and self.deadline is not None):
                break
            for worker in (one for one in busy if one.pipe in heard):
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
            about = {*job.needs, *(cell.key for cell in job.cells)}
            self.journal.began(job.key)
            known = about & self.failures.keys()
            with suppress(BrokenPipeError, ConnectionResetError):  # it has died; ``_settle`` tells
                worker.pipe.send((job, {key: self.failures[key] for key in known}))

    def _next(self) -> Job | None:
        """The first job that can be done; those that somebody else has done are settled."""
        while self.ready:
            job = self.jobs[heappop(self.ready)[1]]
            if job.kind in ("rows", "trial") or not self.store.has(job.key):
                return job
            self.told.append(self._settled(job, Event(job.key, job.kind, "done")))
        return None

    def _made(self, job: Job) -> list[Path]:
        """Where what the job makes will lie."""
        cell, folder = job.cells[0], self.orders.results
        if job.kind == "trial":
            return []  # a line in its study's journal
        if job.kind == "rows":
            return [folder / table / f"{job.key}.parquet" for table in ("rows", "scores", "roc")]
        keys = [job.key] if job.kind == "traced" else [job.key, cell.model_key]
        keys += [cell.prepared_key] if cell.method.get("prepare") is not None else []
        return [self.store.path(key) for key in keys]

    def _settle(self, worker: WorkerHandle) -> Event | None:
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
        if self.deadline is not None and told.status == "failed":
            return None  # perhaps for being asked to stop: it is done again
        seconds, size = time.monotonic() - worker.began, sum(map(_bytes, worker.absent))
        measured = worker.absent or job.kind == "trial"
        taken = {"seconds": round(seconds, 3), "bytes": size} if measured else {}
        return self._settled(job, told, device=worker.device, **taken)

    def _settled(self, job: Job, event: Event, **told: Any) -> Event:
        self.journal.settle(event.key, event.status, event.reason, **told)
        for blocked in self.blocks[job.key]:
            self.lacks[blocked].discard(job.key)
            if not self.lacks[blocked]:
                heappush(self.ready, (self.place[blocked], blocked))
        del self.lacks[job.key]
        if event.status == "failed":
            self.failures[job.key] = event.reason
        return event

    def _lost(self, worker: WorkerHandle, job: Job) -> Event | None:
        """The worker died at this job: killed for memory, or crashed."""
        worker.process.join()
        if self.deadline is not None:  # it has stopped, as it was asked to
            worker.job = None
            return None
        code = worker.process.exitcode
        names = {one.value: one.name for one in signal.Signals}  # a few signals have none
        how = f"was killed ({names.get(-code, -code)})" if code < 0 else f"ended with {code}"
        reason = f"the worker process {how}"
        self._replaced(worker)
        if worker.cell is None or worker.cell in self.failures:
            return Event(job.key, job.kind, "failed", reason)
        # One cell's attack must not take along the rows of those it shares a file with.
        self.failures[worker.cell] = reason
        heappush(self.ready, (self.place[job.key], job.key))
        return None


def _bytes(path: Path) -> int:
    """What a file, or the files in a folder, take; nothing where there is none."""
    with suppress(OSError):
        inside = list(path.iterdir()) if path.is_dir() else [path]
        return sum(one.stat().st_size for one in inside)
    return 0


def main() -> None:
    """Read orders, work, tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; our parent decides
    stop = os.pipe()
    for one in STOPS:
        signal.signal(one, lambda *_: os.write(stop[1], b"."))
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints goes to the log
    try:
        orders = pickle.load(sys.stdin.buffer)  # written by our own parent into a pipe
        left = Scheduler(orders, stop[0]).run(events)
    except Exception as error:  # noqa: BLE001 - a full disk, a process too many, …
        with suppress(OSError, ValueError):  # there is no parent any more
            crash = Event("", CRASH, "failed", rows.reason(error))
            print(json.dumps(vars(crash)), file=events, flush=True)
        with suppress(OSError):  # the log may be on a full disk
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)  # nothing is waited for, nor written
    if left:
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
