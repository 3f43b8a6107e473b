"""Run the jobs of a plan on worker processes of this machine, under one working process."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from unlearnbench.core.cell import Cell, digest
from unlearnbench.core.errors import ConfigError
from unlearnbench.results import load
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import run_record
from unlearnbench.sweep.plan import CRASH, Event, Orders, Plan, needed, plan

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""One thread per process: it is faster than two, and the number of threads changes the bits."""

DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


STOPPED = (75, -signal.SIGTERM, -signal.SIGUSR2)
"""Exit codes of a working process after a request to stop: its own code, or that of the signal."""


class Watcher:
    """Receives the events of a run; this base class ignores them."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: Event) -> None:
        """Handle the event of a settled job."""


class WorkerError(RuntimeError):
    """The working process ended before all jobs were settled, or could not write rows."""


class WorkerProcess:
    """The working process: reads orders, writes events, and ends with the ``with`` block.

    Args:
        orders: the jobs, the folders and the devices.
        errors: the file for its standard error.
    """

    def __init__(self, orders: Orders, errors: TextIO) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unlearnbench.sweep.scheduler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **ONE_THREAD, **DETERMINISTIC},
        )
        assert self.process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # the process ended at once; its log gives the reason
                pickle.dump(orders, self.process.stdin)
                self.process.stdin.flush()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        # Not in ``end``, which a signal handler can call during a read from the pipe.
        self.end()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # orders that the process has not read
                pipe.close()

    def __iter__(self) -> Iterator[Event]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = Event(**json.loads(line))
            if event.kind == CRASH:
                raise WorkerError(f"the working process ended: {event.reason}")
            yield event

    @property
    def stopped(self) -> bool:
        """Whether the process has ended after a request to stop."""
        return self.process.poll() in STOPPED

    def stop(self, seconds: float) -> None:
        """Request a stop, wait up to ``seconds`` for it, then end the process."""
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.process.send_signal(signal.SIGUSR2)
            self.process.wait(seconds)
        self.end()

    def end(self) -> None:
        """Kill the process if it still runs; its workers end with it."""
        self.process.kill()
        self.process.wait()


def run(
    cells: Sequence[Cell],
    settings: Mapping[str, Any],
    *,
    sweep: str | None = None,
    words: Sequence[str] = (),
    only: Collection[str] | None = None,
    watch: Callable[[Plan], Watcher] = lambda plan: Watcher(),
) -> pd.DataFrame:
    """Compute what the rows of the cells still need, and return these rows.

    Args:
        cells: the grid, controls included.
        settings: ``paths``, ``device`` and ``workers`` of the config.
        sweep: name under which the list of cells is stored.
        words: overrides that describe the same grid, for ``unlearnbench retry``.
        only: keys of the cells to compute; all by default.
        watch: maps the plan to the watcher that receives the events.

    Raises:
        ConfigError: ``device`` or ``workers`` is not valid.
        WorkerError: the working process died, or could not write rows; another call continues
            from the finished artifacts.
    """
    check(settings)
    folder = Path(settings["paths"]["results"])
    job_plan = planned(cells, settings, only)
    if sweep is not None:
        keep_list(cells, settings, sweep)
    carry_out(job_plan, settings, sweep or run_record.SINGLE, words, watch)
    keys = {key for cell in cells for key in cell.row_keys}
    return load.load_results(folder, keys=keys)


def carry_out(
    job_plan: Plan,
    settings: Mapping[str, Any],
    sweep: str,
    overrides: Sequence[str],
    watch: Callable[[Plan], Watcher],
) -> None:
    """Run the jobs of a plan on worker processes of this machine, as a run with a folder.

    Args:
        job_plan: the plan.
        settings: ``paths``, ``device`` and ``workers`` of the config.
        sweep: name of the sweep or search.
        overrides: the overrides of the command.
        watch: maps the plan to the watcher that receives the events.

    Raises:
        WorkerError: the working process died, or could not write rows.
    """
    folder, store = Path(settings["paths"]["results"]), Path(settings["paths"]["store"])
    folder.mkdir(parents=True, exist_ok=True)
    with watch(job_plan) as watcher:
        if job_plan.jobs:
            entries = {"words": list(overrides), "launcher": {"name": "local"}}
            run = run_record.begin(sweep, job_plan, settings, **entries)
            run_record.write_jobs(
                run, run_record.listed(job_plan.jobs, dict.fromkeys(job_plan.keys, "local"))
            )
            device, workers = settings["device"], settings["workers"]
            orders = Orders(job_plan.jobs, folder, store, run.folder, "local", device, workers)
            _work(orders, watcher)


def keep_list(cells: Sequence[Cell], settings: Mapping[str, Any], sweep: str) -> None:
    """Write the list of a sweep's cells to the results, and the keys they need to the store.

    Args:
        cells: the grid, controls included.
        settings: ``paths`` of the config.
        sweep: name of the sweep.
    """
    folder, store = Path(settings["paths"]["results"]), Path(settings["paths"]["store"])
    run_record.write_cells(folder, sweep, cells)
    # Several results folders, with sweeps of the same name, can share a store.
    Store(store).refer(f"{sweep}-{digest(str(folder.resolve()))[:8]}", needed(cells))


def planned(
    cells: Sequence[Cell], settings: Mapping[str, Any], only: Collection[str] | None = None
) -> Plan:
    """The plan for some cells, without what the store and the rows contain already.

    Args:
        cells: the grid.
        settings: ``paths`` of the config.
        only: keys of the cells to compute; all by default.
    """
    folder, store = Path(settings["paths"]["results"]), Path(settings["paths"]["store"])
    selected = cells if only is None else [cell for cell in cells if cell.key in only]
    return plan(selected, Store(store), load.finished(folder))


def check(settings: Mapping[str, Any]) -> None:
    """Check ``device`` and ``workers`` before the working process starts, which takes seconds.

    Raises:
        ConfigError: one of them is not valid.
    """
    device, workers = settings["device"], settings["workers"]
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise ConfigError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ConfigError(f"workers={workers}: must be a number of processes, or null")


def _work(orders: Orders, watcher: Watcher) -> None:
    log = orders.results / "logs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    log.parent.mkdir(exist_ok=True)
    remaining, log_text = len(orders.jobs), ""
    unwritten = {}
    with log.open("w") as errors:
        try:
            with WorkerProcess(orders, errors) as process:
                for event in process:
                    watcher.event(event)
                    remaining -= 1
                    if event.kind == "rows" and event.status == "failed":
                        unwritten[event.key] = event.reason
        finally:
            log_text = log.read_text(errors="replace").strip()
            if not log_text:
                with suppress(OSError):
                    log.unlink()
    if remaining:
        last = log_text.splitlines()[-1] if log_text else "without a word"
        raise WorkerError(f"the working process ended: {last} (see {log})")
    if unwritten:
        cells = sum(len(job.cells) for job in orders.jobs if job.key in unwritten)
        reason = next(iter(unwritten.values()))
        raise WorkerError(f"the rows of {cells} cells could not be written: {reason}")
