"""The rows of one class."""

import torch
from torch import Tensor

from unlearnbench.core.seeding import generator


def by_class(train_rows: Tensor, y_N: Tensor, *, label: int, fraction: float, seed: int) -> Tensor:
    """The training rows of a class, or a share of them; index tensor (n,).

    Args:
        train_rows: rows (n,) of the training part.
        y_N: labels of all rows.
        label: the class.
        fraction: share of its rows in (0, 1], rounded up; drawn by ``seed``.
        seed: of that draw, whatever the model's seed is.

    Raises:
        ValueError: no training row has that label, or the fraction is not in (0, 1].
    """
    if y_N.is_floating_point():
        raise ValueError("forget=by_class: a regression has no classes; take another forget set")
    rows = train_rows[y_N[train_rows] == label]
    if not len(rows):
        raise ValueError(f"forget=by_class: no training row has label {label}")
    if not 0 < fraction <= 1:
        raise ValueError(f"forget.call.fraction={fraction}: must be above 0 and at most 1")
    chosen = torch.randperm(len(rows), generator=generator(seed, "forget set"))
    return rows[chosen[: int(-(-len(rows) * fraction // 1))]]
