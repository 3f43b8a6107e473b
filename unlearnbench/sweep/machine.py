"""CPU cores and GPUs of this machine, for plans and for the working process. Imports no torch."""

import os
from pathlib import Path


def places(wanted: str, workers: int | None, gpus: int) -> list[str]:
    """The device of each worker; by default one worker per CPU core, or two per GPU.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: number of workers; None for the default.
        gpus: number of usable GPUs.
    """
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return ["cpu"] * (workers or cores())
    named = [wanted] if ":" in wanted else [f"cuda:{index}" for index in range(max(gpus, 1))]
    count = workers or 2 * len(named)
    return [named[index % len(named)] for index in range(count)]


def cores() -> int:
    """Number of CPU cores that this process can use; SLURM and containers restrict them."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(devices: Path = Path("/dev")) -> int:
    """Number of NVIDIA GPUs that this process can use, without torch, whose import takes seconds.

    Args:
        devices: the folder of device files.
    """
    present = len(list(devices.glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    named = [name.strip() for name in visible.split(",")]
    stop = next((place for place, name in enumerate(named) if name in ("", "-1")), len(named))
    return (
        min(stop, present) if all(name.isdigit() for name in named[:stop]) else stop * bool(present)
    )
