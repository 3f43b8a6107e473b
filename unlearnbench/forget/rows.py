"""Rows that a user names."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unlearnbench.core import headers


def rows(train_rows: Tensor, y_N: Tensor, *, path: str) -> Tensor:
    """The rows in a user's file; index tensor (n,), sorted.

    Row numbers count from 0 in the order of the user's own data, whatever the split: training file
    first and then test file where there are two.

    Args:
        train_rows: rows (n,) of the training part, without the validation rows.
        y_N: labels of all rows; only their number matters.
        path: as ``headers.row_numbers`` takes it.

    Raises:
        ValueError: it holds no different row numbers, or rows that are not trained on.
    """
    chosen = headers.row_numbers(Path(path), len(y_N))
    strangers = np.setdiff1d(chosen, train_rows.numpy())
    if len(strangers):
        shown = f"{', '.join(map(str, strangers[:5]))}{', …' if len(strangers) > 5 else ''}"
        where = "validated or tested on, or left out of the data set"
        raise ValueError(
            f"forget.path={path}: {len(strangers)} of {len(chosen)} rows are not trained on, but "
            f"{where}: {shown}"
        )
    return torch.from_numpy(chosen)
