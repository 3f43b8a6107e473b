"""Memory settings of this process; they affect its speed, never its results."""

import ctypes
import gc
from contextlib import suppress

ALLOCATIONS = 100_000
"""Number of allocated objects after which a command collects garbage."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # numbers from <malloc.h>


def keep_freed() -> None:
    """Make the C library keep freed memory. glibc only.

    Each training step allocates the memory that the step before has freed, and so do tables.
    Mapping new pages instead takes 5 % of a ResNet-18 step.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)


def collect_seldom() -> None:
    """Collect garbage less often than Python's default.

    A command creates many objects at its start, and almost none of them is garbage. A collection
    after every 700 of them takes much of the start time.
    """
    gc.set_threshold(ALLOCATIONS)
