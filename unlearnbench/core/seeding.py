"""Randomness as an argument: every draw names its purpose.

A generator is keyed by (seed, purpose) and by nothing else: adding a draw to a method changes no
other draw, two methods that should coincide in a limit do, and results do not depend on how work
is packed onto processes.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def number(seed: int, *names: str) -> int:
    """A non-negative 63-bit seed made of ``seed`` and the names of what it is drawn for."""
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str) -> torch.Generator:
    """A CPU generator of its own; draws are moved to the device, so they do not depend on it."""
    return torch.Generator().manual_seed(number(seed, *names))


@contextmanager
def seeded(seed: int, *names: str) -> Iterator[None]:
    """Seed torch's global generators inside the block, and put them back after it.

    For code that cannot take a generator: layer initialisers, dropout, drop-path.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number(seed, *names))
        yield
