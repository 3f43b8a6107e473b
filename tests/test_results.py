"""Reading and writing of result tables: what is kept, joined, named and refused."""

import errno
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_store import as_user

from unlearnbench.core import damage
from unlearnbench.results import compact, load, schema
from unlearnbench.results import frame as frame_module
from unlearnbench.results import parts as parts_module
from unlearnbench.results.frame import deduplicated
from unlearnbench.results.load import load_results
from unlearnbench.results.parts import readable_parts
from unlearnbench.store.lock import me
from unlearnbench.sweep import run_record

ABOUT: dict[str, Any] = {
    "dataset": "digits",
    "model": "cnn",
    "train": "default",
    "forget": "random",
    "forget_hash": "f0",
    "method": "finetune",
    "defense": "none",
    "attack": "none",
    "overrides": "",
    "seed": 0,
    "n": 10,
    "status": "ok",
    "seconds": 1.5,
    "schema": 1,
}


def row(key: str, metric: str | None, value: float | None = None, **changed: Any) -> dict[str, Any]:
    return {**ABOUT, "key": key, "utility_key": key, "metric": metric, "value": value, **changed}


def failed(key: str, reason: str = "it broke", **changed: Any) -> dict[str, Any]:
    return row(key, None, status="failed", reason=reason, forget_hash=None, n=None, **changed)


def write(folder: Path, name: str, *rows: dict[str, Any]) -> Path:
    return parts_module.write(folder / "rows", name, rows, schema.ROWS)


def sweep(folder: Path, name: str, *keys: tuple[str, str]) -> None:
    listed = [{"sweep": name, "key": key, "utility_key": model} for key, model in keys]
    parts_module.write(folder / "sweeps", name, listed, schema.SWEEP)


UTILITY = [row("u", "test_acc", 0.9), row("u", "forget_acc", 0.8)]
ATTACKED = row("a", "mia_test", 0.6, attack="umia", utility_key="u")


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    write(tmp_path, "p", row("k", "test_acc", 0.25, step=3, overrides="split.val=0.3"))
    (found,) = load_results(tmp_path).to_dict("records")
    assert list(found) == schema.ROWS.names
    told = {name: found[name] for name in (*ABOUT, "metric", "value", "step")}
    assert told == {
        **ABOUT,
        "metric": "test_acc",
        "value": 0.25,
        "step": 3,
        "overrides": "split.val=0.3",
    }


@pytest.mark.parametrize("names", [("1", "2"), ("2", "1")])
def test_what_failed_once_and_worked_later_has_worked(
    names: tuple[str, str], tmp_path: Path
) -> None:
    write(tmp_path, names[0], failed("k"))
    write(tmp_path, names[1], row("k", "test_acc", 0.5), row("k", "rte", 2.0))
    found = load_results(tmp_path)
    assert list(found["metric"]) == ["rte", "test_acc"]
    assert set(found["status"]) == {"ok"}


def test_skipped_before_failed(tmp_path: Path) -> None:
    write(tmp_path, "1", failed("k"))
    write(tmp_path, "2", row("k", None, status="skipped", reason="on principle"))
    assert list(load_results(tmp_path)["status"]) == ["skipped"]


def test_a_number_computed_twice_is_one_row(tmp_path: Path) -> None:
    write(tmp_path, "1", *UTILITY, ATTACKED)
    write(tmp_path, "2", *UTILITY)
    write(tmp_path, "3", failed("b"))
    write(tmp_path, "4", failed("b"), row("u", "test_acc", 0.7, step=1))
    found = load_results(tmp_path)
    assert len(found) == 2 + 1 + 1 + 1
    assert not found.duplicated(["key", "metric", "step"]).any()


def test_order_is_that_of_the_cells_not_of_the_files(tmp_path: Path) -> None:
    cells = [row(f"k{seed}", "test_acc", 0.1, seed=seed) for seed in range(4)]
    for name, one in zip(("9", "3", "5", "1"), cells, strict=True):
        write(tmp_path / "a", name, one)
    write(tmp_path / "b", "all", *reversed(cells))
    first, second = load_results(tmp_path / "a"), load_results(tmp_path / "b")
    pd.testing.assert_frame_equal(first, second)
    assert list(first["seed"]) == [0, 1, 2, 3]


