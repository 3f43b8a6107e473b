"""The test part of a set that has no official one."""

import numpy as np
from numpy.typing import NDArray

SEED = 123


def order(n: int) -> tuple[NDArray[np.int64], int]:
    """How to order n rows so that a training part comes first and a fifth for testing last.

    The rows are permuted by NumPy's ``default_rng(123)``; the first int(0.2 n) of the permutation
    are the test part and the rest, in permuted order, the training part (Deep Unlearn,
    arXiv 2410.01276, does so with UTKFace).

    Returns:
        The n row numbers, training part first, and how many of them are for training.
    """
    permuted = np.random.default_rng(SEED).permutation(n)
    n_test = int(0.2 * n)
    return np.concatenate([permuted[n_test:], permuted[:n_test]]), n - n_test
