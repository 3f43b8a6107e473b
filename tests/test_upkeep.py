"""Looking after a store: what is damaged is told, what is needed stays, what is left goes."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cells import Cells
from method.bench import same
from test_lock import elsewhere, put
from test_store import KEY, as_user, make
from torch import Tensor

from unlearnbench.cli import commands
from unlearnbench.cli import store as store_module
from unlearnbench.config import compose
from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import ConfigError, Failed, Skip
from unlearnbench.pipeline import models as models_module
from unlearnbench.pipeline import outputs, rows, trace
from unlearnbench.pipeline.models import WEIGHTS, _run, unlearned, white_box
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.results import load
from unlearnbench.store import maintenance
from unlearnbench.store.artifacts import MANIFEST, SWEEPS, Damaged, Store
from unlearnbench.sweep import local as launch
from unlearnbench.sweep import plan

OTHER = "cd" * 32
DAY = 24 * maintenance.HOUR

TINY = ["dataset=breast_cancer", "model=logreg", "train.call.epochs=1"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for key in (KEY, OTHER):
        store.get(key, make)
    return store


def command(store: Store, capsys: Any, *words: str) -> tuple[bool, str]:
    fine = store_module.command([*words, f"paths.store={store.root}"])
    return fine, capsys.readouterr().out


def age(path: Path, seconds: float) -> None:
    inside = list(path.iterdir()) if path.is_dir() else []
    for each in (*inside, path):
        touched = each.stat().st_mtime - seconds
        os.utime(each, (touched, touched))


# ---------------------------------------------------------------------------------------------
# verify


def test_a_whole_store_is_whole(store: Store, capsys: Any) -> None:
    assert command(store, capsys, "verify") == (True, "2 artifacts, 0 files damaged\n")


def _flip(path: Path) -> None:
    (path / "data").write_bytes(b"1235")


def _misplace(path: Path) -> None:
    text = (path / MANIFEST).read_text()
    (path / MANIFEST).write_text(text.replace(OTHER, KEY))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = {
    "is not what was written": _flip,
    "is missing": lambda path: (path / "data").unlink(),
    "no manifest": lambda path: (path / MANIFEST).unlink(),
    "no manifest that can be read": lambda path: (path / MANIFEST).write_text("{"),
    "holds the artifact": _misplace,
    "cannot be read: Is a directory": lambda path: _folder(path / "data"),
    "no manifest that can": lambda path: (path / MANIFEST).write_text("[]"),
    "manifest that can be read": lambda path: _folder(path / MANIFEST),
}


@pytest.mark.parametrize("told", DAMAGE)
def test_damage_is_told_with_its_place(store: Store, capsys: Any, told: str) -> None:
    DAMAGE[told](store.path(OTHER))
    fine, said = command(store, capsys, "verify")
    assert not fine
    assert said.startswith(f"{store.path(OTHER)}")
    assert told in said.splitlines()[0]
    assert "2 artifacts, 1 files damaged" in said
    for words in (["du"], ["gc", "--days=0", "store.keep=predictions"]):
        assert command(store, capsys, *words)[0]


def test_a_file_that_was_dropped_is_not_missing(store: Store, capsys: Any) -> None:
    store.drop(KEY, "data")
    assert command(store, capsys, "verify")[0]
    assert not (store.path(KEY) / "data").exists()
    assert store.load(KEY).manifest["dropped"].keys() == {"data"}
    store.drop(KEY, "data")
    assert store.load(KEY).manifest["dropped"].keys() == {"data"}


# ---------------------------------------------------------------------------------------------
# gc


def waste(store: Store, **changes: Any) -> maintenance.Waste:
    return maintenance.waste(store, **{"days": 1, "keep": "all"} | changes)


def test_what_a_sweep_needs_stays_however_old(store: Store) -> None:
    for key in (KEY, OTHER):
        age(store.path(key), 100 * DAY)
    store.refer("mine", [KEY])
    assert waste(store).artifacts == [OTHER]
    store.refer("somebody_elses", [OTHER])
    assert waste(store).artifacts == []
    store.refer("mine", [OTHER])
    assert waste(store).artifacts == [KEY]


@pytest.mark.tried(
    "the list of what a sweep needs is empty, overwritten, or a folder",
    "it is named, and gc deletes nothing",
)
@pytest.mark.parametrize("content", [b"", b"\xff\x00", KEY[:30].encode(), None])
def test_a_damaged_list_of_what_is_needed_deletes_nothing(
    store: Store, capsys: Any, content: bytes | None
) -> None:
    store.refer("mine", [KEY])
    path = store.root / SWEEPS / "mine.txt"
    _folder(path) if content is None else path.write_bytes(content)
    with pytest.raises((Damaged, OSError), match=r"mine\.txt"):
        command(store, capsys, "gc", "--delete", "--days=0")
    assert store.has(KEY)
    if content is not None:
        store.refer("mine", [KEY])  # as the sweep's command does
        assert store.references() == {"mine": {KEY}}


@pytest.mark.tried(
    "gc is run by a user who may not read what sweeps need", "it is refused, and deletes nothing"
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_gc_by_a_user_who_may_not_read_what_is_needed(store: Store) -> None:
    store.refer("mine", [KEY])
    for above in (store.root, *store.root.parents):
        above.chmod(above.stat().st_mode | 0o055)
    (store.root / SWEEPS).chmod(0o700)

    def looks() -> None:
        with pytest.raises(PermissionError, match=SWEEPS):
            store.references()

    assert as_user(11111, looks) == 0


def test_what_no_sweep_needs_stays_while_it_is_young(store: Store) -> None:
    age(store.path(KEY), 1.5 * DAY)
    assert waste(store).artifacts == [KEY]
    assert waste(store, days=2).artifacts == []


def test_nothing_is_deleted_unless_asked(store: Store, capsys: Any) -> None:
    store.refer("mine", [KEY])
    for key in (KEY, OTHER):
        age(store.path(key), 8 * DAY)
    _, said = command(store, capsys, "gc")
    assert "needed by 1 sweeps: mine" in said
    assert "1 artifacts that none of them needs, older than 7 days" in said
    assert said.endswith("nothing is deleted without --delete\n")
    assert store.has(OTHER)
    command(store, capsys, "gc", "--delete")
    assert not store.path(OTHER).exists()
    assert store.load(KEY).read("data") == b"1234"
    assert "0 artifacts" in command(store, capsys, "gc")[1]


def leave(store: Store) -> list[Path]:
    """All that a killed process may have left of an artifact, and a version of long ago."""
    held = store._beside("ef" * 32, "held")
    held.parent.mkdir(parents=True)
    put(held, elsewhere())
    paths = [held]
    for name in ("theirs.tmp", "held.other.claim"):
        paths.append(store._beside("ef" * 32, name))
        paths[-1].mkdir()
        (paths[-1] / "data").write_bytes(b"half")
    for name in ("unfinished.0123.tmp", "lock"):
        paths.append(store._beside("ef" * 32, name))
        paths[-1].touch()
    paths.append(held.parent / ".0123.clock")
    paths[-1].touch()
    return paths


def test_what_dead_processes_left_goes_after_an_hour(store: Store, capsys: Any) -> None:
    paths = leave(store)
    assert waste(store).left == []
    for path in paths:
        age(path, maintenance.HOUR + 5)
    assert sorted(waste(store).left) == sorted(paths)
    command(store, capsys, "gc", "--delete")
    assert list(paths[0].parent.iterdir()) == []


def test_what_somebody_is_making_stays_however_long_it_takes(store: Store) -> None:
    paths = leave(store)
    for path in paths:
        age(path, 10 * DAY)
    put(paths[0], elsewhere())  # the lock is touched, the folder is not
    assert paths[0] not in waste(store).left
    assert paths[1] not in waste(store).left
    assert paths[2] in waste(store).left  # another's


def test_a_lock_taken_meanwhile_stays(store: Store) -> None:
    held = leave(store)[0]
    age(held, 10 * DAY)
    put(held, elsewhere(), "next")
    maintenance.clear(held)
    assert [mark.name for mark in held.iterdir()] == ["next"]


def test_half_of_a_training_stays_while_a_sweep_wants_it(store: Store) -> None:
    """Trainings from scratch go on from there."""
    for key in (KEY, "ef" * 32, "ee" * 32):
        store.unfinished(key).parent.mkdir(exist_ok=True)
        store.unfinished(key).touch()
        age(store.unfinished(key), 2 * DAY)
    store.refer("mine", ["ef" * 32])
    done, forgotten = store.unfinished(KEY), store.unfinished("ee" * 32)
    assert sorted(waste(store).left) == sorted([done, forgotten])
    assert waste(store, days=3).left == [done]


# ---------------------------------------------------------------------------------------------
# What a sweep needs is all that its cells make.

ASKING = {
    "umia": [*TINY, "attack=umia", "method=finetune,sisa,amnesiac"],
    "trace": [*TINY, "attack=none", "method=finetune", "train.trace_every=1"],
    "ulira": [*TINY, "attack=ulira", "shadow_models.models=4", "method=finetune,sisa"],
    "request_pairs": [
        *(*TINY, "attack=double_output", "method=finetune,sisa"),
        *("request_pairs.originals=2", "request_pairs.requests=2", "request_pairs.size=40"),
    ],
    "deletions": [
        *("attack=hrec", "dataset=diabetes", "model=ridge", "train=exact", "method=retrain"),
        *("single_deletions.count=3", "single_deletions.private=60", "single_deletions.public=60"),
    ],
    "white box": [
        *("dataset.limit=100", "model=mlp", "train.call.epochs=1", "method=finetune"),
        *("attack=model_inversion", "attack.call.iterations=2", "attack.call.starts=1"),
    ],
}


@pytest.mark.parametrize("asked", ASKING)
def test_what_is_needed_is_all_that_is_made(new_workspace: Workspace, asked: str) -> None:
    cells = compose.cells(compose.expand(ASKING[asked]), ["original", "retrain", "second_retrain"])
    for one in cells:
        found = rows.rows_of(new_workspace, one)
        assert found.error is None or isinstance(found.error, Skip), found.error
    needed = plan.needed(cells)
    made = set(new_workspace.store.artifacts())
    assert made <= needed
    elsewhere = compose.cells(compose.expand([*ASKING[asked], "split.seed=7"]))
    assert not made & plan.needed(elsewhere)


def test_a_sweep_notes_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_work", lambda *_: None)
    monkeypatch.setattr(load, "load_results", lambda *a, **k: None)
    cells = compose.cells(compose.expand([*TINY, "method=finetune"]))
    for place in ("here", "there"):
        paths = {"results": str(tmp_path / place), "store": str(tmp_path / "store")}
        settings = {"device": "cpu", "workers": 1, "paths": paths}
        launch.run(cells, settings, sweep="one")
    noted = Store(tmp_path / "store").references()
    assert len(noted) == 2
    assert all(name.startswith("one-") for name in noted)
    assert all(keys == plan.needed(cells) for keys in noted.values())


# ---------------------------------------------------------------------------------------------
# store.keep=predictions


@pytest.fixture
def lean(new_workspace: Workspace, cell: Cells) -> tuple[Workspace, Cell]:
    one = cell(*TINY, "method=finetune", "store.keep=predictions")
    for needs in (one.original(), replace(one, method=one.reference), one):
        outputs.predict(new_workspace, needs)
    return new_workspace, one


def test_weights_of_unlearned_models_go_and_of_no_others(lean: tuple[Workspace, Cell]) -> None:
    workspace, one = lean
    assert not (workspace.store.path(one.model_key) / WEIGHTS).exists()
    assert (workspace.store.path(one.original_key) / WEIGHTS).exists()
    retrained = replace(one, method=one.reference)
    assert (workspace.store.path(retrained.model_key) / WEIGHTS).exists()
    assert list(maintenance.damaged(workspace.store)) == []
    assert rows.rows_of(workspace, one).error is None


def test_the_same_rows_with_and_without_weights(
    lean: tuple[Workspace, Cell], workspace: Workspace
) -> None:
    without = rows.rows_of(*lean).rows
    with_them = rows.rows_of(workspace, replace(lean[1], keep="all")).rows
    clocked = ("rte", "peak_bytes")
    for one, other in zip(without, with_them, strict=True):
        assert one["metric"] in clocked or one["value"] == other["value"]
        assert one["key"] == other["key"]


@pytest.mark.parametrize("asked", ["the model", "a trace", "a white box"])
def test_who_needs_dropped_weights_gets_them_made_again(
    lean: tuple[Workspace, Cell], workspace: Workspace, cell: Cells, asked: str
) -> None:
    mine, one = lean
    if asked == "a trace":
        traced = cell(*TINY, "method=finetune", "store.keep=predictions", "train.trace_every=1")
        assert trace.trace(mine, traced).step_S.tolist()[0] == 0
    elif asked == "a white box":
        held = cell(*TINY, "method=finetune", "attack=model_inversion", "store.keep=predictions")
        assert same(white_box(mine, held).model.state_dict(), state(workspace, one))
    else:
        assert same(unlearned(mine, one).state_dict(), state(workspace, one))
    assert not (mine.store.path(one.model_key) / WEIGHTS).exists()


def state(workspace: Workspace, one: Cell) -> dict[str, Tensor]:
    return unlearned(workspace, replace(one, keep="all")).state_dict()


def test_another_model_than_was_dropped_is_refused(
    lean: tuple[Workspace, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made on another machine, whose arithmetic rounds otherwise."""
    workspace, one = lean
    real = _run

    def nearly(*told: Any, **more: Any) -> Any:
        net, taken = real(*told, **more)
        with torch.no_grad():
            next(net.parameters()).mul_(1 + 1e-6)
        return net, taken

    monkeypatch.setattr(models_module, "_run", nearly)
    with pytest.raises(Failed, match=r"store\.keep=predictions: .* another"):
        unlearned(workspace, one)


