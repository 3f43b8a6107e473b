"""Sweeps as a user runs them: real processes to count, kill and compare.

Torch takes seconds to import, so it is imported once, in a fork server; each sweep then is a
process of its own that runs ``unlearnbench``, with a host and workers as always.
"""

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pandas as pd

from unlearnbench.cli import main
from unlearnbench.results.load import load_results
from unlearnbench.sweep import local as launch
from unlearnbench.sweep import scheduler

TESTS = Path(__file__).resolve().parent
COMMAND = Path(sys.executable).with_name("unlearnbench")

TINY = ["dataset=breast_cancer", "model=logreg", "train.call.epochs=2"]
"""Trained in milliseconds, and large enough for umia."""

RAISING = """
name: raising
label: raising
version: 1
call: {_target_: unruly.raising, strength: 1.0}
space: {}
"""
"""A method of a user's own, as an option's file."""

SWEEP = ["-m", *TINY, "method.call.epochs=1", "method=finetune,gradient_ascent", "seed=range(6)"]
SWEEP += ["attack.call.splits=2"]
TRAININGS = 6 + 7  # originals, and retrained ones with the second retrain of the last seed
ARTIFACTS = 2 * (TRAININGS + 2 * 6)  # models and their predictions
FILES_OF_ROWS = 6
CELLS = 5 * 6

PATIENCE = 300
"""Seconds after which a test gives up on a process, on a machine however loaded; nothing here is
about how long it takes."""


class Forked:
    """Instead of ``subprocess.Popen``: the host as a fork, which has torch already."""

    def __init__(self, command: object, *, stdin: int, stdout: int, stderr: IO[str], env: Any):
        to_host, from_host = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            for number, descriptor in enumerate((to_host[0], from_host[1], stderr.fileno())):
                os.dup2(descriptor, number)
            for descriptor in (*to_host, *from_host):
                os.close(descriptor)
            sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ.update(env)
            ended(scheduler.main)
        os.close(to_host[0])
        os.close(from_host[1])
        self.stdin, self.stdout = os.fdopen(to_host[1], "wb"), os.fdopen(from_host[0], "rb")

    def kill(self) -> None:
        os.kill(self.pid, 9)

    def wait(self) -> None:
        os.waitpid(self.pid, 0)


def ended(function: Any) -> None:
    """Call a function, and end this process as the interpreter would."""
    code: object = 1
    try:
        function()
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
    except BaseException:  # noqa: BLE001 - this is the interpreter
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _begin(
    function: Callable[[], object],
    words: Sequence[str],
    said: Path,
    environment: Mapping[str, str],
    open_while_alive: Connection,
) -> None:
    """In the forked process: call a function as a program of its own, started with these words."""
    gc.freeze()  # to look through what the server imported would copy all its memory
    os.setsid()
    # As in a terminal: whoever started the tests in the background had this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    open_while_alive.send("begun")
    sys.stdout, sys.stderr = said.with_suffix(".out").open("w"), said.with_suffix(".err").open("w")
    os.environ.update(environment)
    sys.argv = ["unlearnbench", *words]
    launch.subprocess = SimpleNamespace(Popen=Forked, PIPE=-1)  # type: ignore[attr-defined]
    ended(function)


@dataclass
class Sweep:
    """A running or ended ``unlearnbench``.

    ``open_while_alive`` is at its end when none of its processes, the host and the workers
    included, is left.
    """

    process: Any
    said: Path
    open_while_alive: Connection

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def out(self) -> str:
        return self.said.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        return self.said.with_suffix(".err").read_text()

    def wait(self) -> int:
        """Its exit code, when all its processes have gone."""
        assert self.open_while_alive.poll(PATIENCE), f"processes are left: {self.out}{self.err}"
        self.process.join(PATIENCE)
        return int(self.process.exitcode)

    @property
    def running(self) -> bool:
        return bool(self.process.is_alive())


class Preloaded:
    """Starts sweeps from a process that has imported torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = 0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(
            ["sweeps", "unruly", "unlearnbench.report.tables.leaderboard"]
        )

    def start(
        self,
        words: Sequence[str],
        results: Path,
        function: Callable[[], object] = main.main,
        **environment: str,
    ) -> Sweep:
        """Begin the command, or a function that does without Hydra what the command does."""
        self.started += 1
        said = self.folder / f"{self.started}.out"
        reader, writer = self.context.Pipe(duplex=False)
        environment["UNLEARNBENCH_RESULTS"] = str(results)
        arguments = (function, list(words), said, environment, writer)
        process = self.context.Process(target=_begin, args=arguments)
        process.start()
        writer.close()
        assert reader.recv() == "begun"  # now it can be killed as a group
        return Sweep(process, said, reader)

    def run(
        self,
        words: Sequence[str],
        results: Path,
        function: Callable[[], object] = main.main,
        **environment: str,
    ) -> tuple[int, Sweep]:
        """The same, until it has ended; with its exit code."""
        sweep = self.start(words, results, function, **environment)
        return sweep.wait(), sweep


def command(
    words: Sequence[str], results: Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the real command, torch imports and all; for what a fork cannot show."""
    told = {**os.environ, "PYTHONPATH": str(TESTS), "UNLEARNBENCH_RESULTS": str(results)}
    return subprocess.run(
        [COMMAND, *words],
        env={**told, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@dataclass(frozen=True)
class Undisturbed:
    """The sweep by the real command on two workers, and what it said."""

    results: Path
    said: str


def table(results: Path) -> pd.DataFrame:
    """All rows, but for what a clock said, and git, which may go on meanwhile."""
    frame = load_results(results).drop(columns=["seconds", "commit"])
    return frame[~frame["metric"].isin(["rte", "peak_bytes"])].reset_index(drop=True)


def checksums(results: Path) -> dict[str, object]:
    """SHA-256 of each artifact's files, by key."""
    manifests = [json.loads(path.read_text()) for path in finished(results)]
    return {manifest["key"]: manifest["files"] for manifest in manifests}


def finished(results: Path) -> dict[Path, tuple[int, int]]:
    """Artifacts that are there, with what changes when one is made again."""
    found = results.glob("store/*/*/manifest.json")
    there = {path: path.stat() for path in found if not path.parent.suffix}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in there.items()}


def until(condition: Any) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
