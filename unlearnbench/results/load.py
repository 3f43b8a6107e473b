"""Result tables: the Arrow schemas, writing, reading. Imports no torch.

A part file is named by its content key and renamed into place: jobs never contend, and running
again overwrites instead of duplicating. A part that cannot be read is named and passed over.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from unlearnbench.config.arguments import LONGEST_NAME, expanded, sweep_name
from unlearnbench.core import damage
from unlearnbench.core.errors import ConfigError
from unlearnbench.results.frame import deduplicated, widen
from unlearnbench.results.parts import (
    decoded,
    is_complete,
    read_encoded,
    read_table,
    upgraded,
)
from unlearnbench.results.schema import (
    LISTED_CELLS,
    RANK,
    ROC,
    ROWS,
    SCHEMA_VERSION,
    SCORES,
    TRIALS,
)
from unlearnbench.store.lock import OWNER


def finished(results: Path) -> set[str]:
    """Keys whose rows are there, computed or skipped; those of failed cells are not."""
    table = read_table(results / "rows", ROWS, columns=["key", "status"])
    worked = table.filter(pa.compute.not_equal(table["status"], "failed"))
    return set(pa.compute.unique(worked["key"]).to_pylist())


def statuses(results: Path) -> pd.DataFrame:
    """What became of each key's rows, the best of each: status and reason, method and seed.

    Args:
        results: the results folder.
    """
    columns = ["key", "status", "reason", "method", "seed"]
    table = read_table(results / "rows", ROWS, columns)
    frame: pd.DataFrame = table.group_by(columns).aggregate([]).to_pandas()
    frame = frame.iloc[frame["status"].map(RANK).argsort(kind="stable")]
    return frame.drop_duplicates("key").reset_index(drop=True)


def load_scores(results: str | Path, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """What attacks gave each record they attacked; of a cell computed twice each score stands once.

    A cell may have several scores of one record and pool: those of several requests to one model.

    Args:
        results: the results folder.
        keys: of the cells; all by default.
    """
    table = read_table(Path(results) / "scores", SCORES)
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
    table = read_table(Path(results) / "roc", ROC)
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
    frame: pd.DataFrame = decoded(rows(results, sweep, keys), ROWS).to_pandas(split_blocks=True)
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
    table = read_encoded([folder / "rows" for folder in where], ROWS)
    newest = pa.compute.max(table["schema"]).as_py()
    if newest is not None and newest > SCHEMA_VERSION:
        told = f"this version reads up to {SCHEMA_VERSION}"
        raise ValueError(f"rows of schema {newest} in {where[0]}: {told}; update unlearnbench")
    table = upgraded(table)
    if sweep is not None:
        listed = load_sweep(where, sweep)
        keys = {*listed["key"], *listed["utility_key"]}
    if keys is not None:
        chosen = pa.array(wanted(keys), pa.string())
        table = table.filter(pa.compute.is_in(table["key"].cast(pa.string()), chosen))
    return deduplicated(table)


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
    table, read = is_complete(there, LISTED_CELLS, ["key", "utility_key", "model_key"])
    if not read:
        told = f"{there[0]} cannot be read: the command of the sweep {sweep} writes it again"
        raise ValueError(told)
    frame: pd.DataFrame = decoded(table, LISTED_CELLS).to_pandas()
    frame["utility_key"] = frame["utility_key"].fillna(frame.pop("model_key"))
    return frame.drop_duplicates("key", ignore_index=True)


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
    frame: pd.DataFrame = read_table(folder / "trials", TRIALS).to_pandas()
    order = ["dataset", "model", "train", "forget", "method", "study", "trial", "phase", "seed"]
    # The search before what was run again, as it was.
    frame = frame.sort_values(order, key=lambda c: c == "fresh" if c.name == "phase" else c)
    return frame.reset_index(drop=True)
