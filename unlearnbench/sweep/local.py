"""Carry out a plan: here, on worker processes of this machine, whose parent starts here."""

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
"""Two processes of one thread beat one of two, and two threads give other bits than one."""

DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


STOPPED = (75, -signal.SIGTERM, -signal.SIGUSR2)
"""How a host ends that was asked to: by itself, or by the signal if that came early."""


class Watcher:
    """Is told how the work goes on; this one does not say it to anybody."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def event(self, event: Event) -> None:
        """A job is settled."""


class WorkerError(RuntimeError):
    """The working process ended before the work did, or could not write rows."""


class WorkerProcess:
    """The working process: told orders, tells events, ends with the block it is used in.

    Args:
        orders: the jobs, where things lie, and on what to work.
        errors: where it says whatever else it says.
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
            with suppress(BrokenPipeError):  # it ended at once; its log says why
                pickle.dump(orders, self.process.stdin)
                self.process.stdin.flush()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        # Not in ``end``: a signal's handler calls that in the middle of reading.
        self.end()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # orders that it has never read
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
        """Whether it has ended because it was asked to."""
        return self.process.poll() in STOPPED

    def stop(self, seconds: float) -> None:
        """Ask it to stop, and wait for that; then end it."""
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.process.send_signal(signal.SIGUSR2)
            self.process.wait(seconds)
        self.end()

    def end(self) -> None:
        """End it now, unless it has ended; its workers end with it."""
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
    """Make what is missing for the cells' rows, and return these rows.

    Args:
        cells: the grid, controls included.
        settings: ``paths``, ``device`` and ``workers`` of the config.
        sweep: name to keep the list of cells under.
        words: overrides that say the same, for ``unlearnbench retry``.
        only: keys of those of the cells that are to be worked at; all by default.
        watch: given the plan, returns who is told of its progress.

    Raises:
        ConfigError: ``device`` or ``workers`` is nothing to work on.
        WorkerError: the working process died, or could not write rows; running again goes on
            from there.
    """
    check(settings)
    folder = Path(settings["paths"]["results"])
    todo = planned(cells, settings, only)
    if sweep is not None:
        keep_list(cells, settings, sweep)
    carry_out(todo, settings, sweep or run_record.SINGLE, words, watch)
    keys = {key for cell in cells for key in cell.row_keys}
    return load.load_results(folder, keys=keys)


def carry_out(
    todo: Plan,
    settings: Mapping[str, Any],
    sweep: str,
    words: Sequence[str],
    watch: Callable[[Plan], Watcher],
) -> None:
    """Do the jobs of a plan on worker processes of this machine, as a run with a folder.

    Args:
        todo: the plan.
        settings: ``paths``, ``device`` and ``workers`` of the config.
        sweep: the name of what it is a go at.
        words: that it was asked with.
        watch: given the plan, returns who is told of its progress.

    Raises:
        WorkerError: the working process died, or could not write rows.
    """
    folder, store = Path(settings["paths"]["results"]), Path(settings["paths"]["store"])
    folder.mkdir(parents=True, exist_ok=True)
    with watch(todo) as watcher:
        if todo.jobs:
            told = {"words": list(words), "launcher": {"name": "local"}}
            run = run_record.begin(sweep, todo, settings, **told)
            run_record.write_jobs(
                run, run_record.listed(todo.jobs, dict.fromkeys(todo.keys, "local"))
            )
            device, workers = settings["device"], settings["workers"]
            orders = Orders(todo.jobs, folder, store, run.folder, "local", device, workers)
            _work(orders, watcher)


def keep_list(cells: Sequence[Cell], settings: Mapping[str, Any], sweep: str) -> None:
    """Keep the list of a sweep's cells beside the rows, and in the store of what they need.

    Args:
        cells: the grid, controls included.
        settings: ``paths`` of the config.
        sweep: its name.
    """
    folder, store = Path(settings["paths"]["results"]), Path(settings["paths"]["store"])
    run_record.write_cells(folder, sweep, cells)
    # A store may serve several results folders with sweeps of one name.
    Store(store).refer(f"{sweep}-{digest(str(folder.resolve()))[:8]}", needed(cells))


def planned(
    cells: Sequence[Cell], settings: Mapping[str, Any], only: Collection[str] | None = None
) -> Plan:
    """The plan for some cells, by what is in the store and among the rows.

    Args:
        cells: the grid.
        settings: ``paths`` of the config.
        only: keys of those of the cells that are to be worked at; all by default.
    """
    folder, store = Path(settings["paths"]["results"]), Path(settings["paths"]["store"])
    asked = cells if only is None else [cell for cell in cells if cell.key in only]
    return plan(asked, Store(store), load.finished(folder))


def check(settings: Mapping[str, Any]) -> None:
    """Refuse what the working process could not make sense of: it starts seconds later."""
    device, workers = settings["device"], settings["workers"]
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise ConfigError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ConfigError(f"workers={workers}: must be a number of processes, or null")


def _work(orders: Orders, watcher: Watcher) -> None:
    log = orders.results / "logs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    log.parent.mkdir(exist_ok=True)
    left, said = len(orders.jobs), ""
    unwritten = {}
    with log.open("w") as errors:
        try:
            with WorkerProcess(orders, errors) as host:
                for event in host:
                    watcher.event(event)
                    left -= 1
                    if event.kind == "rows" and event.status == "failed":
                        unwritten[event.key] = event.reason
        finally:
            said = log.read_text(errors="replace").strip()
            if not said:
                with suppress(OSError):
                    log.unlink()
    if left:
        last = said.splitlines()[-1] if said else "without a word"
        raise WorkerError(f"the working process ended: {last} (see {log})")
    if unwritten:
        cells = sum(len(job.cells) for job in orders.jobs if job.key in unwritten)
        reason = next(iter(unwritten.values()))
        raise WorkerError(f"the rows of {cells} cells could not be written: {reason}")
