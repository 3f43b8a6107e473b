"""Result tables: the Arrow schemas, writing, reading. Imports no torch.

A part file is named by its content key and renamed into place: jobs never contend, and running
again overwrites instead of duplicating. A part that cannot be read is named and passed over.
"""

import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOMEM
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unlearnbench import atomic, damage
from unlearnbench.lock import OWNER
from unlearnbench.words import LONGEST_NAME, ConfigError, expanded, sweep_name

SCHEMA_VERSION = 5

ROWS = pa.schema(
    [
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("train", pa.string()),
        ("forget", pa.string()),
        ("forget_hash", pa.string()),  # of the set of forget rows, whatever chose them
        ("method", pa.string()),
        ("defense", pa.string()),
        ("attack", pa.string()),
        ("traits", pa.string()),  # what the method says of itself: uses_val, from_scratch, …
        ("threat", pa.string()),  # what the attacker holds, in words
        ("overrides", pa.string()),  # settings that differ from the options' defaults
        ("setup_key", pa.string()),  # of what methods share: the options' content, not their text
        ("method_key", pa.string()),  # of the method's option, and what its settings were found by
        ("defense_key", pa.string()),  # of the defense's option
        ("attack_key", pa.string()),  # of the attack's option, and of what its attacker has
        ("seed", pa.int64()),
        ("metric", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("n", pa.int64()),  # records the value was computed on
        ("status", pa.string()),  # ok, skipped, failed
        ("reason", pa.string()),  # of what is not ok, or of a value that is not there
        ("seconds", pa.float64()),  # of the method's own call
        ("measured_on", pa.string()),  # where that was: cpu, or the GPU's name
        ("clock", pa.string()),  # seconds of the processor, or of the wall clock
        ("memory", pa.string()),  # peak_bytes of the whole process, or of a GPU's tensors
        ("key", pa.string()),
        ("utility_key", pa.string()),  # of the utility rows of the same model
        ("model_key", pa.string()),  # of the model in the store
        ("predictions_key", pa.string()),  # of the model's outputs in the store
        ("commit", pa.string()),
        ("version", pa.string()),
        ("device", pa.string()),
        ("schema", pa.int64()),
    ]
)

SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("place", pa.int64()),  # among the cell's scores; null in parts from before it was written
        ("pool", pa.string()),
        ("row", pa.int64()),
        ("member", pa.bool_()),
        ("score", pa.float64()),
    ]
)

ROC = pa.schema(
    [("key", pa.string()), ("fpr", pa.float64()), ("tpr", pa.float64()), ("others", pa.int64())]
)

TRIALS = pa.schema(
    [
        ("study", pa.string()),
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("train", pa.string()),
        ("forget", pa.string()),
        ("method", pa.string()),
        ("overrides", pa.string()),  # settings that differ from the options' defaults
        ("objective", pa.string()),  # retrained, no_retrain
        ("sampler", pa.string()),
        ("trial", pa.int64()),  # 0: the method's defaults
        ("settings", pa.string()),  # JSON: hyper-parameters by dotted name
        ("trial_status", pa.string()),  # complete, pruned, failed, skipped
        ("phase", pa.string()),  # search, or fresh: the best once more
        ("seed", pa.int64()),
        ("retain_gap", pa.float64()),  # |RA − wished| / 3
        ("forget_gap", pa.float64()),
        ("val_gap", pa.float64()),
        ("disc_val", pa.float64()),  # |2 Val-MIA − 1|
        ("score", pa.float64()),  # the norm of these four; infinite where it failed
        ("status", pa.string()),  # of this seed: complete, failed, skipped
        ("reason", pa.string()),
        ("seconds", pa.float64()),  # of the method and of measuring it
        ("measured_on", pa.string()),  # cpu: of the processor; a GPU's name: of the wall clock
        ("commit", pa.string()),
        ("version", pa.string()),
    ]
)

SWEEP = pa.schema([("sweep", pa.string()), ("key", pa.string()), ("utility_key", pa.string())])

