"""The process that works: imports torch once, forks a worker a core, hands out jobs.

Run by ``launch`` as ``python -m unlearnbench.worker``. It reads its orders from standard input,
tells what happens as JSON lines on standard output, and ends when the other end of its input does.
"""

import json
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TextIO

import torch

from unlearnbench import pipeline, results
from unlearnbench.plan import Event, Job, Orders
from unlearnbench.store import Store
from unlearnbench.values import Skip

_fork = multiprocessing.get_context("fork")


def devices(wanted: str, workers: int | None) -> list[str]:
    """The device of each worker: by default one a CPU core, or two a GPU.

    Raises:
        ValueError: a GPU is wanted and there is none.
    """
    gpus = torch.cuda.device_count()
    if wanted.startswith("cuda") and not gpus:
        raise ValueError(f"device={wanted}: no CUDA device here; take device=cpu")
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return ["cpu"] * (workers or len(os.sched_getaffinity(0)))
    named = [wanted] if ":" in wanted else [f"cuda:{index}" for index in range(gpus)]
    count = workers or 2 * len(named)
    return [named[index % len(named)] for index in range(count)]


# ---------------------------------------------------------------------------------------------
# In a worker.


def perform(job: Job, lab: pipeline.Lab, folder: Path) -> Event:
    """Do one job. What goes wrong is told, with its traceback kept in ``failures/``."""
    if job.kind != "rows":
        try:
            pipeline.predict(lab, job.cells[0])
        except Exception as error:  # noqa: BLE001 - whatever a method raises is told, not a crash
            status = "skipped" if isinstance(error, Skip) else "failed"
            if status == "failed":
                _keep(folder, job.key, error)
            return Event(job.key, job.kind, status, pipeline.reason(error))
        return Event(job.key, job.kind, "done")
    found = [pipeline.rows(lab, cell) for cell in job.cells]
    for cell, one in zip(job.cells, found, strict=True):
        if one.error is not None and not isinstance(one.error, Skip | pipeline.Failed):
            _keep(folder, cell.key, one.error)
    scores = [score for one in found for score in one.scores]
    if scores:
        results.write(folder / "scores", job.key, scores, results.SCORES)
    rows = {(r["key"], r.get("metric")): r for one in found for r in one.rows}
    results.write(folder / "rows", job.key, list(rows.values()), results.ROWS)
    return Event(job.key, job.kind, "done")


def _keep(folder: Path, key: str, error: Exception) -> None:
    (folder / "failures").mkdir(exist_ok=True)
    text = "".join(traceback.format_exception(error))
    (folder / "failures" / f"{key}.txt").write_text(text)


def _work(orders: Connection, store: Path, device: str, folder: Path) -> None:
    """Do jobs until there are no more, or the process that gives them has died."""
    host = os.getppid()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    lab = pipeline.Lab(Store(store), device)
    while True:
        while not orders.poll(0.5):
            if os.getppid() != host:
                return
        try:
            job, lab.failures = orders.recv()
        except EOFError:
            return
        try:
            event = perform(job, lab, folder)
        except OSError as error:  # a full disk, a read-only folder
            event = Event(job.key, job.kind, "failed", pipeline.reason(error))
        orders.send(event)


# ---------------------------------------------------------------------------------------------
# In the process that hands out.


@dataclass
class Worker:
    """A forked process, the pipe to it, and the job it is at."""

    process: Any
    pipe: Connection
    device: str
    job: Job | None = None


class Host:
    """Hands each job out once all it needs is done or has failed."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.failures: dict[str, str] = {}
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
        arguments = (there, self.orders.store, device, self.orders.results)
        process = _fork.Process(target=_work, args=arguments, daemon=True)
        process.start()
        there.close()
        return Worker(process, here, device)

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
                print(json.dumps(vars(event)), file=events, flush=True)
        for worker in self.workers:
            worker.process.kill()

    def _hand_out(self) -> None:
        idle = [worker for worker in self.workers if worker.job is None]
        for worker in idle[: len(self.ready)]:
            job = worker.job = self.jobs[heappop(self.ready)[1]]
            known = {key: self.failures[key] for key in self.failures.keys() & job.needs}
            worker.pipe.send((job, known))

    def _settle(self, worker: Worker) -> Event:
        job = worker.job
        assert job is not None
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):
            event = self._lost(worker, job)
        worker.job = None
        for blocked in self.blocks[job.key]:
            self.lacks[blocked].discard(job.key)
            if not self.lacks[blocked]:
                heappush(self.ready, (self.place[blocked], blocked))
        if event.status == "failed":
            self.failures[job.key] = event.reason
        return event

    def _lost(self, worker: Worker, job: Job) -> Event:
        """The worker died at this job: killed for memory, or crashed."""
        worker.process.join()
        code = worker.process.exitcode
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with {code}"
        self.workers[self.workers.index(worker)] = self._start(worker.device)
        return Event(job.key, job.kind, "failed", f"the worker process {how}")


def main() -> None:
    """Read orders, work, tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; our parent decides
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints goes to the log
    orders = pickle.load(sys.stdin.buffer)  # written by our own parent into a pipe
    with suppress(BrokenPipeError):
        Host(orders).run(events)


if __name__ == "__main__":
    main()
