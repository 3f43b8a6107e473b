"""What a user loads into pandas and NumPy. Imports no torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load

from unlearnbench.config.arguments import expanded
from unlearnbench.results import load as tables
from unlearnbench.results.load import Folders, load_sweep, one_folder, rows, wanted
from unlearnbench.results.schema import ROWS
from unlearnbench.store.artifacts import KEY, Store

OUTPUTS = "predictions.safetensors"

RECORDS = "n_records"
"""Array (1,) beside a cell's outputs: records of the data set, whether it has outputs of them."""

CATEGORIES = (
    *("dataset", "model", "train", "forget", "forget_hash", "method", "defense", "attack"),
    *("traits", "threat", "overrides", "metric", "status", "commit", "version", "device"),
    *("setup_key", "method_key", "defense_key", "attack_key", "measured_on", "clock", "memory"),
)
"""Columns of few words in many rows."""

COUNTS = ("step", "n")
"""Whole numbers that not every row has."""

SINCE: Mapping[int, Mapping[str, Any]] = {2: {"traits": ""}}
"""What a column that is new in a schema says in rows of earlier ones; others are null in them."""


def load_results(
    results: Folders = None,
    *,
    sweep: str | None = None,
    keys: Iterable[str] | None = None,
    wide: bool = False,
) -> pd.DataFrame:
    """The result rows as a pandas frame: names are categories, counts whole numbers.

    One row a number; of rows computed twice one is kept, ``ok`` before ``failed``. Rows of several
    machines and versions stand side by side: what an earlier version did not write is null, and
    ``schema`` says which it was. Five recipes stand in ``results/README.md``.

    Args:
        results: the results folder, or several; ``results/`` or UNLEARNBENCH_RESULTS by default.
        sweep: only the cells of the sweep of that name.
        keys: only the rows with these keys.
        wide: one row a cell instead, one column a metric, utility beside the attack's own.

    Raises:
        FileNotFoundError: there is no such folder, or no such sweep in it.
        ValueError: a newer version has written rows that this one does not know how to read.
    """
    if wide:
        return typed(tables.load_results(results, sweep=sweep, keys=keys, wide=True))
    return typed(_categorised(rows(results, sweep, keys)))


def _categorised(table: pa.Table) -> pd.DataFrame:
    """Listed strings as categories at once: to spell out a million takes longer than to read them.

    Categories are those that there are, in order, as pandas itself makes them.
    """
    later = {name for columns in SINCE.values() for name in columns}  # which get other values yet
    names = [name for name in CATEGORIES if name not in later]
    plain = pa.schema([f if f.name in names else ROWS.field(f.name) for f in table.schema])
    frame: pd.DataFrame = table.cast(plain).to_pandas(split_blocks=True)
    told = {}
    for name in names:
        there = frame[name].cat.remove_unused_categories()
        in_order = pd.Index(sorted(there.cat.categories), dtype="str")  # of none, too
        told[name] = there.cat.set_categories(in_order)
    return frame.assign(**told)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with their types set, and earlier schemas brought to this one.

    Args:
        frame: rows as they are stored, long or wide.
    """
    told = {}
    for schema, columns in SINCE.items():
        for name, value in columns.items():
            told[name] = frame[name].mask((frame["schema"] < schema) & frame[name].isna(), value)
    frame = frame.assign(**told)
    types = {**dict.fromkeys(CATEGORIES, "category"), **dict.fromkeys(COUNTS, "Int64")}
    return frame.astype({name: kind for name, kind in types.items() if name in frame})


def load_scores(
    results: str | Path | None = None,
    *,
    sweep: str | None = None,
    keys: Iterable[str] | None = None,
) -> pd.DataFrame:
    """What attacks gave each record: ``key``, ``pool``, ``row``, ``member``, ``score``.

    A score is higher for members; ``row`` is the record's number, which counts from 0 in the order
    of the user's own file whatever the split, and ``pool`` what it was compared within.
    Merge with ``load_results(wide=True)`` on ``key``.

    Args:
        results: the results folder; ``results/`` or UNLEARNBENCH_RESULTS by default.
        sweep: only the cells of the sweep of that name.
        keys: only the cells with these keys; all by default.

    Raises:
        FileNotFoundError: there is no such folder, or no such sweep in it.
    """
    folder = one_folder(results)
    if sweep is not None:
        listed = set(load_sweep(folder, sweep)["key"])
        keys = listed if keys is None else listed & {*wanted(keys)}
    return tables.load_scores(folder, keys)


def load_predictions(
    key: str, results: str | Path | None = None, *, store: str | Path | None = None
) -> dict[str, NDArray[Any]]:
    """The stored outputs of a cell's model on its data set, in the order of the user's own file.

    Args:
        key: of the cell, or of its model's outputs (``predictions_key``).
        results: the results folder; ``results/`` or UNLEARNBENCH_RESULTS by default.
        store: where artifacts are; ``store/`` in the results folder by default.

    Returns:
        ``logits_NC`` in float32 (of a regression one column, the prediction), ``y_N``,
        ``is_test_N`` and ``rows_N``, the records' numbers in ascending order: the k-th entry is of
        record k, unless the data set leaves records out (``dataset.limit``). Which rows were
        forgotten stands in ``load_scores``.

    Raises:
        KeyError: there are no rows with such a key.
        FileNotFoundError: the outputs are not in the store.
        ValueError: the rows were written before they named their model's outputs, or the outputs
            before they named their records.
    """
    folder = one_folder(results)
    (key,) = wanted([key])
    root = Store(folder / "store" if store is None else expanded(str(store)))
    if not KEY.fullmatch(key) or not root.has(key):
        found = tables.load_results(folder, keys=[key])
        if found.empty:
            raise KeyError(f"no rows with the key {key} in {folder}")
        name = found["predictions_key"].iloc[0]
        if pd.isna(name):
            told = "run its sweep again: only rows are computed anew"
            raise ValueError(f"rows of schema {found['schema'].iloc[0]} name no outputs: {told}")
        key = str(name)
    if not root.has(key):
        raise FileNotFoundError(f"no outputs {key} in {root.root}; name the store with store=")
    arrays: dict[str, NDArray[Any]] = load(root.load(key).read(OUTPUTS))
    if "is_test_N" not in arrays:
        return arrays  # of a shadow model or a request pair, on the records that it is asked about
    if "rows_N" not in arrays:
        why = "were stored by an earlier version, which did not say of which records they are"
        raise ValueError(f"outputs {key} {why}: run the sweep again")
    del arrays[RECORDS]
    order = arrays["rows_N"].argsort()
    return {name: array[order] for name, array in arrays.items()}
