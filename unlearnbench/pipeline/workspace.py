"""What a process works with: store, device, clock."""

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
    """What one process works with.

    Attributes:
        store: where artifacts are.
        device: ``cpu``, ``cuda``, ``cuda:1`` …
        failures: keys of predictions known to be impossible, and why: not tried again in this run.
        ends: what attacks found on controls, by key of their rows and the headline figure that is
            taken apart: each method is held to them.
    """

    store: Store
    device: str
    failures: dict[str, str] = field(default_factory=dict)
    ends: dict[tuple[str, str], Any] = field(default_factory=dict)


def clock(device: str) -> Callable[[], float]:
    """What tells seconds: on a CPU those of the processor, which other work on it does not change.

    A worker computes in one thread, so on an idle core they are the clock's. A GPU has none of its
    own; there it is the clock.
    """
    return time.perf_counter if device.startswith("cuda") else time.process_time


@lru_cache
def device_name(device: str) -> str:
    """What a row says of the device: ``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


@contextmanager
def measured(device: str) -> Iterator[dict[str, Any]]:
    """Seconds and peak bytes of the block; the device has finished when the clock stops."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):  # Linux only: forget the process's earlier peak
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
