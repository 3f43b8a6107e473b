"""Randomness as an argument: every draw names its purpose.

A generator depends on (seed, purpose) only: adding a draw to a method changes no other draw, two
methods that should coincide in a limit do coincide, and results do not depend on the distribution
of work over processes.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def number(seed: int, *names: str) -> int:
    """A non-negative 63-bit seed derived from ``seed`` and the names of its purpose."""
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str) -> torch.Generator:
    """A new CPU generator; draws are moved to the device, so they do not depend on it."""
    return torch.Generator().manual_seed(number(seed, *names))


@contextmanager
def seeded(seed: int, *names: str) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore them after it.

    For code that cannot take a generator: layer initialisers, dropout, drop-path.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number(seed, *names))
        yield
