"""Rows that a user names."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def rows(train_rows: Tensor, y_N: Tensor, *, path: str) -> Tensor:
    """The rows in a user's file; index tensor (n,), sorted, each once.

    Row numbers count from 0 over the training part and then the test part of the data set.

    Args:
        train_rows: rows (n,) of the training part, without the validation rows.
        y_N: labels of all rows; not looked at.
        path: a ``.npy`` array of integers, or a text file of integers apart by white space.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or rows that are not trained on.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"forget=rows: no file at forget.path={path}")
    try:
        if file.suffix == ".npy":
            given = np.load(file, allow_pickle=False)
        else:
            given = np.array(file.read_text().split(), dtype=np.int64)
        chosen = torch.from_numpy(np.unique(given.astype(np.int64, casting="safe")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"forget.path={path}: must hold integers only ({error})") from None
    strangers = chosen[~torch.isin(chosen, train_rows)]
    if len(strangers) or not len(chosen):
        told = f"row {int(strangers[0])} is not trained on" if len(strangers) else "it is empty"
        raise ValueError(f"forget.path={path}: {told}")
    return chosen
