"""A run in view: it gives the bits of the run that nobody saw, and its cost is not counted."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import Cells, compose, composed
from torch import nn

from unlearnbench.config import compose as compose_module
from unlearnbench.config import validate
from unlearnbench.config.compose import expand
from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import Skip
from unlearnbench.pipeline import inputs, models, outputs, rows, trace
from unlearnbench.pipeline.trace import Watch
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.results import load
from unlearnbench.sweep import plan, worker

WORDS = ["model=mlp", "train.call.epochs=3", "forget=by_class"]
EVERY = "train.trace_every=1"


def steps(found: rows.Found) -> dict[str, dict[int, float]]:
    """Values by metric and step."""
    told: dict[str, dict[int, float]] = {}
    for row in found.rows:
        if row.get("step") is not None and "value" in row:
            told.setdefault(row["metric"], {})[row["step"]] = row["value"]
    return told


def at_end(found: rows.Found) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in found.rows if row.get("step") is None}


# ---------------------------------------------------------------------------------------------
# What is seen.


@pytest.mark.parametrize(
    ("method", "epochs"),
    [("original", 3), ("retrain", 3), ("finetune", 5), ("random_labels", 5), ("amnesiac", 5)],
)
def test_each_epoch_is_a_step_and_the_last_is_the_model(
    workspace: Workspace, cell: Cells, method: str, epochs: int
) -> None:
    found = rows.rows_of(workspace, cell(*WORDS, EVERY, f"method={method}"))
    assert found.error is None
    seen, last = steps(found), at_end(found)
    for name in ("retain_acc", "forget_acc", "val_acc", "test_acc"):
        assert list(seen[name]) == list(range(epochs + 1))
        assert seen[name][epochs] == last[name]
    counts = {row["metric"]: row["n"] for row in found.rows if row.get("step") == 0}
    assert counts["test_acc_forgotten"] + counts["test_acc_others"] == counts["test_acc"]
    mixed = (
        seen["test_acc_forgotten"][1] * counts["test_acc_forgotten"]
        + seen["test_acc_others"][1] * counts["test_acc_others"]
    )
    assert mixed / counts["test_acc"] == pytest.approx(seen["test_acc"][1])


def test_it_sets_out_from_what_the_method_starts_to_train(
    workspace: Workspace, cell: Cells
) -> None:
    """The original of a finetuning; of Amnesiac what is left once the steps are taken back."""
    original = at_end(rows.rows_of(workspace, cell(*WORDS, "method=original")))
    tuned = steps(rows.rows_of(workspace, cell(*WORDS, EVERY, "method=finetune")))
    taken_back = at_end(
        rows.rows_of(workspace, cell(*WORDS, "method=amnesiac", "method.call.epochs=0"))
    )
    amnesiac = steps(rows.rows_of(workspace, cell(*WORDS, EVERY, "method=amnesiac")))
    for name in ("retain_acc", "forget_acc", "test_acc"):
        assert tuned[name][0] == original[name]
        assert amnesiac[name][0] == taken_back[name]
    assert amnesiac["retain_acc"][0] != tuned["retain_acc"][0]


def test_a_walk_of_so_many_epochs_is_seen_at_each_of_them(
    workspace: Workspace, cell: Cells
) -> None:
    """At a constant rate, step e of a walk is the method with e epochs."""
    one = cell(*WORDS, EVERY, "method=neggrad_plus")
    seen = steps(rows.rows_of(workspace, one))["test_acc"]
    for epochs in (1, 2):
        short = cell(*WORDS, "method=neggrad_plus", f"method.call.epochs={epochs}")
        assert at_end(rows.rows_of(workspace, short))["test_acc"] == seen[epochs]


def test_every_second_epoch(workspace: Workspace, cell: Cells) -> None:
    found = rows.rows_of(workspace, cell(*WORDS, "train.trace_every=2", "method=finetune"))
    whole = steps(rows.rows_of(workspace, cell(*WORDS, EVERY, "method=finetune")))
    assert list(steps(found)["test_acc"]) == [0, 2, 4]
    assert steps(found)["test_acc"] == {s: whole["test_acc"][s] for s in (0, 2, 4)}


def test_walks_over_several_parts_are_counted_one_by_one(workspace: Workspace, cell: Cells) -> None:
    """SCRUB walks over forget rows in the first ``msteps`` epochs, over retain rows in each."""
    words = ["method=scrub_no_rewind", "method.call.epochs=3", "method.call.msteps=2"]
    found = rows.rows_of(workspace, cell(*WORDS, EVERY, *words))
    assert list(steps(found)["test_acc"]) == list(range(3 + 2 + 1))


@pytest.mark.parametrize("method", ["ssd", "sisa"])
def test_what_takes_no_walk_is_seen_once_at_its_end(
    workspace: Workspace, cell: Cells, method: str
) -> None:
    found = rows.rows_of(workspace, cell(*WORDS, EVERY, f"method={method}"))
    assert steps(found)["test_acc"] == {0: at_end(found)["test_acc"]}


def test_private_training_is_seen_too(workspace: Workspace, cell: Cells) -> None:
    words = ["train=dp_sgd", "train.call.epochs=2", "dataset=breast_cancer", "model=logreg"]
    one = composed("attack=none", "method=retrain", EVERY, *words)
    seen = steps(rows.rows_of(workspace, one))["test_acc"]
    assert list(seen) == [0, 1, 2]


def test_a_regression_is_seen_by_its_errors(workspace: Workspace, cell: Cells) -> None:
    words = ["dataset=diabetes", "model=mlp", "train.call.epochs=2", "method=finetune"]
    found = rows.rows_of(workspace, cell(*words, EVERY))
    assert found.error is None
    seen = steps(found)
    assert set(seen) == {f"rmse_{part}" for part in ("retain", "forget", "val", "test")}
    assert seen["rmse_test"][5] == pytest.approx(at_end(found)["rmse_test"])


def test_no_class_is_forgotten_whole_by_a_random_set(workspace: Workspace, cell: Cells) -> None:
    found = rows.rows_of(workspace, cell(*WORDS[:2], EVERY, "method=finetune", "forget=random"))
    assert set(steps(found)) == {f"{part}_acc" for part in ("retain", "forget", "val", "test")}


# ---------------------------------------------------------------------------------------------
# Nothing changes by it.


def test_no_key_of_model_or_rows_knows_of_it() -> None:
    for words in (["attack=none"], ["attack=umia"]):
        plain, seen = (compose(*words, "method=finetune", *more) for more in ([], [EVERY]))
        assert (plain.original_key, plain.model_key) == (seen.original_key, seen.model_key)
        assert (plain.key, plain.utility_key) == (seen.key, seen.utility_key)
        assert plain.overrides == seen.overrides
        assert plain.trace_key is plain.trace_rows_key is None
        assert seen.row_keys - plain.row_keys == {seen.trace_rows_key}


def test_traces_are_shared_as_models_are() -> None:
    random, by_class = (
        compose(EVERY, "method=original", f"forget={f}") for f in ("random", "by_class")
    )
    assert random.trace_key == by_class.trace_key
    assert random.trace_rows_key != by_class.trace_rows_key
    assert random.trace_key != compose("train.trace_every=2", "method=original").trace_key


def test_the_stored_model_and_its_cost_are_of_a_run_that_nobody_saw(
    new_workspace: Workspace, cell: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cell(*WORDS, EVERY, "method=finetune")
    looks: list[nn.Module] = []

    def counted(self: Watch, model: nn.Module, epoch: int) -> None:
        looks.append(model)

    monkeypatch.setattr(Watch, "__call__", counted)
    outputs.predict(new_workspace, one)
    assert not looks
    before = {p: p.stat().st_mtime_ns for p in new_workspace.store.root.rglob("manifest.json")}
    trace.trace(new_workspace, one)
    assert len(looks) == 6
    after = {p: p.stat().st_mtime_ns for p in new_workspace.store.root.rglob("manifest.json")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1


def test_a_run_that_gives_another_model_is_refused(
    new_workspace: Workspace, cell: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cell(*WORDS, EVERY, "method=finetune")
    outputs.predict(new_workspace, one)
    run = models._run

    def shifted(*arguments: Any, **named: Any) -> tuple[nn.Module, dict[str, Any]]:
        net, told = run(*arguments, **named)
        with torch.no_grad():
            next(net.parameters()).add_(1e-6)
        return net, told

    monkeypatch.setattr(models, "_run", shifted)
    found = rows.rows_of(new_workspace, one)
    assert "another than the stored one" in str(found.error)
    (row,) = [row for row in found.rows if row["status"] == "failed"]
    assert row["key"] == one.trace_rows_key
    assert {row["status"] for row in found.rows if row["key"] == one.key} == {"ok"}


def test_a_look_leaves_every_module_in_its_mode(workspace: Workspace, cell: Cells) -> None:
    one = cell("method=finetune")
    data = inputs.dataset(one)
    watch = Watch(inputs.batches(one, data, torch.arange(50), "all"), 1)
    net = inputs.fresh(one, data).train()
    frozen = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)][1].eval()
    modes = [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    drawn = torch.get_rng_state()
    watch(net, 0)
    assert [module.training for module in net.modules()] == modes
    assert not frozen.training
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.slow
@pytest.mark.parametrize("name", validate.options("method"))
def test_every_method_in_view_gives_the_same_bits(workspace: Workspace, name: str) -> None:
    """``pipeline.again`` holds the run in view to the stored model, bit by bit."""
    # At its own rate it diverges where a whole class is forgotten, and leaves nothing to compare.
    tamed = ["method.call.sgd.lr=1e-4"] if name == "neggrad_plus_as_run" else []
    one = compose(f"method={name}", "forget=by_class", EVERY, *tamed)
    try:
        assert len(trace.trace(workspace, one).step_S)
    except Skip as reason:
        pytest.skip(str(reason))


# ---------------------------------------------------------------------------------------------
# In plans and tables.


def performed(cells: list[Cell], workspace: Workspace, folder: Path) -> list[str]:
    """Do what the plan says, in its order; the kinds of the jobs."""
    made = plan.plan(cells, workspace.store, finished(folder))
    for job in made.jobs:
        assert worker.run_job(job, workspace, folder, lambda key: None).status != "failed"
    return [job.kind for job in made.jobs]


def finished(folder: Path) -> set[str]:
    return load.finished(folder) if (folder / "rows").is_dir() else set()


def grid(*words: str) -> list[Cell]:
    small = ["dataset=breast_cancer", "model=logreg", "train.call.epochs=1", "attack.call.splits=2"]
    return compose_module.cells(expand(["method=finetune,unsir", *small, *words]), ["original"])


def test_traces_are_planned_once_each_before_the_rows_and_then_never_again(
    new_workspace: Workspace, tmp_path: Path
) -> None:
    untraced, traced = grid(), grid(EVERY)
    assert "traced" not in performed(untraced, new_workspace, tmp_path)
    assert str(plan.plan(untraced, new_workspace.store, finished(tmp_path))) == "3 cells, all there"
    todo = plan.plan(traced, new_workspace.store, finished(tmp_path))
    assert re.search(r"^3 cells → .*, 3 traced; 3 in store; 3 waves$", str(todo))
    assert [job.wave for job in todo.jobs] == sorted(job.wave for job in todo.jobs)
    before: set[str] = set()
    for job in todo.jobs:
        assert {key for key in job.needs if key in {j.key for j in todo.jobs}} <= before
        before.add(job.key)
    kinds = performed(traced, new_workspace, tmp_path)
    assert kinds.count("traced") == 3
    assert performed(traced, new_workspace, tmp_path) == []
    assert performed(untraced, new_workspace, tmp_path) == []


def test_rows_along_a_run_are_beside_the_table_not_in_it(
    new_workspace: Workspace, tmp_path: Path
) -> None:
    for cells in (grid(), grid(EVERY)):
        performed(cells, new_workspace, tmp_path)
        wide = load.load_results(tmp_path, wide=True)
        assert sorted(zip(wide["method"], wide["status"], strict=True)) == [
            ("finetune", "ok"),
            ("original", "ok"),
            ("unsir", "skipped"),
        ]
    frame = load.load_results(tmp_path)
    curve = frame[(frame["method"] == "finetune") & frame["step"].notna()]
    one = next(cell for cell in cells if cell.names["method"] == "finetune")
    assert set(curve["key"]) == {one.trace_rows_key}
    assert set(curve["utility_key"]) == {one.utility_key}
    wide = curve.pivot(index="step", columns="metric", values="value")
    assert wide.index.tolist() == list(range(6))
    assert np.isfinite(wide.to_numpy()).all()


@pytest.mark.parametrize("value", ["0", "-1", "0.5", "true"])
def test_what_is_no_number_of_epochs_is_refused(value: str) -> None:
    message = r"train\.trace_every=.*: must be in \[1, 1e9\] integer or null"
    with pytest.raises(ValueError, match=message):
        compose(f"train.trace_every={value}", "method=finetune")
