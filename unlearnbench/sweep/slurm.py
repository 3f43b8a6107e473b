"""What SLURM's commands say of jobs. Imports no torch, and nothing of ours.

It decides nothing but whether a job is still to come: whether an artifact is there the store knows,
and what failed stands in rows and journals.
"""

import re
import subprocess
from collections.abc import Iterable, Mapping

DEFAULT_MOST = 1001
"""MaxArraySize where a cluster does not say it: SLURM's own default."""


class Refused(RuntimeError):
    """SLURM does not take what is asked of it, or does not answer."""


def asked(*command: str, patience: float = 30) -> str | None:
    """What a command of SLURM's answers; None where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def most_tasks() -> int:
    """How many elements an array may have: MaxArraySize is above the largest index."""
    told = re.search(r"^MaxArraySize\s*=\s*(\d+)", asked("scontrol", "show", "config") or "", re.M)
    return int(told[1]) if told else DEFAULT_MOST


def has_gpus(partition: str | None) -> bool:
    """Whether a partition has GPUs; the cluster, where none is named."""
    where = ["-p", partition] if partition else []
    return "gpu" in (asked("sinfo", "-h", "-o", "%G", *where) or "")


def known(job: str) -> bool:
    """Whether a job is pending or running, by its number; yes where SLURM cannot be asked."""
    command = ["squeue", "-h", "-j", job, "-o", "%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return True
    return bool(done.stdout.strip()) if not done.returncode else "Invalid job id" not in done.stderr


def queue(arrays: Iterable[str]) -> dict[str, tuple[str, str]] | None:
    """State and reason of each task that SLURM still has; None where it cannot be asked.

    Args:
        arrays: names of job arrays.
    """
    names = ",".join(arrays)
    told = asked("squeue", "-h", "-r", "-o", "%j|%K|%T|%r", f"--name={names}") if names else ""
    if told is None:
        return None
    found = {}
    for line in told.splitlines():
        name, index, state, reason = line.split("|", 3)
        found[f"{name}-{index if index.isdigit() else 0}"] = state, reason
    return found


def accounted(arrays: Mapping[str, str]) -> dict[str, str]:
    """How SLURM says that tasks ended, as far as it keeps accounts; for messages only.

    Args:
        arrays: numbers of job arrays by their names. By number, for those that were cancelled
            before they could begin are found by no time; by name, for numbers come again.
    """
    fields, numbers = "JobName%200,JobID,State", ",".join(arrays.values())
    told = asked("sacct", "-n", "-P", "-X", "-o", fields, "-j", numbers) if arrays else ""
    found: dict[str, str] = {}
    for line in (told or "").splitlines():
        name, job, state = line.split("|", 2)
        number, _, index = job.partition("_")
        if arrays.get(name) == number:
            found |= {f"{name}-{one}": state for one in _indices(index)}
    return found


def _indices(told: str) -> list[int]:
    """Those that ``3`` stands for, or ``[0,2-4%8]``; 0 of a job that is no array."""
    spans = re.findall(r"(\d+)(?:-(\d+))?", told.partition("%")[0])
    return [n for first, last in spans for n in range(int(first), int(last or first) + 1)] or [0]


def cancel(arrays: Iterable[str]) -> None:
    """End job arrays, by name: also those whose numbers nobody has written down.

    Raises:
        Refused: SLURM cannot be asked.
    """
    for name in arrays:
        if asked("scancel", f"--name={name}") is None:
            raise Refused(f"scancel --name={name}: SLURM does not answer")