def test_wide_is_one_row_a_cell_with_its_models_utility(tmp_path: Path) -> None:
    alone = row("v", "test_acc", 0.5, method="original")
    write(tmp_path, "p", *UTILITY, ATTACKED, alone)
    write(tmp_path, "q", failed("w", seed=2))
    wide = load_results(tmp_path, wide=True).set_index("key")
    assert set(wide.index) == {"a", "v", "w"}  # u is joined to a, and no cell of its own
    assert wide.loc["a", ["test_acc", "forget_acc", "mia_test"]].tolist() == [0.9, 0.8, 0.6]
    assert wide.loc["a", "attack"] == "umia"
    assert wide.loc["v", "test_acc"] == 0.5
    assert pd.isna(wide.loc["v", "mia_test"])
    assert wide.loc["w", "status"] == "failed"
    assert wide.loc["w", "reason"] == "it broke"
    assert wide.loc["w", ["test_acc", "mia_test"]].isna().all()


def test_wide_shows_the_cell_whose_attack_failed_with_its_utility(tmp_path: Path) -> None:
    write(tmp_path, "p", *UTILITY, failed("a", attack="umia", utility_key="u"))
    (cell,) = load_results(tmp_path, wide=True).to_dict("records")
    assert (cell["status"], cell["test_acc"]) == ("failed", 0.9)


def test_wide_leaves_out_what_was_measured_along_the_way(tmp_path: Path) -> None:
    write(tmp_path, "p", *UTILITY, row("u", "test_acc", 0.1, step=1))
    assert load_results(tmp_path, wide=True)["test_acc"].tolist() == [0.9]


def test_wide_of_nothing_is_nothing(tmp_path: Path) -> None:
    write(tmp_path, "p")
    assert load_results(tmp_path, wide=True).empty


def test_a_sweep_is_its_cells_and_their_models_utility(tmp_path: Path) -> None:
    write(tmp_path, "p", *UTILITY, ATTACKED, row("v", "test_acc", 0.5))
    sweep(tmp_path, "study", ("a", "u"))
    assert set(load_results(tmp_path, sweep="study")["key"]) == {"a", "u"}
    assert load_results(tmp_path, sweep="study", wide=True)["key"].tolist() == ["a"]


def test_an_unknown_sweep_is_told_with_those_there_are(tmp_path: Path) -> None:
    write(tmp_path, "p", *UTILITY)
    sweep(tmp_path, "study", ("a", "u"))
    sweep(tmp_path, "another", ("a", "u"))
    with pytest.raises(FileNotFoundError, match=r"no sweep studi in .*; there are: another, study"):
        load_results(tmp_path, sweep="studi")


def test_keys_select(tmp_path: Path) -> None:
    write(tmp_path, "p", *UTILITY, ATTACKED)
    assert load_results(tmp_path, keys=iter(["a"]))["key"].tolist() == ["a"]


def test_no_results_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=f"no results in {tmp_path}: run a sweep"):
        load_results(tmp_path)
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path / "named"))
    with pytest.raises(FileNotFoundError, match=f"no results in {tmp_path / 'named'}: "):
        load_results()


def test_finished_are_computed_or_skipped(tmp_path: Path) -> None:
    assert load.finished(tmp_path) == set()
    skipped = row("s", None, status="skipped", reason="on principle")
    write(tmp_path, "p", *UTILITY, failed("w"), skipped)
    assert load.finished(tmp_path) == {"u", "s"}


def test_a_part_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "p", *UTILITY)
    (tmp_path / "rows" / ".q.123.tmp").write_bytes(b"half a fi")
    assert len(load_results(tmp_path)) == 2
    assert load.finished(tmp_path) == {"u"}


