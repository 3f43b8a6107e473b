"""The workspace of a process: store, device, clock."""

import ctypes
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from unlearnbench.store.artifacts import Store


@dataclass
class Workspace:
    """The workspace of one process.

    Attributes:
        store: the store of artifacts.
        device: ``cpu``, ``cuda``, ``cuda:1`` …
        failures: keys of predictions that have failed, with the reason: not retried in this run.
        ends: baselines: figures of attacks on controls, by key of their rows and by the headline
            figure that is split by unit.
    """

    store: Store
    device: str
    failures: dict[str, str] = field(default_factory=dict)
    ends: dict[tuple[str, str], Any] = field(default_factory=dict)


def clock(device: str) -> Callable[[], float]:
    """The function that returns seconds: processor time on a CPU, wall time on a GPU.

    Other work on the CPU does not change processor time. A worker computes in one thread, so on an
    idle core processor time equals wall time.
    """
    return time.perf_counter if device.startswith("cuda") else time.process_time


@lru_cache
def device_name(device: str) -> str:
    """The device's name in a row: ``cpu``, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


@contextmanager
def measured(device: str) -> Iterator[dict[str, Any]]:
    """Seconds and peak bytes of the block; the clock stops after the device is synchronised."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):  # Linux only: reset the peak of the process
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    taken: dict[str, Any] = {"measured_on": device_name(device)}
    now = clock(device)
    start = now()
    yield taken
    if cuda:
        torch.cuda.synchronize(device)
    taken["seconds"] = now() - start
    taken["peak_bytes"] = (
        torch.cuda.max_memory_allocated(device)
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