CELL = ["dataset", "model", "train", "forget", "forget_hash", "method", "defense", "attack"]
CELL += ["overrides", "seed"]

_RANK = {"ok": 0, "skipped": 1, "failed": 2}


def columns(schema: pa.Schema, n: int, **given: Any) -> pa.Table:
    """A table of n rows from whole columns; a single value stands in every row."""
    whole = {k: [v] * n if isinstance(v, str) else v for k, v in given.items()}
    return pa.table(whole, schema=schema)


def write(
    folder: Path, name: str, records: pa.Table | Sequence[Mapping[str, Any]], schema: pa.Schema
) -> Path:
    """Write one part file; whoever reads sees all of it or nothing.

    Args:
        folder: of the table.
        name: the part's content key.
        records: a table, or one mapping a row; what is not given is null.
        schema: of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    if not isinstance(records, pa.Table):
        records = pa.Table.from_pylist(list(records), schema=schema)
    with atomic.writing(path) as file:
        pq.write_table(records, file, write_page_checksum=True)
    return path


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one schema, one after the other."""
    return pa.concat_tables(tables)


def finished(results: Path) -> set[str]:
    """Keys whose rows are there, computed or skipped; those of failed cells are not."""
    table = _read(results / "rows", ROWS, columns=["key", "status"])
    worked = table.filter(pa.compute.not_equal(table["status"], "failed"))
    return set(pa.compute.unique(worked["key"]).to_pylist())


def statuses(results: Path) -> pd.DataFrame:
    """What became of each key's rows, the best of each: status and reason, method and seed.

    Args:
        results: the results folder.
    """
    columns = ["key", "status", "reason", "method", "seed"]
    table = _read(results / "rows", ROWS, columns)
    frame: pd.DataFrame = table.group_by(columns).aggregate([]).to_pandas()
    frame = frame.iloc[frame["status"].map(_RANK).argsort(kind="stable")]
    return frame.drop_duplicates("key").reset_index(drop=True)


def part(path: Path, schema: pa.Schema, repair: str) -> pa.Table:
    """One part alone; without rows where there is none, or none that can be read.

    Args:
        path: of the part.
        schema: of the table.
        repair: what to do about one that cannot be read.
    """
    found = [path] if path.exists() else []
    return _plain(_whole(found, schema, repair=repair)[0], schema)