def test_equal_rows_are_equal_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, "p", *UTILITY, ATTACKED) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    other = write(tmp_path / "c", "p", *UTILITY, {**ATTACKED, "value": 0.61})
    assert other.read_bytes() != first.read_bytes()


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "p", *UTILITY)
    before = path.read_bytes()

    def disk_full(table: object, file: BinaryIO, **_: object) -> None:
        file.write(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, "p", ATTACKED)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def by_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """What loading must come to, in pandas' own words."""
    best = frame["status"].map({"ok": 0, "skipped": 1, "failed": 2})
    frame = frame[best == best.groupby(frame["key"]).transform("min")]
    order = [*schema.CELL, "key", "metric", "step"]
    frame = frame.sort_values(order, kind="stable", na_position="first")
    return frame.drop_duplicates(["key", "metric", "step"]).reset_index(drop=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("most", [2**62, 50])
def test_loaded_rows_are_those_of_pandas(
    tmp_path: Path, seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows twice and three times, nulls everywhere, columns that differ where keys do not."""
    monkeypatch.setattr(frame_module, "LARGEST", most)
    draw = random.Random(seed)
    words = [None, "", "a", "B", "é", "ab", "a b"]
    for name in "pqrs":
        rows = [
            row(
                draw.choice(["k", "l", "m", "ü"]),
                draw.choice(["x", "y", None]),
                draw.random(),
                step=draw.choice([None, 0, 7, -2]),
                seed=draw.choice([0, 3, 11, 2]),
                status=draw.choice(["ok", "failed", "skipped"]),
                **{column: draw.choice(words) for column in ("dataset", "overrides", "reason")},
            )
            for _ in range(40)
        ]
        parts_module.write(tmp_path / "rows", name, rows, schema.ROWS)
    paths = sorted((tmp_path / "rows").glob("*.parquet"))
    expected = by_pandas(pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True))
    pd.testing.assert_frame_equal(load_results(tmp_path), expected, check_dtype=False)
    assert load_results(tmp_path).dtypes["dataset"] == "str"


def test_an_empty_folder_of_rows_is_an_empty_frame(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    assert list(load_results(tmp_path).columns) == schema.ROWS.names
    assert len(load_results(tmp_path, keys=["a"])) == 0
    assert load.finished(tmp_path) == set()


def test_rows_of_an_earlier_schema_are_read(tmp_path: Path) -> None:
    """Columns that are new since are null."""
    old = schema.ROWS.remove(schema.ROWS.names.index("threat"))
    parts_module.write(tmp_path / "rows", "p", [row("k", "x", 1.0)], old)
    write(tmp_path, "q", row("l", "x", 1.0, threat="all"))
    assert load_results(tmp_path).set_index("key")["threat"].to_dict() == {
        "k": pytest.approx(float("nan"), nan_ok=True),
        "l": "all",
    }


def test_reading_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    write(tmp_path, "p", *UTILITY, ATTACKED)
    text = f"""
import sys
from unlearnbench import load_results
print(load_results({str(tmp_path)!r}, wide=True)["mia_test"].tolist())
print(sys.modules.keys() & {{"torch", "hydra", "omegaconf", "lightning", "sklearn", "rich"}})
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[0.6]\nset()\n"), done.stderr


# ---------------------------------------------------------------------------------------------
# Beside each other: writers, readers, compaction.

KEYS = 20


def _writes(folder: Path, reads: int, seed: int) -> None:
    """Retry all cells again and again, of which each has worked at last."""
    draw = random.Random(seed)
    for number in range(reads):
        key = f"k{draw.randrange(KEYS)}"
        write(folder, key, row(key, "x", float(number)))


def _reads(folder: Path, reads: int, lost: Any) -> None:
    keys = {f"k{number}" for number in range(KEYS)}
    for _ in range(reads):
        lost.value += load.finished(folder) != keys
        lost.value += set(load_results(folder)["status"]) != {"ok"}


@pytest.mark.tried(
    "1,000 reads and writes of rows beside 100 compactions",
    "no row is lost and no reader fails",
)
@pytest.mark.parametrize(
    ("times", "compactions"), [(60, 12), pytest.param(500, 100, marks=pytest.mark.slow)]
)
def test_nothing_is_lost_beside_compactions(tmp_path: Path, times: int, compactions: int) -> None:
    for number in range(KEYS):
        write(tmp_path, f"k{number}", row(f"k{number}", "x", 0.0))
    fork = multiprocessing.get_context("fork")
    lost = fork.Value("i", 0)
    beside = [
        fork.Process(target=_writes, args=(tmp_path, times, 1)),
        fork.Process(target=_reads, args=(tmp_path, times // 2, lost)),
    ]
    for process in beside:
        process.start()
    for _ in range(compactions):
        compact.compact(tmp_path)
        time.sleep(0.01)
    for process in beside:
        process.join()
    assert [process.exitcode for process in beside] == [0, 0]
    assert lost.value == 0
    assert load.finished(tmp_path) == {f"k{number}" for number in range(KEYS)}


@pytest.mark.tried(
    "a part is written again while a compaction reads",
    "the compaction deletes the files that it read and no others",
)
def test_a_part_written_again_since_it_was_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "p", failed("k"))
    write(tmp_path, "q", row("l", "x", 1.0))
    merge = deduplicated

    def retried(table: Any) -> Any:
        write(tmp_path, "p", row("k", "x", 2.0))
        return merge(table)

    monkeypatch.setattr(compact, "deduplicated", retried)
    compact.compact(tmp_path)
    monkeypatch.undo()
    assert load_results(tmp_path).set_index("key")["value"].to_dict() == {"k": 2.0, "l": 1.0}
    assert compact.compact(tmp_path)["rows"] == 2
    assert load_results(tmp_path).set_index("key")["value"].to_dict() == {"k": 2.0, "l": 1.0}


@pytest.mark.tried(
    "a part is written again, or compacted by another, between any two steps of a compaction",
    "no row is lost, and a reader at that moment finds all",
)
@pytest.mark.parametrize("what", ["written", "compacted"])
@pytest.mark.parametrize("call", ["rename", "unlink", "replace"])
@pytest.mark.parametrize("number", range(3))
def test_a_compaction_interrupted_at_each_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, call: str, number: int
) -> None:
    for key in "klm":
        write(tmp_path, key, row(key, "x", 1.0))
    plain, calls, after = getattr(Path, call), [], {*"klm"}

    def between(path: Path, *about: Any, **more: Any) -> Any:
        if path.suffix != ".tmp" or call == "replace":
            calls.append(path)
            if len(calls) == number + 1 and what == "written":
                write(tmp_path, "k", row("k", "x", 2.0), row("new", "x", 3.0))
                after.add("new")
            elif len(calls) == number + 1:
                compact.compact(tmp_path)
            assert load.finished(tmp_path) >= after
        return plain(path, *about, **more)

    monkeypatch.setattr(Path, call, between)
    compact.compact(tmp_path)
    monkeypatch.undo()
    for _ in range(2):
        assert load.finished(tmp_path) == after
        compact.compact(tmp_path)


@pytest.mark.tried("a listed part has gone when it is read", "the table is listed and read again")
def test_a_reader_lists_again_where_a_part_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "p", row("k", "x", 1.0))
    write(tmp_path, "q", row("l", "x", 1.0))
    parts, compacted = readable_parts, []

    def late(folders: Any) -> Any:
        paths = parts(folders)
        if not compacted:
            compacted.append(True)
            compact.compact(tmp_path)
        return paths

    monkeypatch.setattr(parts_module, "readable_parts", late)
    assert load.finished(tmp_path) == {"k", "l"}


# ---------------------------------------------------------------------------------------------
# What cannot be read.


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4, 200):
        content[place] ^= 0xFF
    path.write_bytes(content)