def test_gc_drops_what_is_there_already(new_workspace: Workspace, cell: Cells, capsys: Any) -> None:
    one = cell(*TINY, "method=finetune")
    outputs.predict(new_workspace, one)
    assert (new_workspace.store.path(one.model_key) / WEIGHTS).exists()
    assert "1 weights" in command(new_workspace.store, capsys, "gc", "store.keep=predictions")[1]
    command(new_workspace.store, capsys, "gc", "--delete")
    assert (new_workspace.store.path(one.model_key) / WEIGHTS).exists()
    command(new_workspace.store, capsys, "gc", "--delete", "store.keep=predictions")
    assert not (new_workspace.store.path(one.model_key) / WEIGHTS).exists()
    assert (new_workspace.store.path(one.original_key) / WEIGHTS).exists()


def test_what_is_kept_is_in_no_key(cell: Cells) -> None:
    assert cell("store.keep=predictions").key == cell().key
    with pytest.raises(ConfigError, match=r"store\.keep=prediction: must be all or predictions"):
        cell("store.keep=prediction")


# ---------------------------------------------------------------------------------------------
# du, and the command.


def test_bytes_are_told_by_kind(lean: tuple[Workspace, Cell], capsys: Any) -> None:
    workspace, _ = lean
    workspace.store.unfinished(KEY).parent.mkdir(exist_ok=True)
    workspace.store.unfinished(KEY).write_bytes(b"1" * 700)
    taken = maintenance.taken(workspace.store)
    counts = {kind: number for kind, (number, _) in taken.items()}
    models = {"original": 1, "retrained": 1, "unlearned": 1}
    assert counts == {**models, "predictions": 3, "not finished": 1}
    assert taken["not finished"] == (1, 700)
    whole = sum(path.stat().st_size for path in workspace.store.root.rglob("*") if path.is_file())
    assert sum(size for _, size in taken.values()) == whole
    lines = command(workspace.store, capsys, "du")[1].splitlines()
    assert lines[-1].split()[:2] == ["all", "7"]


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no store in"):
        store_module.command(["du", f"paths.store={tmp_path / 'none'}"])


@pytest.mark.parametrize("words", [[], ["gc", "--deleet"], ["tidy"]])
def test_a_mistake_is_told(words: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        store_module.command(words)
    assert "unlearnbench store" in capsys.readouterr().err


def test_it_is_a_command() -> None:
    assert commands.COMMANDS["store"] is store_module.command
