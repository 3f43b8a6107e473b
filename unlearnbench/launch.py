"""Carry out a plan: here, on worker processes of this machine."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from unlearnbench import results
from unlearnbench.cell import Cell, digest
from unlearnbench.config import ConfigError
from unlearnbench.plan import Event, Orders, Plan, needed, plan
from unlearnbench.store import Store

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""Two processes of one thread beat one of two, and two threads give other bits than one."""

DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


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


def run(
    cells: Sequence[Cell],
    settings: Mapping[str, Any],
    *,
    sweep: str | None = None,
    watch: Callable[[Plan], Watcher] = lambda plan: Watcher(),
) -> pd.DataFrame:
    """Make what is missing for the cells' rows, and return these rows.

    Args:
        cells: the grid, controls included.
        settings: ``paths``, ``device`` and ``workers`` of the config.
        sweep: name to keep the list of cells under.
        watch: given the plan, returns who is told of its progress.

    Raises:
        ConfigError: ``device`` or ``workers`` is nothing to work on.
        WorkerError: the working process died, or could not write rows; running again goes on
            from there.
    """
    _check(settings)
    folder, store = Path(settings["paths"]["results"]), Path(settings["paths"]["store"])
    folder.mkdir(parents=True, exist_ok=True)
    todo = plan(cells, Store(store), results.finished(folder))
    if sweep is not None:
        listed = [
            {"sweep": sweep, "key": key, "model_key": c.utility_key}
            for c in cells
            for key in (c.key, c.trace_rows_key)
            if key
        ]
        results.write(folder / "sweeps", sweep, listed, results.SWEEP)
        # A store may serve several results folders with sweeps of one name.
        Store(store).refer(f"{sweep}-{digest(str(folder.resolve()))[:8]}", needed(cells))
    with watch(todo) as watcher:
        if todo.jobs:
            _work(todo, folder, store, settings, watcher)
    keys = {key for cell in cells for key in cell.row_keys}
    return results.load_results(folder, keys=keys)


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse what the working process could not make sense of: it starts seconds later."""
    device, workers = settings["device"], settings["workers"]
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise ConfigError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ConfigError(f"workers={workers}: must be a number of processes, or null")


def _work(
    todo: Plan, folder: Path, store: Path, settings: Mapping[str, Any], watcher: Watcher
) -> None:
    orders = Orders(todo.jobs, folder, store, settings["device"], settings["workers"])
    log = folder / "logs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    log.parent.mkdir(exist_ok=True)
    left = len(todo.jobs)
    unwritten = {}
    with log.open("w") as errors:
        host = subprocess.Popen(
            [sys.executable, "-m", "unlearnbench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **ONE_THREAD, **DETERMINISTIC},
        )
        assert host.stdin is not None
        assert host.stdout is not None
        try:
            with suppress(BrokenPipeError):  # it ended at once; its log says why
                pickle.dump(orders, host.stdin)
                host.stdin.flush()
            for line in host.stdout:
                event = Event(**json.loads(line))
                watcher.event(event)
                left -= 1
                if event.kind == "rows" and event.status == "failed":
                    unwritten[event.key] = event.reason
        finally:
            host.kill()  # it has ended, or we were interrupted; its workers end with it
            host.wait()
            said = log.read_text().strip()
            if not said:
                log.unlink()
    if left:
        last = said.splitlines()[-1] if said else "without a word"
        raise WorkerError(f"the working process ended: {last} (see {log})")
    if unwritten:
        cells = sum(len(job.cells) for job in todo.jobs if job.key in unwritten)
        reason = next(iter(unwritten.values()))
        raise WorkerError(f"the rows of {cells} cells could not be written: {reason}")