def _of_another_schema(path: Path) -> None:
    pd.DataFrame({"one": [1], "two": ["x"]}).to_parquet(path)


def _of_other_types(path: Path) -> None:
    pd.DataFrame({"key": ["k"], "status": ["ok"], "seed": ["three"]}).to_parquet(path)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "no Parquet": lambda path: path.write_bytes(b"PAR1 and no more"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "flipped bytes": _flipped,
    "another schema": _of_another_schema,
    "other types": _of_other_types,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.tried(
    "a part of a table is empty, cut, overwritten or of another schema",
    "the part is named with its repair, and all others are read",
)
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_part_is_named_and_the_rest_is_read(tmp_path: Path, name: str) -> None:
    for part in "abcde":
        write(tmp_path, part, row(part, "x", 1.0))
    path = tmp_path / "rows" / "c.parquet"
    DAMAGE[name](path)
    with pytest.warns(damage.DamagedFile, match=r"rows/c.parquet is passed over: .*; delete it"):
        assert set(load_results(tmp_path)["key"]) == {*"abde"}
    if name not in ("flipped bytes", "other types"):  # in columns that are not read for this
        with pytest.warns(damage.DamagedFile):
            assert load.finished(tmp_path) == {*"abde"}
    with pytest.warns(damage.DamagedFile):
        assert compact.compact(tmp_path)["rows"] == 4
    assert path.exists()


TOLD = {
    "sweep": "x",
    "began": "2026-01-01T00:00:00",
    "settings": {"paths": {"results": "r", "store": "s"}},
    "words": [],
    "launcher": {"name": "local"},
    "owner": asdict(me()),
}


@pytest.mark.tried(
    "one run.json of several is damaged", "it is named with its repair, and the others are read"
)
@pytest.mark.parametrize(
    "content",
    [
        *("", "[1]", "{}", "\x00\xff"),
        json.dumps({**TOLD, "owner": {}}),
        json.dumps({**TOLD, "words": [1]}),
        json.dumps({**TOLD, "settings": {}}),
        json.dumps({**TOLD, "arrays": [{}]}),
    ],
)
def test_a_damaged_run_is_named_and_the_rest_is_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "runs" / "2-x").mkdir(parents=True)
    (tmp_path / "runs" / "1-x").mkdir()
    (tmp_path / "runs" / "2-x" / "run.json").write_text(content, encoding="latin-1")
    (tmp_path / "runs" / "1-x" / "run.json").write_text(json.dumps(TOLD))
    with pytest.warns(damage.DamagedFile, match=r"2-x/run.json is passed over"):
        assert [run.folder.name for run in run_record.runs(tmp_path, "x")] == ["1-x"]


