"""Training and test parts of a set, as row numbers; the rows themselves are not reordered."""

import numpy as np
from numpy.typing import NDArray

SEED = 123

Rows = NDArray[np.int64]
Parts = tuple[Rows, Rows]
"""Training rows, in the order in which every later draw counts them, and test rows."""


def parts(n: int) -> Parts:
    """The parts of n rows without an official test part: a fifth is held out.

    The row numbers are permuted by NumPy's ``default_rng(123)``; the first int(0.2 n) of the
    permutation are the test part and the rest, in permuted order, the training part (Deep Unlearn,
    arXiv 2410.01276, does so with UTKFace).
    """
    permuted = np.random.default_rng(SEED).permutation(n)
    n_test = int(0.2 * n)
    return permuted[n_test:], permuted[:n_test]


def official(n_train: int, n: int) -> Parts:
    """The parts of n rows of which the first ``n_train`` are the official training part."""
    return np.arange(n_train), np.arange(n_train, n)
