"""Functions that load results into pandas and NumPy. Imports no torch."""

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
"""Array (1,) stored with a cell's outputs: number of records of the data set."""

CATEGORIES = (
    *("dataset", "model", "train", "forget", "forget_hash", "method", "defense", "attack"),
    *("traits", "threat", "overrides", "metric", "status", "commit", "version", "device"),
    *("setup_key", "method_key", "defense_key", "attack_key", "measured_on", "clock", "memory"),
)
"""Columns with few distinct values."""

COUNTS = ("step", "n")
"""Integer columns with missing values."""

SINCE: Mapping[int, Mapping[str, Any]] = {2: {"traits": ""}}
"""Schema version → new column → its value in rows of earlier schemas; otherwise it is null."""


def load_results(
    results: Folders = None,
    *,
    sweep: str | None = None,
    keys: Iterable[str] | None = None,
    wide: bool = False,
) -> pd.DataFrame:
    """The result rows as a pandas frame: names are categories, counts are integers.

    One row per value; of duplicate rows one is retained, ``ok`` before ``failed``. Rows of several
    machines and versions are combined: columns that an earlier version did not write are null, and
    ``schema`` is the version of the schema. Five recipes are in ``results/README.md``.

    Args:
        results: the results folder, or several; ``results/`` or UNLEARNBENCH_RESULTS by default.
        sweep: name of a sweep, to load only its cells.
        keys: only the rows with these keys.
        wide: one row per cell and one column per metric, with the utility of the cell's model.

    Raises:
        FileNotFoundError: there is no such folder, or no such sweep in it.
        ValueError: the rows were written by a newer version with a schema unknown to this one.
    """
    if wide:
        return typed(tables.load_results(results, sweep=sweep, keys=keys, wide=True))
    return typed(_categorised(rows(results, sweep, keys)))


def _categorised(table: pa.Table) -> pd.DataFrame:
    """Dictionary-encoded strings as categories, without decoding them, which is slow.

    Categories are the values that occur, in ascending order, as in pandas itself.
    """
    later = {name for columns in SINCE.values() for name in columns}  # ``typed`` fills these
    names = [name for name in CATEGORIES if name not in later]
    plain_schema = pa.schema([f if f.name in names else ROWS.field(f.name) for f in table.schema])
    frame: pd.DataFrame = table.cast(plain_schema).to_pandas(split_blocks=True)
    categorical = {}
    for name in names:
        values = frame[name].cat.remove_unused_categories()
        in_order = pd.Index(sorted(values.cat.categories), dtype="str")  # str even if empty
        categorical[name] = values.cat.set_categories(in_order)
    return frame.assign(**categorical)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with typed columns, and with rows of earlier schemas completed.

    Args:
        frame: rows as they are stored, long or wide.
    """
    filled = {}
    for schema, columns in SINCE.items():
        for name, value in columns.items():
            filled[name] = frame[name].mask((frame["schema"] < schema) & frame[name].isna(), value)
    frame = frame.assign(**filled)
    types = {**dict.fromkeys(CATEGORIES, "category"), **dict.fromkeys(COUNTS, "Int64")}
    return frame.astype({name: kind for name, kind in types.items() if name in frame})


def load_scores(
    results: str | Path | None = None,
    *,
    sweep: str | None = None,
    keys: Iterable[str] | None = None,
) -> pd.DataFrame:
    """The attacks' score of each record: ``key``, ``pool``, ``row``, ``member``, ``score``.

    A score is higher for members; ``row`` is the record's number from 0 in the order of the user's
    own file, independent of the split, and ``pool`` the set of records in which it was compared.
    Merge with ``load_results(wide=True)`` on ``key``.

    Args:
        results: the results folder; ``results/`` or UNLEARNBENCH_RESULTS by default.
        sweep: name of a sweep, to load only its cells.
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
        key: key of the cell, or of its model's outputs (``predictions_key``).
        results: the results folder; ``results/`` or UNLEARNBENCH_RESULTS by default.
        store: folder of the artifacts; ``store/`` in the results folder by default.

    Returns:
        ``logits_NC`` in float32 (for a regression one column, the prediction), ``y_N``,
        ``is_test_N`` and ``rows_N``, the records' numbers in ascending order: entry k is record k,
        unless the data set leaves records out (``dataset.limit``). The forgotten rows are in
        ``load_scores``.

    Raises:
        KeyError: there are no rows with such a key.
        FileNotFoundError: the outputs are not in the store.
        ValueError: the rows have no ``predictions_key``, or the outputs have no ``rows_N``, because
            an earlier version wrote them.
    """
    folder = one_folder(results)
    (key,) = wanted([key])
    root = Store(folder / "store" if store is None else expanded(str(store)))
    if not KEY.fullmatch(key) or not root.has(key):
        frame = tables.load_results(folder, keys=[key])
        if frame.empty:
            raise KeyError(f"no rows with the key {key} in {folder}")
        name = frame["predictions_key"].iloc[0]
        if pd.isna(name):
            message = "run its sweep again: only rows are computed anew"
            raise ValueError(f"rows of schema {frame['schema'].iloc[0]} name no outputs: {message}")
        key = str(name)
    if not root.has(key):
        raise FileNotFoundError(f"no outputs {key} in {root.root}; name the store with store=")
    arrays: dict[str, NDArray[Any]] = load(root.load(key).read(OUTPUTS))
    if "is_test_N" not in arrays:
        return arrays  # of a shadow model or a request pair: a subset of the records
    if "rows_N" not in arrays:
        reason = "were stored by an earlier version, which did not say of which records they are"
        raise ValueError(f"outputs {key} {reason}: run the sweep again")
    del arrays[RECORDS]
    order = arrays["rows_N"].argsort()
    return {name: array[order] for name, array in arrays.items()}
