"""Rows as pandas frames: one row for each number, the newest."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from unlearnbench.results.schema import CELL, RANK

LARGEST = 2**62
"""Number up to which ranks are combined as they are."""


def deduplicated(table: pa.Table) -> pa.Table:
    """In the order of the cells, one row a (key, metric, step); what worked before what did not.

    On ranks instead of strings, so that a million rows take no longer than to read them.

    Args:
        table: its strings as numbers in a list, as they come back too.
    """
    table = table.unify_dictionaries().combine_chunks()
    key = ranks_of(table["key"])
    status = table["status"].combine_chunks()
    worth = np.array([RANK[word] for word in status.dictionary.to_pylist()], np.int8)
    mine = worth[status.indices.to_numpy()]
    best = np.full(key.max(initial=0) + 1, max(RANK.values()), np.int8)
    for rank in sorted(RANK.values(), reverse=True):
        best[key[mine == rank]] = rank
    # A cell that failed once and worked later has worked.
    rows = np.flatnonzero(mine == best[key])
    place = places_of(table, [*CELL, "key", "metric", "step"])
    rows = rows[np.argsort(place[rows], kind="stable")]
    same = places_of(table, ["key", "metric", "step"])
    _, first = np.unique(same[rows], return_index=True)
    rows = rows[np.sort(first)]
    return pa.table(
        [taken_rows(column, rows) for column in table.columns], names=table.column_names
    )


def taken_rows(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.Array:
    """Some rows (n,) of a column; for a list of strings ten times as fast as Arrow itself."""
    whole = column.combine_chunks()
    if not pa.types.is_dictionary(whole.type):
        return whole.take(rows)
    codes = whole.indices.fill_null(-1).to_numpy()[rows]
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), whole.dictionary)


def ranks_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The place (n,) of each value among the sorted distinct ones, from 1 on; of no value 0."""
    whole = column.combine_chunks()
    if not pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_encode()
    places = np.empty(len(whole.dictionary) + 1, np.int64)
    places[pa.compute.sort_indices(whole.dictionary).to_numpy()] = np.arange(1, len(places))
    places[-1] = 0
    found: NDArray[np.int64] = places[whole.indices.fill_null(-1).to_numpy()]
    return found


def places_of(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """One number a row (n,) that sorts as these of its columns do, the first of them first."""
    found, size = np.zeros(len(table), np.int64), 1
    for name in names:
        rank = ranks_of(table[name])
        most = int(rank.max(initial=0)) + 1
        if size * most >= LARGEST:
            distinct, found = np.unique(found, return_inverse=True)
            size = len(distinct)
        found *= most
        found += rank
        size *= most
    return found


def widen(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, one column a metric; the utility of its model beside an attack's own."""
    frame = frame[frame["step"].isna()]  # what a model was on its way is no cell
    values = frame[frame["metric"].notna()]
    metrics = values.pivot(index="key", columns="metric", values="value")
    about = frame.drop_duplicates("key").drop(columns=["metric", "step", "value", "n"])
    once = about["key"] == about["utility_key"]  # the utility of a model
    unattacked = once & ~about["key"].isin(about["utility_key"][~once])
    cells = about[~once | unattacked].sort_values([*CELL, "key"]).reset_index(drop=True)
    own = metrics.reindex(cells["key"]).reset_index(drop=True)
    utility = metrics.reindex(cells["utility_key"]).reset_index(drop=True)
    return pd.concat([cells, own.combine_first(utility).dropna(axis=1, how="all")], axis=1)
