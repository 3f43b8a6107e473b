"""State of jobs from the commands of SLURM. Imports no torch, and no other module of the package.

SLURM's answers only decide whether a job will still run. The store decides whether an artifact
exists; rows and journals contain the failures.
"""

import re
import subprocess
from collections.abc import Iterable, Mapping

DEFAULT_MOST = 1001
"""MaxArraySize where a cluster does not report it: the default of SLURM."""


class Refused(RuntimeError):
    """SLURM rejects a request, or does not answer."""


def asked(*command: str, patience: float = 30) -> str | None:
    """Output of a SLURM command; None if it is missing, fails, or exceeds ``patience`` seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def most_tasks() -> int:
    """Largest number of elements of an array; MaxArraySize is one more than the largest index."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", asked("scontrol", "show", "config") or "", re.M)
    return int(match[1]) if match else DEFAULT_MOST


def has_gpus(partition: str | None) -> bool:
    """Whether a partition has GPUs; for None, whether the cluster has."""
    where = ["-p", partition] if partition else []
    return "gpu" in (asked("sinfo", "-h", "-o", "%G", *where) or "")


def known(job: str) -> bool:
    """Whether a job is pending or running, by its number; True if SLURM does not answer."""
    command = ["squeue", "-h", "-j", job, "-o", "%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return True
    return bool(done.stdout.strip()) if not done.returncode else "Invalid job id" not in done.stderr


def queue(arrays: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """State and reason of each task in SLURM's queue; None if SLURM does not answer.

    Args:
        arrays: names of job arrays.

    Returns:
        (state, reason) by name of the task, ``<array>-<index>``.
    """
    names = ",".join(arrays)
    output = asked("squeue", "-h", "-r", "-o", "%j|%K|%T|%r", f"--name={names}") if names else ""
    if output is None:
        return None
    states = {}
    for line in output.splitlines():
        name, index, state, reason = line.split("|", 3)
        states[f"{name}-{index if index.isdigit() else 0}"] = state, reason
    return states


def accounted(arrays: Mapping[str, str]) -> dict[str, str]:
    """Final state of tasks in SLURM's accounting, if it has one; for messages only.

    Args:
        arrays: numbers of job arrays by name. The query uses numbers, because a query by time
            misses arrays cancelled before their start. Names are compared, because SLURM reuses
            numbers.
    """
    fields, numbers = "JobName%200,JobID,State", ",".join(arrays.values())
    output = asked("sacct", "-n", "-P", "-X", "-o", fields, "-j", numbers) if arrays else ""
    states: dict[str, str] = {}
    for line in (output or "").splitlines():
        name, job, state = line.split("|", 2)
        number, _, index = job.partition("_")
        if arrays.get(name) == number:
            states |= {f"{name}-{n}": state for n in _indices(index)}
    return states


def _indices(text: str) -> list[int]:
    """Indices in a text such as ``3`` or ``[0,2-4%8]``; 0 for a job that is no array."""
    spans = re.findall(r"(\d+)(?:-(\d+))?", text.partition("%")[0])
    return [n for first, last in spans for n in range(int(first), int(last or first) + 1)] or [0]


def cancel(arrays: Iterable[str]) -> None:
    """End job arrays by name, which works without a recorded number.

    Raises:
        Refused: SLURM does not answer.
    """
    for name in arrays:
        if asked("scancel", f"--name={name}") is None:
            raise Refused(f"scancel --name={name}: SLURM does not answer")
