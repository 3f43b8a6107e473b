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
    """MNIST with at most ``rows`` training images of one class; the test part is complete.

    Images have the same numbers as in MNIST.

    Graves, Nagisetty & Ganesh, "Amnesiac Machine Learning" (AAAI 2021) forget the threes of MNIST;
    their code trains the model for Amnesiac with the first 100 of them.

    Args:
        scarce: the class.
        rows: number of its images, the first ones; 1 or more.
        size: this and the following arguments: see ``mnist``.
        channels: likewise.
        mean: likewise.
        std: likewise.
        augment: likewise.
        root: likewise.
        fingerprint: likewise.

    Raises:
        FileNotFoundError: files are missing and the download failed.
        ValueError: the checksum of a file differs from the fingerprint, the class does not exist,
            or ``rows`` is below 1.
    """
    if scarce not in range(10) or rows < 1:
        message = f"dataset.call.scarce={scarce} dataset.call.rows={rows}"
        raise ValueError(f"{message}: must be a class, 0 to 9, and 1 or more")
    complete = mnist(
        name="mnist",
        size=size,
        channels=channels,
        mean=mean,
        std=std,
        augment=augment,
        root=root,
        fingerprint=fingerprint,
    )
    is_scarce_n = complete.y[complete.train_rows] == scarce
    retained_rows = complete.train_rows[~is_scarce_n | (is_scarce_n.cumsum(0) <= rows)]
    return complete.training_on(retained_rows)
