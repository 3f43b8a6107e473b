"""How this process gets and gives back memory: nothing of what is computed, only how fast."""

import ctypes
import gc
from contextlib import suppress

ALLOCATIONS = 100_000
"""Objects made until garbage is looked for, in a command."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # as <malloc.h> numbers them


def keep_freed() -> None:
    """Tell the C library to keep what is freed. glibc only.

    What a step of a training frees, the next one asks for again, and so does a table. Fetching
    fresh pages instead takes 5 % of a ResNet-18 step.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)


def collect_seldom() -> None:
    """Look for garbage after more objects than Python does of itself.

    A command makes many while it starts, of which hardly one is garbage; to look for it after each
    700 takes much of its time.
    """
    gc.set_threshold(ALLOCATIONS)
