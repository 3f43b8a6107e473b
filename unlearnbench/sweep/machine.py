"""What this machine has to work on, as plans and the working process count it. Imports no torch."""

import os
from pathlib import Path


def places(wanted: str, workers: int | None, gpus: int) -> list[str]:
    """The device of each worker: by default one a CPU core, or two a GPU.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: how many; None for the default.
        gpus: how many there are to use.
    """
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return ["cpu"] * (workers or cores())
    named = [wanted] if ":" in wanted else [f"cuda:{index}" for index in range(max(gpus, 1))]
    count = workers or 2 * len(named)
    return [named[index % len(named)] for index in range(count)]


def cores() -> int:
    """Cores this process may use; SLURM and containers give fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs that this process may use, without asking torch, whose import takes seconds.

    Args:
        devices: the folder of device files.
    """
    present = len(list(devices.glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    named = [word.strip() for word in visible.split(",")]
    stop = next((place for place, word in enumerate(named) if word in ("", "-1")), len(named))
    return (
        min(stop, present) if all(word.isdigit() for word in named[:stop]) else stop * bool(present)
    )