@pytest.mark.tried(
    "the table of a run's jobs is cut, of another schema, or a folder",
    "it is named with its repair, and is no table without jobs",
)
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_table_of_jobs_is_named(tmp_path: Path, name: str) -> None:
    run = run_record.Run(tmp_path, {})
    assert run_record.jobs(run).empty  # of a run that was killed before it wrote the table
    job = dict.fromkeys(run_record.JOBS.names, "x") | {"wave": 1, "seed": 0, "cells": []}
    path = parts_module.write(tmp_path, "jobs", [job], run_record.JOBS)
    assert len(run_record.jobs(run)) == 1
    DAMAGE[name](path)
    with pytest.warns(
        damage.DamagedFile, match=rf"jobs.parquet is passed over: .*delete {run.folder}"
    ):
        assert run_record.jobs(run).empty
    parts_module.write(tmp_path / "half", "jobs", [{"key": "k"}], run_record.JOBS)
    with pytest.warns(damage.DamagedFile, match=r"the column \w+ is missing"):
        assert run_record.jobs(run_record.Run(tmp_path / "half", {})).empty


@pytest.mark.tried(
    "this process has too many open files, or no memory, while it reads parts",
    "the error is raised: no part is called damaged",
)
@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_what_a_process_lacks_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def dataset(*_: object, **__: object) -> None:
        raise error

    write(tmp_path, "a", row("a", "x", 1.0))
    monkeypatch.setattr("pyarrow.dataset.dataset", dataset)
    with pytest.raises(type(error)):
        load_results(tmp_path)


@pytest.mark.tried(
    "a part, a run.json or the folder of rows may not be read by this user",
    "the part is named with that reason; rows of a folder are not taken for none",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_may_not_be_read_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("private")
    for above in (folder, *folder.parents):
        above.chmod(above.stat().st_mode | 0o055)
    write(folder, "a", row("a", "x", 1.0))
    write(folder, "b", row("b", "x", 1.0)).chmod(0)
    (folder / "runs" / "1-x").mkdir(parents=True)
    (folder / "runs" / "1-x").chmod(0o700)

    def reads() -> None:
        with pytest.warns(damage.DamagedFile, match="b.parquet .*give this user permission"):
            assert set(load_results(folder)["key"]) == {"a"}
        with (
            pytest.warns(damage.DamagedFile, match=r"run.json .*give this user permission"),
            pytest.raises(ValueError, match="no sweep has been run"),
        ):
            run_record.runs(folder)

    assert as_user(11111, reads) == 0
    (folder / "rows").chmod(0o700)

    def finds_none() -> None:
        with pytest.raises(PermissionError, match="rows"):
            load.finished(folder)

    assert as_user(11111, finds_none) == 0


@pytest.mark.tried(
    "a folder stands where the list of a sweep's cells should be",
    "it is named; the sweep is not called unknown",
)
def test_a_damaged_list_of_cells_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", row("a", "x", 1.0))
    (tmp_path / "sweeps" / "s.parquet").mkdir(parents=True)
    with (
        pytest.warns(damage.DamagedFile, match=r"s.parquet is passed over"),
        pytest.raises(ValueError, match="the command of the sweep s writes it again"),
    ):
        load_results(tmp_path, sweep="s")
