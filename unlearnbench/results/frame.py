"""Rows as pandas frames, without duplicates."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from unlearnbench.results.schema import CELL, RANK

LARGEST = 2**62
"""Bound on a combined rank; beyond it ranks are renumbered."""


def deduplicated(table: pa.Table) -> pa.Table:
    """The rows in the order of cells, one per (key, metric, step); the best status wins.

    The function sorts integer ranks instead of strings, so that a million rows take no longer than
    reading them.

    Args:
        table: rows with dictionary-encoded strings.

    Returns:
        A table with the same encoding.
    """
    table = table.unify_dictionaries().combine_chunks()
    key = ranks_of(table["key"])
    status = table["status"].combine_chunks()
    status_ranks = np.array([RANK[name] for name in status.dictionary.to_pylist()], np.int8)
    row_ranks = status_ranks[status.indices.to_numpy()]
    best = np.full(key.max(initial=0) + 1, max(RANK.values()), np.int8)
    for rank in sorted(RANK.values(), reverse=True):
        best[key[row_ranks == rank]] = rank
    # The best status of a key wins: a cell may fail once and succeed later.
    rows = np.flatnonzero(row_ranks == best[key])
    order = places_of(table, [*CELL, "key", "metric", "step"])
    rows = rows[np.argsort(order[rows], kind="stable")]
    same = places_of(table, ["key", "metric", "step"])
    _, first = np.unique(same[rows], return_index=True)
    rows = rows[np.sort(first)]
    return pa.table(
        [taken_rows(column, rows) for column in table.columns], names=table.column_names
    )


def taken_rows(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.Array:
    """Rows (n,) of a column; for dictionary-encoded strings ten times as fast as Arrow."""
    array = column.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        return array.take(rows)
    codes = array.indices.fill_null(-1).to_numpy()[rows]
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), array.dictionary)


def ranks_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The rank (n,) of each value among the sorted distinct values, from 1; 0 for null."""
    array = column.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    places = np.empty(len(array.dictionary) + 1, np.int64)
    places[pa.compute.sort_indices(array.dictionary).to_numpy()] = np.arange(1, len(places))
    places[-1] = 0
    ranks: NDArray[np.int64] = places[array.indices.fill_null(-1).to_numpy()]
    return ranks


def places_of(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """One integer per row (n,) that sorts as the named columns do, the first column first."""
    places, size = np.zeros(len(table), np.int64), 1
    for name in names:
        rank = ranks_of(table[name])
        most = int(rank.max(initial=0)) + 1
        if size * most >= LARGEST:
            distinct, places = np.unique(places, return_inverse=True)
            size = len(distinct)
        places *= most
        places += rank
        size *= most
    return places


def widen(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, one column per metric; each row includes the utility of its model."""
    frame = frame[frame["step"].isna()]  # rows of intermediate models belong to no cell
    values = frame[frame["metric"].notna()]
    metrics = values.pivot(index="key", columns="metric", values="value")
    attributes = frame.drop_duplicates("key").drop(columns=["metric", "step", "value", "n"])
    is_utility = attributes["key"] == attributes["utility_key"]  # utility rows of a model
    unattacked = is_utility & ~attributes["key"].isin(attributes["utility_key"][~is_utility])
    cells = attributes[~is_utility | unattacked].sort_values([*CELL, "key"]).reset_index(drop=True)
    own = metrics.reindex(cells["key"]).reset_index(drop=True)
    utility = metrics.reindex(cells["utility_key"]).reset_index(drop=True)
    return pd.concat([cells, own.combine_first(utility).dropna(axis=1, how="all")], axis=1)
