"""Which rows do what: validation rows off the training part, then the forget set."""

import json
import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor

from unlearnbench import deletion, zoo
from unlearnbench.cell import Cell, target
from unlearnbench.population import (
    HalfSplits,
    Population,
    RandomHalves,
    audit_pool,
    half_splits,
)
from unlearnbench.values import FORGOTTEN, RETAINED, UNSEEN, Dataset, Split

Rows = NDArray[np.int64]


def split_of(cell: Cell, data: Dataset) -> Split:
    """The cell's split of a data set in memory."""
    return split(cell, data.y.cpu(), data.train_rows, data.test_rows)


def split(cell: Cell, y_N: Tensor, train_rows: Tensor, test_rows: Tensor) -> Split:
    """Which rows do what, in the cell's own split or in one that an attack asks for.

    Draws count the training rows by their places in ``train_rows``; what comes out are the
    records' own numbers, which no draw changes.

    scikit-learn's splitter, as in Deep Unlearn (arXiv 2410.01276), whose splits this reproduces to
    the row with the default settings.

    Args:
        cell: whose split.
        y_N: labels of all records, by number; those of neither part are hidden.
        train_rows: the training part (n,), validation rows among them.
        test_rows: the test part.

    Raises:
        ValueError: no row is left to retain.
    """
    y_N = _shown(y_N, torch.cat([train_rows, test_rows]))
    if "population" in cell.split:
        return _population_split(cell, y_N, train_rows, test_rows)
    kept, val = _kept_and_val(cell, train_rows.numpy())
    if "zoo" in cell.split:
        return _zoo_split(cell, kept, val, test_rows)
    if "deletions" in cell.split:
        return _deletion_split(cell, kept, val)
    return _as_asked(cell, y_N, kept, val, test_rows)


def _as_asked(cell: Cell, y_N: Tensor, train: Rows, val: Rows, test_rows: Tensor) -> Split:
    """The split in which the cell's option says what of the training rows is to be forgotten."""
    rows = torch.from_numpy(train)
    choose, arguments = target(cell.forget["call"])
    if "path" in cell.forget:
        arguments["path"] = cell.forget["path"]
    forget = choose(rows, y_N, **arguments)
    parts = Split(train=rows, val=torch.from_numpy(val), test=test_rows, forget=forget)
    if not len(parts.retain):
        raise ValueError(f"forget={cell.forget['name']}: no row is left to retain")
    return parts


def _shown(y_N: Tensor, rows: Tensor) -> Tensor:
    """The labels of these rows (n,); those of others are −1, or NaN in a regression."""
    nothing = torch.full_like(y_N, float("nan") if y_N.is_floating_point() else -1)
    return nothing.index_copy(0, rows, y_N[rows])


def _kept_and_val(cell: Cell, train_rows: Rows) -> tuple[Rows, Rows]:
    share, seed = cell.split["val"], cell.split["seed"]
    if not share:
        return train_rows, train_rows[:0]
    if math.ceil(share * len(train_rows)) >= len(train_rows):
        raise ValueError(f"split.val={share}: leaves none of {len(train_rows)} rows to train on")
    kept, val = train_test_split(train_rows, test_size=share, random_state=seed)
    return kept, val


# ---------------------------------------------------------------------------------------------
# Of a model of a population: the audited records it does not see are in no part.


Records = Population | HalfSplits | RandomHalves


def population(cell: Cell, train_rows: Tensor) -> Records:
    """The records under audit, and what each model sees of them.

    Args:
        cell: of a shadow.
        train_rows: the training part (n,), validation rows among them.
    """
    kept, _ = _kept_and_val(cell, np.arange(len(train_rows)))
    settings = json.dumps(cell.split["population"], sort_keys=True)
    return _population(settings, len(train_rows), kept.tobytes()).of(train_rows.numpy())


@lru_cache(maxsize=2)
def _population(settings: str, n: int, kept: bytes) -> Records:
    """Over the places 0..n-1 of the training part, of which those in ``kept`` may be audited."""
    # As bytes, for a cache needs what can be hashed.
    told = json.loads(settings)
    protocol = told.pop("protocol")
    if protocol == "deep_unlearn":
        return half_splits(np.arange(n))
    rows = np.frombuffer(kept, np.int64)
    return (
        RandomHalves(np.sort(rows), **told)
        if protocol == "random_halves"
        else audit_pool(rows, **told)
    )


def status_of(cell: Cell, data: Dataset) -> NDArray[np.int8]:
    """The part (N,) that each audited record has for a shadow cell."""
    found = population(cell, data.train_rows)
    if not isinstance(found, RandomHalves):
        return found.status_N(cell)
    parts = split_of(cell, data)
    gone_N, seen_N = (np.isin(found.rows_N, part.numpy()) for part in (parts.forget, parts.train))
    return np.select([gone_N, seen_N], [FORGOTTEN, RETAINED], UNSEEN).astype(np.int8)


def _population_split(cell: Cell, y_N: Tensor, train_rows: Tensor, test_rows: Tensor) -> Split:
    found = population(cell, train_rows)
    if isinstance(found, RandomHalves):
        _, val = _kept_and_val(cell, train_rows.numpy())
        return _as_asked(cell, y_N, found.train(cell.split["index"]), val, test_rows)
    status_N = found.status_N(cell)
    unseen, forget = (found.rows_N[status_N == part] for part in (UNSEEN, FORGOTTEN))
    if isinstance(found, HalfSplits):
        kept, val = found.rows_N, found.val
    else:
        kept, val = _kept_and_val(cell, train_rows.numpy())
    return Split(
        train=torch.from_numpy(kept[~np.isin(kept, unseen)]),
        val=torch.from_numpy(val),
        test=test_rows,
        forget=torch.from_numpy(forget),
    )


# ---------------------------------------------------------------------------------------------
# Of a model of a zoo: it sees few rows of its half, in the order of their drawing.


def zoo_pools(cell: Cell, data: Dataset) -> zoo.Pools:
    """The records of the cell's half: all of the data set but the validation rows."""
    kept, _ = _kept_and_val(cell, data.train_rows.numpy())
    return zoo.pools(np.concatenate([kept, data.test_rows.numpy()]), cell.split["half"])


def _zoo_split(cell: Cell, kept: Rows, val: Rows, test_rows: Tensor) -> Split:
    own = zoo.pools(np.concatenate([kept, test_rows.numpy()]), cell.split["half"])
    train, asked = zoo.training_rows(cell, own), None
    if "request" in cell.forget:
        asked = zoo.request(cell, own)
    added, forget = (asked.added, asked.forget) if asked else (train[:0], train[:0])
    return Split(
        train=torch.from_numpy(np.concatenate([train, added])),
        val=torch.from_numpy(val),
        test=torch.from_numpy(own.negative),
        forget=torch.from_numpy(forget),
    )


# ---------------------------------------------------------------------------------------------
# Of an original under deletions of one row each: private rows, and public ones in place of a test.


def _deletion_split(cell: Cell, kept: Rows, val: Rows) -> Split:
    private, public = deletion.pools(cell, kept)
    forget = deletion.forgotten(cell, private)
    return Split(
        train=torch.from_numpy(private),
        val=torch.from_numpy(val),
        test=torch.from_numpy(public),
        forget=torch.from_numpy(forget),
    )
