"""The store: once, whole, or not at all."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest

from unlearnbench.store import Damaged, Store

KEY = "ab" * 32


def make(folder: Path) -> dict[str, Any]:
    (folder / "data").write_bytes(b"1234")
    return {"seconds": 1.5}


def test_made_once_and_loaded_after(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def counted(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        return make(folder)

    for _ in range(2):
        entry = store.get(KEY, counted)
        assert entry.read("data") == b"1234"
        assert entry.manifest["seconds"] == 1.5
    assert len(calls) == 1
    assert store.path(KEY) == tmp_path / "ab" / KEY


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def broken(folder: Path) -> dict[str, Any]:
        make(folder)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="luck"):
        store.get(KEY, broken)
    assert not store.has(KEY)
    assert [p.name for p in (tmp_path / "ab").iterdir()] == [f"{KEY}.lock"]
    assert store.get(KEY, make).read("data") == b"1234"


@pytest.mark.parametrize("state", ["no manifest", "temporary"])
def test_what_a_crash_left_is_no_artifact(tmp_path: Path, state: str) -> None:
    store = Store(tmp_path)
    left = store.path(KEY) if state == "no manifest" else store.path(KEY).with_suffix(".tmp")
    left.mkdir(parents=True)
    (left / "data").write_bytes(b"half")
    assert not store.has(KEY)
    assert store.get(KEY, make).read("data") == b"1234"


def test_tampering_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = store.get(KEY, make)
    (entry.path / "data").write_bytes(b"12345")
    with pytest.raises(Damaged, match="delete"):
        store.load(KEY).read("data")
    (entry.path / "data").unlink()
    with pytest.raises(Damaged):
        store.load(KEY).read("data")
    with pytest.raises(Damaged):
        store.load(KEY).read("other")


def _slowly(folder: Path) -> dict[str, Any]:
    with (folder.parent.parent / "made").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.3)
    return make(folder)


def _ask(root: Path) -> None:
    assert Store(root).get(KEY, _slowly).read("data") == b"1234"


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    asking = [context.Process(target=_ask, args=(tmp_path,)) for _ in range(4)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert [process.exitcode for process in asking] == [0] * 4
    assert len((tmp_path / "made").read_text().splitlines()) == 1


def test_the_lock_of_a_killed_maker_does_not_stay(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    maker = context.Process(target=_ask, args=(tmp_path,))
    maker.start()
    while not (tmp_path / "made").is_file():
        time.sleep(0.01)
    maker.kill()
    maker.join()
    assert not Store(tmp_path).has(KEY)
    assert Store(tmp_path).get(KEY, make).read("data") == b"1234"


def test_a_key_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Store(tmp_path).path("../../etc/passwd")
