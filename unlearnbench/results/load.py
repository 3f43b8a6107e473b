"""Reading of result tables. Imports no torch.

A part file is named by its content key and renamed into place: concurrent jobs do not conflict,
and a repeated run overwrites instead of duplicating. An unreadable part is reported and skipped.
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
    read_encoded,
    read_parts,
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
    """Keys whose rows are ``ok`` or ``skipped``; keys of failed cells are excluded."""
    table = read_table(results / "rows", ROWS, columns=["key", "status"])
    settled = table.filter(pa.compute.not_equal(table["status"], "failed"))
    return set(pa.compute.unique(settled["key"]).to_pylist())


def statuses(results: Path) -> pd.DataFrame:
    """The best status of each key, with its reason, method and seed.

    Args:
        results: the results folder.
    """
    columns = ["key", "status", "reason", "method", "seed"]
    table = read_table(results / "rows", ROWS, columns)
    frame: pd.DataFrame = table.group_by(columns).aggregate([]).to_pandas()
    frame = frame.iloc[frame["status"].map(RANK).argsort(kind="stable")]
    return frame.drop_duplicates("key").reset_index(drop=True)


def load_scores(results: str | Path, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """The attacks' score of each record; duplicate scores of a cell are dropped.

    A cell has several scores of one record and pool if several requests are made to one model.

    Args:
        results: the results folder.
        keys: keys of the cells; all by default.
    """
    table = read_table(Path(results) / "scores", SCORES)
    if keys is not None:
        table = table.filter(pa.compute.is_in(table["key"], pa.array(wanted(keys), pa.string())))
    frame: pd.DataFrame = table.to_pandas()
    numbered = frame["key"].isin(frame.loc[frame["place"].notna(), "key"])
    frame = frame[frame["place"].notna() | ~numbered]
    return frame.drop_duplicates(["key", "place", "pool", "row"]).drop(columns="place")


def load_roc(results: str | Path, keys: Iterable[str]) -> pd.DataFrame:
    """The ROC curves of cells, one row per point; duplicate points are dropped.

    Args:
        results: the results folder.
        keys: keys of the cells.
    """
    table = read_table(Path(results) / "roc", ROC)
    chosen = pa.compute.is_in(table["key"], pa.array(wanted(keys), pa.string()))
    frame: pd.DataFrame = table.filter(chosen).to_pandas()
    return frame.drop_duplicates(["key", "fpr"])


def default_folder() -> Path:
    """The environment variable UNLEARNBENCH_RESULTS, or ``results/`` if it is not set."""
    return expanded(os.environ.get("UNLEARNBENCH_RESULTS", "results"))


Folders = str | Path | Sequence[str | Path] | None
"""A results folder, or those of several machines; None is the default folder."""


def folders(results: Folders) -> list[Path]:
    """The results folders as a list.

    Raises:
        FileNotFoundError: a folder has no rows.
        ConfigError: the argument is neither a folder nor a list of folders.
    """
    candidates = results if isinstance(results, list | tuple) else [results]
    if not candidates or not all(isinstance(folder, str | Path | None) for folder in candidates):
        message = "must be a folder, or a list of folders"
        raise ConfigError(f"results={results!r:.{LONGEST_NAME}}: {message}")
    paths = [default_folder() if folder is None else expanded(str(folder)) for folder in candidates]
    for folder in paths:
        if not (folder / "rows").is_dir():
            raise FileNotFoundError(f"no results in {folder}: run a sweep, or name another folder")
    return paths


def one_folder(results: Folders) -> Path:
    """The results folder, where only one is valid.

    Raises:
        ConfigError: the argument is no folder, or several.
    """
    if len(listed := folders(results)) > 1:
        raise ConfigError(f"results: must be one folder here, not {len(listed)}")
    return listed[0]


def wanted(keys: Iterable[str]) -> list[str]:
    """Distinct keys of cells or rows in ascending order; a string is one key.

    Raises:
        ConfigError: a key is not a string.
    """
    listed = list(keys) if isinstance(keys, Iterable) and not isinstance(keys, str) else [keys]
    if invalid := [key for key in listed if not isinstance(key, str)]:
        raise ConfigError(f"keys: must be texts as in the column key, not {invalid[0]!r}")
    return sorted({*listed})


def load_results(
    results: Folders = None,
    *,
    sweep: str | None = None,
    keys: Iterable[str] | None = None,
    wide: bool = False,
) -> pd.DataFrame:
    """The result rows as a pandas frame with plain columns; see ``public.load_results``."""
    frame: pd.DataFrame = decoded(rows(results, sweep, keys), ROWS).to_pandas(split_blocks=True)
    return widen(frame) if wide else frame


def rows(
    results: Folders = None, sweep: str | None = None, keys: Iterable[str] | None = None
) -> pa.Table:
    """The result rows as an Arrow table with dictionary-encoded strings.

    Args:
        results: as in ``public.load_results``.
        sweep: as in ``public.load_results``.
        keys: as in ``public.load_results``.
    """
    paths = folders(results)
    table = read_encoded([folder / "rows" for folder in paths], ROWS)
    newest = pa.compute.max(table["schema"]).as_py()
    if newest is not None and newest > SCHEMA_VERSION:
        message = f"this version reads up to {SCHEMA_VERSION}"
        raise ValueError(f"rows of schema {newest} in {paths[0]}: {message}; update unlearnbench")
    table = upgraded(table)
    if sweep is not None:
        cells = load_sweep(paths, sweep)
        keys = {*cells["key"], *cells["utility_key"]}
    if keys is not None:
        chosen = pa.array(wanted(keys), pa.string())
        table = table.filter(pa.compute.is_in(table["key"].cast(pa.string()), chosen))
    return deduplicated(table)


def load_sweep(results: Folders, sweep: str) -> pd.DataFrame:
    """``key`` and ``utility_key`` of each cell of a sweep, with rows or without.

    Args:
        results: the results folder, or several, of which each may have a part of the sweep.
        sweep: name of the sweep.

    Raises:
        FileNotFoundError: there is no such sweep.
        ConfigError: the name is not valid.
    """
    return listed_cells(folders(results), sweep)


def listed_cells(where: Sequence[Path], sweep: str) -> pd.DataFrame:
    """As ``load_sweep``, for results folders that may have no rows yet."""
    paths = [folder / "sweeps" / f"{sweep_name(sweep)}.parquet" for folder in where]
    existing = [path for path in paths if path.exists()]
    if not existing:
        names = ", ".join(sorted({name for folder in where for name in sweeps(folder)})) or "none"
        searched = ", ".join(map(str, where))
        raise FileNotFoundError(f"no sweep {sweep} in {searched}; there are: {names}")
    table, readable = read_parts(existing, LISTED_CELLS, ["key", "utility_key", "model_key"])
    if not readable:
        message = f"{existing[0]} cannot be read: the command of the sweep {sweep} writes it again"
        raise ValueError(message)
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
"""Required form of every ``run.json``."""

ARRAYS = {"arrays": [{"name": str, "wave": int, "gpus": int, "tasks": int, "job": str}]}
"""Additional form of the ``run.json`` of a SLURM run."""


def runs(results: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder and the ``run.json`` of each run, latest first; damaged files are reported.

    Args:
        results: the results folder.
    """
    for folder in damage.inside(results / "runs")[::-1]:
        path = folder / "run.json"
        try:
            record = json.loads(path.read_text())
            if not damage.fits(record, RUN | (ARRAYS if "arrays" in record else {})):
                raise ValueError("it lacks what every run says")
        except (FileNotFoundError, NotADirectoryError):
            continue  # the run has not written it yet, or ended before
        except (OSError, ValueError, TypeError) as error:
            damage.passed_over(path, error, f"delete {folder}, and run the sweep again")
            continue
        if "refused" not in record:  # SLURM has accepted the run
            yield folder, record


def load_trials(results: str | Path | None = None) -> pd.DataFrame:
    """All trials of all searches as a pandas frame: one row per trial and seed.

    Args:
        results: the results folder; ``results/`` or UNLEARNBENCH_RESULTS by default.

    Raises:
        FileNotFoundError: the folder has no trials.
    """
    folder = default_folder() if results is None else expanded(str(results))
    if not (folder / "trials").is_dir():
        raise FileNotFoundError(f"no trials in {folder}: run unlearnbench tune, or name another")
    frame: pd.DataFrame = read_table(folder / "trials", TRIALS).to_pandas()
    order = ["dataset", "model", "train", "forget", "method", "study", "trial", "phase", "seed"]
    # The phase search before the phase fresh.
    frame = frame.sort_values(order, key=lambda c: c == "fresh" if c.name == "phase" else c)
    return frame.reset_index(drop=True)
