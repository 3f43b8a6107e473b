"""A real SLURM on this machine, sweeps on it, and ways to trouble them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps import COMMAND, TESTS

ROOT = TESTS.parent
SCRIPT = ROOT / "scripts" / "local_slurm.sh"

PATIENCE = 240
"""Seconds after which a test gives up; nothing here is about how long it takes."""

CELLS = 40
WORDS = ["-m", "dataset=breast_cancer,digits", "model=logreg", "train.call.epochs=2"]
WORDS += ["method.call.epochs=1", "method=finetune,gradient_ascent", "seed=range(4)"]
WORDS += ["attack.call.splits=2", "train.call._target_=unruly.gated_fit"]
TRAININGS = 2 * (4 + 5)  # originals, and retrained ones with the second retrain of the last seed

LAUNCHER = ["hydra/launcher=slurm", "device=cpu", "hydra.launcher.mem=300M"]
LAUNCHER += ["hydra.launcher.assumed_seconds=60", "hydra.launcher.target_minutes=9"]
"""Nine jobs a task: two tasks train, two unlearn, one writes rows."""


def missing() -> str | None:
    """Why there can be no cluster here, if there can be none."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for program in ("slurmctld", "slurmd", "sbatch", "munged"):
        if shutil.which(program, path=path) is None:
            return f"{program} is not installed; {SCRIPT.name} says how to"
    return None


class Cluster:
    """One that ``scripts/local_slurm.sh`` starts, for one session of tests."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ub", dir="/tmp"))  # sockets want it short
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))}
        self.environment = {
            **inherited,
            "SLURM_CONF": str(self.folder / "c" / "slurm.conf"),
            "LOCAL_SLURM_DIR": str(self.folder / "c"),
            "LOCAL_SLURM_SILENCE": "10",
            "LOCAL_SLURM_GPUS": "1",
            "PYTHONPATH": f"{ROOT}:{TESTS}",
        }

    def up(self) -> None:
        self.script("up")

    def down(self) -> None:
        self.script("down")
        shutil.rmtree(self.folder)

    def script(self, word: str) -> str:
        done = subprocess.run(
            [SCRIPT, word],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def ask(self, *command: str) -> str:
        """What one of SLURM's own commands answers."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """What is in the queue: a line a task."""
        told = self.ask("squeue", "-h", "-r", "-o", "%A %F %K %T %j %N")
        names = ("job", "array", "index", "state", "name", "node")
        return [dict(zip(names, line.split(), strict=False)) for line in told.splitlines()]

    def daemon(self, name: str) -> int:
        """The process number of one of the daemons."""
        return int((self.folder / "c" / "run" / f"{name}.pid").read_text())

    def clear(self) -> None:
        """End all jobs; whatever has died is started again."""
        self.up()
        if self.jobs():
            self.ask("scancel", "-u", self.ask("id", "-un").strip())
            until(lambda: not self.jobs())


class Sweep:
    """A results folder, and the command on it, in the environment of a cluster."""

    def __init__(self, cluster: Cluster, results: Path) -> None:
        self.cluster, self.results = cluster, results
        self.log, self.gate = results.parent / "log", results.parent / "gate"
        self.environment = {
            **cluster.environment,
            "UNLEARNBENCH_RESULTS": str(results),
            "UNRULY_LOG": str(self.log),
            "UNRULY_GATE": str(self.gate),
        }

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [COMMAND, *words],
            env={**self.environment, **environment},
            cwd=self.results.parent,
            start_new_session=True,  # to be killed with what it has started
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self, *words: str, code: int = 0, **environment: str) -> str:
        """What the command prints; its exit code is as told."""
        process = self.start(*words, **environment)
        told, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, told
        return told

    def open(self, trainings: int = 1000) -> None:
        """Let so many trainings end, in all, and no more."""
        self.gate.write_text(str(trainings))

    def begun(self) -> list[str]:
        """Which trainings have begun, and the processes that train: ``<hash> <pid> <job>``."""
        return self.log.read_text().splitlines() if self.log.is_file() else []

    def record(self) -> dict[str, Any]:
        """What the latest run says of itself."""
        latest = sorted((self.results / "runs").glob("*/run.json"))[-1]
        told: dict[str, Any] = json.loads(latest.read_text())
        return told

    @property
    def retries(self) -> int:
        """How often it was submitted again."""
        return len(list((self.results / "runs").glob("*/run.json"))) - 1

    def wait(self) -> None:
        """Until nothing of it is in the queue."""
        until(lambda: not self.cluster.jobs())


def until(condition: Callable[[], Any]) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


def counted(said: str, line: str = "cells") -> dict[str, int]:
    """The numbers that ``unlearnbench status`` shows in a line, by the state above them."""
    table = [text.split() for text in said.splitlines()]
    head = next(words for words in table if words[:1] == ["wave"])
    found = next(words for words in table if " ".join(words).startswith(line))
    numbers = found[-len(head) + 1 :]
    pairs = zip(head[1:], numbers, strict=True)
    return {name: 0 if n == "–" else int(n.replace(",", "")) for name, n in pairs}


def killed(pids: Sequence[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """All that descend from a process."""
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    mine = [int(one) for one in told.split()]
    return [*mine, *(far for one in mine for far in children(one))]


def table_here(results: Path, words: Sequence[str]) -> None:
    """The same sweep by the local launcher."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}"}
    done = subprocess.run(
        [sys.executable, COMMAND, *words, "device=cpu", "workers=2"],
        env={**environment, "UNLEARNBENCH_RESULTS": str(results)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