def _read(folder: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    return _plain(_listed([folder], schema, columns), schema)


def _listed(
    folders: Sequence[Path], schema: pa.Schema, columns: list[str] | None = None
) -> pa.Table:
    """The table with its strings as numbers of entries in a list: few stand in many rows.

    What a part of an earlier schema lacks is null.
    """
    for attempt in range(ATTEMPTS):
        paths = _parts(folders)
        try:
            return _whole(paths, schema, columns)[0]
        except FileNotFoundError:  # ``compact`` has made one of it and of others since
            time.sleep(0.001 * attempt)
    return _whole(paths, schema, columns)[0]


def _parts(folders: Sequence[Path]) -> list[Path]:
    """The parts of a table, in order.

    A folder that changes while it is listed may show neither the parts that became one nor that
    one; so it is listed until nothing has gone since the time before.
    """
    before = None
    while True:
        # Files are named one by one: a part that is being written ends with .tmp.
        paths = [path for folder in folders for path in damage.inside(folder, ".parquet")]
        if before is not None and before <= set(paths):
            return paths
        before = set(paths)


def _whole(
    paths: Sequence[Path],
    schema: pa.Schema,
    columns: list[str] | None = None,
    repair: str | None = None,
) -> tuple[pa.Table, Sequence[Path]]:
    """The table of some parts, and those of them that can be read; the others are named.

    Args:
        paths: of the parts.
        schema: of the table.
        columns: that are read; all by default.
        repair: what to do about one that cannot be read; by its folder by default.

    Raises:
        FileNotFoundError: one of them is not there.
        OSError: this process cannot read now, which says nothing of a part.
    """
    flaw: Exception | str | None
    texts = [field.name for field in schema if field.type == pa.string()]
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = ds.ParquetFileFormat(dictionary_columns=texts, default_fragment_scan_options=checked)
    listed = pa.schema([(f.name, LISTED if f.name in texts else f.type) for f in schema])
    try:
        parts = ds.dataset([str(path) for path in paths], schema=listed, format=form)
        table = parts.to_table(columns=columns, batch_size=WHOLE)  # one list a file, not many
        if (flaw := _flaw(table)) is None:
            return table, paths
    except (FileNotFoundError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno in NO_DAMAGE:
            raise
        flaw = error
    if len(paths) == 1:
        usual = REPAIR.get(paths[0].parent.name, "delete it").format(paths[0].name)
        damage.passed_over(paths[0], flaw, repair or usual)
        return _whole([], schema, columns)
    half = len(paths) // 2
    (first, some), (second, more) = (
        _whole(few, schema, columns, repair) for few in (paths[:half], paths[half:])
    )
    return joined([first, second]), [*some, *more]


def _flaw(table: pa.Table) -> str | None:
    """What shows that a table is none of ours, or not whole: what every row has is missing."""
    for name in REQUIRED.intersection(table.column_names):
        if table[name].null_count:
            return f"of another schema: the column {name} is missing or has gaps"
    if "status" in table.column_names and "metric" in table.column_names:
        given = pa.compute.unique(table["status"].cast(pa.string())).to_pylist()
        if unknown := sorted(set(given) - _RANK.keys()):
            return f"of another schema: the column status has {unknown[0]!r}"
    return None


NO_DAMAGE = (EMFILE, ENFILE, ENOMEM)
"""Errors of a process that lacks files or memory."""

REQUIRED = frozenset({"key", "status", "pool", "row", "fpr", "study", "trial"})
REQUIRED |= {"kind", "wave", "part", "cells", "task"}
"""Columns without gaps, in whichever tables have them."""

REPAIR = {
    "rows": "delete it, and run the sweep again for its rows",
    "scores": "delete it and rows/{0}, and run the sweep again for what it held",
    "roc": "delete it and rows/{0}, and run the sweep again for what it held",
    "sweeps": "the sweep's own command writes it again",
    "trials": "delete it, and the command of the search writes it again",
}
"""What to do about a part that cannot be read, by its folder."""

ATTEMPTS = 100
"""How often a table is listed again whose parts go while they are read."""

LISTED = pa.dictionary(pa.int32(), pa.string())

LARGEST = 2**62
"""Number up to which ranks are combined as they are."""

WHOLE = 2**30
"""Rows at once: all."""


def _plain(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with its strings spelled out."""
    return table.cast(pa.schema([schema.field(name) for name in table.column_names]))


def load_scores(results: str | Path, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """What attacks gave each record they attacked; of a cell computed twice each score stands once.

    A cell may have several scores of one record and pool: those of several requests to one model.

    Args:
        results: the results folder.
        keys: of the cells; all by default.
    """
    table = _read(Path(results) / "scores", SCORES)
    if keys is not None:
        table = table.filter(pa.compute.is_in(table["key"], pa.array(wanted(keys), pa.string())))
    frame: pd.DataFrame = table.to_pandas()
    numbered = frame["key"].isin(frame.loc[frame["place"].notna(), "key"])
    frame = frame[frame["place"].notna() | ~numbered]
    return frame.drop_duplicates(["key", "place", "pool", "row"]).drop(columns="place")


def load_roc(results: str | Path, keys: Iterable[str]) -> pd.DataFrame:
    """The ROC curves of cells, a row a point; of one computed twice each point stands once.

    Args:
        results: the results folder.
        keys: of the cells.
    """
    table = _read(Path(results) / "roc", ROC)
    chosen = pa.compute.is_in(table["key"], pa.array(wanted(keys), pa.string()))
    frame: pd.DataFrame = table.filter(chosen).to_pandas()
    return frame.drop_duplicates(["key", "fpr"])


def default_folder() -> Path:
    """``results/`` here, or what the environment says in UNLEARNBENCH_RESULTS."""
    return expanded(os.environ.get("UNLEARNBENCH_RESULTS", "results"))


Folders = str | Path | Sequence[str | Path] | None
"""A results folder, or those of several machines; None is the one that is there by default."""


def folders(results: Folders) -> list[Path]:
    """These as a list.

    Raises:
        FileNotFoundError: there are no rows in one of them.
        ConfigError: it is no folder, and no list of folders.
    """
    listed = results if isinstance(results, list | tuple) else [results]
    if not listed or not all(isinstance(one, str | Path | None) for one in listed):
        told = "must be a folder, or a list of folders"
        raise ConfigError(f"results={results!r:.{LONGEST_NAME}}: {told}")
    found = [default_folder() if one is None else expanded(str(one)) for one in listed]
    for folder in found:
        if not (folder / "rows").is_dir():
            raise FileNotFoundError(f"no results in {folder}: run a sweep, or name another folder")
    return found


def one_folder(results: Folders) -> Path:
    """The same where it must be one.

    Raises:
        ConfigError: it is none, or several.
    """
    if len(listed := folders(results)) > 1:
        raise ConfigError(f"results: must be one folder here, not {len(listed)}")
    return listed[0]


def wanted(keys: Iterable[str]) -> list[str]:
    """Keys of cells or rows, each once; a text is one key.

    Raises:
        ConfigError: a key is no text.
    """
    each = list(keys) if isinstance(keys, Iterable) and not isinstance(keys, str) else [keys]
    if strangers := [key for key in each if not isinstance(key, str)]:
        raise ConfigError(f"keys: must be texts as in the column key, not {strangers[0]!r}")
    return sorted({*each})


def load_results(
    results: Folders = None,
    *,
    sweep: str | None = None,
    keys: Iterable[str] | None = None,
    wide: bool = False,
) -> pd.DataFrame:
    """The result rows as a pandas frame.

    One row a number; of rows computed twice one is kept, ``ok`` before ``failed``.

    Args:
        results: the results folder, or several; ``results/`` or UNLEARNBENCH_RESULTS by default.
        sweep: only the cells of the sweep of that name.
        keys: only the rows with these keys.
        wide: one row a cell instead, one column a metric, utility beside the attack's own.

    Raises:
        FileNotFoundError: there is no such folder, or no such sweep in it.
        ValueError: a newer version has written rows that this one does not know how to read.
    """
    frame: pd.DataFrame = _plain(rows(results, sweep, keys), ROWS).to_pandas(split_blocks=True)
    return widen(frame) if wide else frame


def rows(
    results: Folders = None, sweep: str | None = None, keys: Iterable[str] | None = None
) -> pa.Table:
    """The result rows as they are read: strings as numbers of entries in a list.

    Args:
        results: as ``load_results`` has them.
        sweep: the same.
        keys: the same.
    """
    where = folders(results)
    table = _listed([folder / "rows" for folder in where], ROWS)
    newest = pa.compute.max(table["schema"]).as_py()
    if newest is not None and newest > SCHEMA_VERSION:
        told = f"this version reads up to {SCHEMA_VERSION}"
        raise ValueError(f"rows of schema {newest} in {where[0]}: {told}; update unlearnbench")
    table = _brought_up(table)
    if sweep is not None:
        listed = load_sweep(where, sweep)
        keys = {*listed["key"], *listed["utility_key"]}
    if keys is not None:
        chosen = pa.array(wanted(keys), pa.string())
        table = table.filter(pa.compute.is_in(table["key"].cast(pa.string()), chosen))
    return _deduplicated(table)


def _brought_up(table: pa.Table) -> pa.Table:
    """Rows in which ``model_key`` holds the key of utility rows, as it did up to schema 4, mended.

    Which model of the store they are of is not known.
    """
    own, other = (table[name].cast(pa.string()) for name in ("utility_key", "model_key"))
    if not own.null_count:
        return table
    earlier = own.is_null()
    mended = {
        "utility_key": pa.compute.if_else(earlier, other, own),
        "model_key": pa.compute.if_else(earlier, pa.scalar(None, pa.string()), other),
    }
    for name, column in mended.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, column.dictionary_encode())
    return table


def load_sweep(results: Folders, sweep: str) -> pd.DataFrame:
    """What a sweep asks for: ``key`` and ``utility_key`` of each cell, with rows or without.

    Args:
        results: the results folder, or several, of which each may have a part of it.
        sweep: its name.

    Raises:
        FileNotFoundError: there is no such sweep.
        ConfigError: it is no name.
    """
    return listed_cells(folders(results), sweep)


def listed_cells(where: Sequence[Path], sweep: str) -> pd.DataFrame:
    """The same of results folders that need not hold a row yet."""
    paths = [folder / "sweeps" / f"{sweep_name(sweep)}.parquet" for folder in where]
    there = [path for path in paths if path.exists()]
    if not there:
        known = ", ".join(sorted({name for one in where for name in sweeps(one)})) or "none"
        told = ", ".join(map(str, where))
        raise FileNotFoundError(f"no sweep {sweep} in {told}; there are: {known}")
    table, read = _whole(there, LISTED_CELLS, ["key", "utility_key", "model_key"])
    if not read:
        told = f"{there[0]} cannot be read: the command of the sweep {sweep} writes it again"
        raise ValueError(told)
    frame: pd.DataFrame = _plain(table, LISTED_CELLS).to_pandas()
    frame["utility_key"] = frame["utility_key"].fillna(frame.pop("model_key"))
    return frame.drop_duplicates("key", ignore_index=True)


LISTED_CELLS = SWEEP.append(pa.field("model_key", pa.string()))
"""The list of a sweep's cells as it is read: up to schema 4 ``model_key`` held ``utility_key``."""


def sweeps(results: Path) -> list[str]:
    """Names of the sweeps in a results folder, the latest last."""
    paths = damage.inside(results / "sweeps", ".parquet")
    return [path.stem for path in sorted(paths, key=lambda p: (p.lstat().st_mtime, p.stem))]


RUN = {
    "sweep": str,
    "began": str,
    "settings": {"paths": {"results": str, "store": str}},
    "words": [str],
    "launcher": {"name": str},
    "owner": OWNER,
}
"""The form of what every ``run.json`` says."""

ARRAYS = {"arrays": [{"name": str, "wave": int, "gpus": int, "tasks": int, "job": str}]}
"""The form of what that of a run on SLURM says besides."""


def runs(results: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each run's folder and what its ``run.json`` says, the latest first; damaged ones are named.

    Args:
        results: the results folder.
    """
    for folder in damage.inside(results / "runs")[::-1]:
        path = folder / "run.json"
        try:
            told = json.loads(path.read_text())
            if not damage.fits(told, RUN | (ARRAYS if "arrays" in told else {})):
                raise ValueError("it lacks what every run says")
        except (FileNotFoundError, NotADirectoryError):
            continue  # one that is just beginning, or that ended as it began
        except (OSError, ValueError, TypeError) as error:
            damage.passed_over(path, error, f"delete {folder}, and run the sweep again")
            continue
        if "refused" not in told:  # SLURM has taken it
            yield folder, told


def load_trials(results: str | Path | None = None) -> pd.DataFrame:
    """All trials of all searches as a pandas frame: one row a trial and seed.

    Args:
        results: the results folder; ``results/`` or UNLEARNBENCH_RESULTS by default.

    Raises:
        FileNotFoundError: nothing was tuned there.
    """
    folder = default_folder() if results is None else expanded(str(results))
    if not (folder / "trials").is_dir():
        raise FileNotFoundError(f"no trials in {folder}: run unlearnbench tune, or name another")
    frame: pd.DataFrame = _read(folder / "trials", TRIALS).to_pandas()
    order = ["dataset", "model", "train", "forget", "method", "study", "trial", "phase", "seed"]
    # The search before what was run again, as it was.
    frame = frame.sort_values(order, key=lambda c: c == "fresh" if c.name == "phase" else c)
    return frame.reset_index(drop=True)


def _deduplicated(table: pa.Table) -> pa.Table:
    """In the order of the cells, one row a (key, metric, step); what worked before what did not.

    On ranks instead of strings, so that a million rows take no longer than to read them.

    Args:
        table: its strings as numbers in a list, as they come back too.
    """
    table = table.unify_dictionaries().combine_chunks()
    key = _ranks(table["key"])
    status = table["status"].combine_chunks()
    worth = np.array([_RANK[word] for word in status.dictionary.to_pylist()], np.int8)
    mine = worth[status.indices.to_numpy()]
    best = np.full(key.max(initial=0) + 1, max(_RANK.values()), np.int8)
    for rank in sorted(_RANK.values(), reverse=True):
        best[key[mine == rank]] = rank
    # A cell that failed once and worked later has worked.
    rows = np.flatnonzero(mine == best[key])
    place = _places(table, [*CELL, "key", "metric", "step"])
    rows = rows[np.argsort(place[rows], kind="stable")]
    same = _places(table, ["key", "metric", "step"])
    _, first = np.unique(same[rows], return_index=True)
    rows = rows[np.sort(first)]
    return pa.table([_taken(column, rows) for column in table.columns], names=table.column_names)


def _taken(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.Array:
    """Some rows (n,) of a column; for a list of strings ten times as fast as Arrow itself."""
    whole = column.combine_chunks()
    if not pa.types.is_dictionary(whole.type):
        return whole.take(rows)
    codes = whole.indices.fill_null(-1).to_numpy()[rows]
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), whole.dictionary)


def _ranks(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The place (n,) of each value among the sorted distinct ones, from 1 on; of no value 0."""
    whole = column.combine_chunks()
    if not pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_encode()
    places = np.empty(len(whole.dictionary) + 1, np.int64)
    places[pa.compute.sort_indices(whole.dictionary).to_numpy()] = np.arange(1, len(places))
    places[-1] = 0
    found: NDArray[np.int64] = places[whole.indices.fill_null(-1).to_numpy()]
    return found


def _places(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """One number a row (n,) that sorts as these of its columns do, the first of them first."""
    found, size = np.zeros(len(table), np.int64), 1
    for name in names:
        rank = _ranks(table[name])
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


def compact(results: Path) -> dict[str, int]:
    """Make one file of the many that a sweep leaves; whoever reads meanwhile reads all rows.

    Rows that a better row stands for are left out: of a cell that failed once and worked later.

    Args:
        results: the results folder.

    Returns:
        How many files have become one, by table; 0 where there was one at most.
    """
    token, merged = secrets.token_hex(8), {}
    for name, schema in (("rows", ROWS), ("scores", SCORES), ("roc", ROC)):
        merged[name] = _compacted(results / name, schema, token)
    return merged


def _compacted(folder: Path, schema: pa.Schema, token: str) -> int:
    """Make one of a table's parts, named after a token; returns how many there were.

    What is deleted are the files that were read and no others: a part that has been written again
    since is another file of the same name. It is moved aside first, where readers still see it,
    and is known for the one that was read, or for another, when it cannot be replaced any more.
    """
    for left in folder.glob(".*.tmp"):  # of processes that were killed
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > DAY:
                left.unlink()
    for attempt in range(ATTEMPTS):
        try:
            files = {path: _identity(path) for path in _parts([folder])}
            table, read = _whole([*files], schema)
            break
        except FileNotFoundError:  # somebody else is at it too
            time.sleep(0.001 * attempt)
    else:
        return 0
    if len(read) < 2:
        return 0
    if "status" in schema.names:
        table = _deduplicated(table)
    write(folder, f"{token}-{len(read)}", _plain(table, schema), schema)
    for path in read:  # only now: between the two rows stand twice, and are read once
        aside = path.with_name(f"{path.stem}.{token}.parquet")
        with suppress(FileNotFoundError):
            path.rename(aside)
            if _identity(aside) == files[path]:
                aside.unlink()
    return len(read)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """What tells a file from another that has taken its name; a file is never written twice."""
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size


DAY = 86_400.0
"""Seconds after which a temporary file is taken to be left by a process that was killed."""
