"""MNIST with few training images of one class."""

from collections.abc import Mapping, Sequence

from unlearnbench.core.data import Dataset
from unlearnbench.dataset.mnist import mnist


def mnist_scarce(
    *,
    scarce: int,
    rows: int,
    size: int,
    channels: int,
    mean: Sequence[float],
    std: Sequence[float],
    augment: str,
    root: str,
    fingerprint: Mapping[str, str],
) -> Dataset:
    """MNIST whose training part holds so many images of one class at most; the test part is whole.

    Images keep the numbers that they have in MNIST.

    Graves, Nagisetty & Ganesh, "Amnesiac Machine Learning" (AAAI 2021) forget the threes of MNIST;
    their code trains the model that Amnesiac is tried on with the first 100 of them.

    Args:
        scarce: the class.
        rows: of it, the first ones, 1 or more.
        size: and what follows, as of ``mnist``.
        channels: likewise.
        mean: likewise.
        std: likewise.
        augment: likewise.
        root: likewise.
        fingerprint: likewise.

    Raises:
        FileNotFoundError: files are missing and could not be fetched.
        ValueError: a file is not the one of the fingerprint, there is no such class, or no row of
            it is left.
    """
    if scarce not in range(10) or rows < 1:
        told = f"dataset.call.scarce={scarce} dataset.call.rows={rows}"
        raise ValueError(f"{told}: must be a class, 0 to 9, and 1 or more")
    whole = mnist(
        name="mnist",
        size=size,
        channels=channels,
        mean=mean,
        std=std,
        augment=augment,
        root=root,
        fingerprint=fingerprint,
    )
    of_it = whole.y[whole.train_rows] == scarce
    kept = whole.train_rows[~of_it | (of_it.cumsum(0) <= rows)]
    return whole.training_on(kept)
