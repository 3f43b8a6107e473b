"""A random forget set."""

import math

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from unlearnbench.core import headers


def random(
    train_rows: Tensor, y_N: Tensor, *, fraction: float | None, count: int | None, seed: int
) -> Tensor:
    """A part of the training rows drawn uniformly, not stratified; index tensor (n,).

    scikit-learn's splitter with ``random_state=seed``, as in Deep Unlearn (arXiv 2410.01276), whose
    forget sets this reproduces to the row at fraction 0.1 and seed 123.

    Args:
        train_rows: rows (n,) of the training part.
        y_N: labels of all rows; not looked at.
        fraction: share of the training rows, rounded up; or else
        count: their number.
        seed: of the draw, whatever the model's seed is.

    Raises:
        ValueError: neither or both sizes are given, or none is left to retain.
    """
    headers.sizes(None, {"fraction": fraction, "count": count})
    n = len(train_rows)
    if count is not None and not 0 < count < n:
        raise ValueError(f"forget.call.count={count}: must be between 1 and {n - 1} here")
    if fraction is not None and not 0 < fraction < 1:
        raise ValueError(f"forget.call.fraction={fraction}: must be between 0 and 1")
    if fraction is not None and math.ceil(fraction * n) >= n:
        raise ValueError(f"forget.call.fraction={fraction}: leaves none of {n} rows to retain")
    size = fraction if count is None else count
    _, forget = train_test_split(train_rows.numpy(), test_size=size, random_state=seed)
    return torch.from_numpy(forget)
