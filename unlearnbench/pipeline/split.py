"""The split of rows: validation rows are taken from the training part, then the forget set."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor

from unlearnbench.core.cell import Cell, target
from unlearnbench.core.data import Dataset, Split
from unlearnbench.protocol._member import Member, Records, Subsets

Rows = NDArray[np.int64]


def split_of(cell: Cell, data: Dataset) -> Split:
    """The cell's split of a data set in memory."""
    return split(cell, data.y.cpu(), data.train_rows, data.test_rows)


def split(cell: Cell, y_N: Tensor, train_rows: Tensor, test_rows: Tensor) -> Split:
    """The split of a cell, or of a model that its attack draws.

    Draws count the training rows by their places in ``train_rows``; the split holds record
    numbers, which do not depend on draws.

    The splitter is that of scikit-learn, as in Deep Unlearn (arXiv 2410.01276); the default
    settings reproduce its splits exactly.

    Args:
        cell: the cell.
        y_N: labels of all records, by number; labels of records in neither part are hidden.
        train_rows: the training part (n,), including validation rows.
        test_rows: the test part.

    Raises:
        ValueError: no row is left to retain.
    """
    records = _records(cell, y_N, train_rows, test_rows)
    if isinstance(cell, Member):
        parts = cell.parts(records)
    else:
        forget = records.forget(records.kept)
        parts = Subsets(records.kept, records.val, records.test, forget)
    rows = Split(*map(torch.from_numpy, parts))
    if not len(rows.retain):
        raise ValueError(f"forget={cell.forget['name']}: no row is left to retain")
    return rows


def records_of(cell: Cell, data: Dataset) -> Records:
    """The records of a data set in memory, divided by the cell's settings."""
    return _records(cell, data.y.cpu(), data.train_rows, data.test_rows)


def _records(cell: Cell, y_N: Tensor, train_rows: Tensor, test_rows: Tensor) -> Records:
    shown_N = _shown(y_N, torch.cat([train_rows, test_rows]))
    train = train_rows.numpy()
    places, val_places = _without_val(cell, np.arange(len(train)))

    def forget(rows: Rows) -> Rows:
        choose, arguments = target(cell.forget["call"])
        if "path" in cell.forget:
            arguments["path"] = cell.forget["path"]
        chosen: Tensor = choose(torch.from_numpy(rows), shown_N, **arguments)
        return chosen.numpy()

    return Records(train, places, train[val_places], test_rows.numpy(), forget)


def _shown(y_N: Tensor, rows: Tensor) -> Tensor:
    """The labels of all records; −1, or NaN in a regression, outside ``rows`` (n,)."""
    nothing = torch.full_like(y_N, float("nan") if y_N.is_floating_point() else -1)
    return nothing.index_copy(0, rows, y_N[rows])


def _without_val(cell: Cell, places: Rows) -> tuple[Rows, Rows]:
    share, seed = cell.split["val"], cell.split["seed"]
    if not share:
        return places, places[:0]
    if math.ceil(share * len(places)) >= len(places):
        raise ValueError(f"split.val={share}: leaves none of {len(places)} rows to train on")
    remaining, val = train_test_split(places, test_size=share, random_state=seed)
    return remaining, val
