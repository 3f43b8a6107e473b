"""The chain: splits as published, artifacts made once, rows as they must be."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from cells import Cells, compose
from disks import full, read_only
from torch import nn

from unlearnbench import train
from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import Failed, Skip
from unlearnbench.core.outputs import FORGET, FORGOTTEN, RETAIN, RETAINED, TEST, UNSEEN, VAL
from unlearnbench.metric import utility
from unlearnbench.pipeline import inputs, models, outputs
from unlearnbench.pipeline.rows import Found, rows_of
from unlearnbench.pipeline.split import split
from unlearnbench.pipeline.workspace import Workspace, clock
from unlearnbench.store.artifacts import Store


def values(found: Found) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in found.rows if row["status"] == "ok"}


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A user's own module, to which tests add methods."""
    module = ModuleType("their_package")
    monkeypatch.setitem(sys.modules, "their_package", module)
    return module


def with_method(cell: Cell, name: str, **call: Any) -> Cell:
    method = {"name": name, "version": 1, "call": {"_target_": f"their_package.{name}", **call}}
    return replace(cell, method=method)


@pytest.mark.parametrize(
    ("n_train", "n_test", "sizes", "first"),
    [
        (50_000, 10_000, (38_250, 4_250, 7_500), [33810, 44208, 6639, 25856, 49484]),
        (60_000, 10_000, (45_900, 5_100, 9_000), [12238, 20118, 23825, 29798, 10974]),
    ],
)
def test_splits_of_deep_unlearn_to_the_row(
    n_train: int, n_test: int, sizes: tuple[int, ...], first: list[int]
) -> None:
    n = n_train + n_test
    y, rows = torch.zeros(n, dtype=torch.int64), torch.arange(n)
    parts = split(compose(), y, rows[:n_train], rows[n_train:])
    assert (len(parts.retain), len(parts.forget), len(parts.val)) == sizes
    assert len(parts.test) == n_test
    assert parts.forget[:5].tolist() == first


def test_an_original_is_trained_once_for_all_methods(
    new_workspace: Workspace, cell: Cells, monkeypatch: Any
) -> None:
    trained = []
    real = train.fit
    monkeypatch.setattr(train, "fit", lambda *a, **k: (trained.append(k), real(*a, **k))[1])
    words = ["train.call.epochs=1", "method.call.epochs=1"]
    for method in ("finetune", "gradient_ascent", "random_labels"):
        outputs.predict(new_workspace, cell(f"method={method}", *words))
    outputs.predict(new_workspace, cell("method=original", words[0]))
    assert len(trained) == 1
    outputs.predict(new_workspace, cell("method=finetune", "forget=by_class", *words))
    assert len(trained) == 1
    outputs.predict(new_workspace, cell("method=retrain", words[0]))
    outputs.predict(new_workspace, cell("method=retrain", words[0]))
    assert len(trained) == 2


def test_same_cell_same_bytes(new_workspace: Workspace, workspace: Workspace, cell: Cells) -> None:
    one = cell("method=neggrad_plus")
    for each in (workspace, new_workspace):
        outputs.predict(each, one)
    for key in (one.original_key, one.model_key, one.predictions_key):
        files = [each.store.load(key).manifest["files"] for each in (workspace, new_workspace)]
        assert files[0] == files[1]


def test_predictions_are_the_models_outputs(workspace: Workspace, cell: Cells) -> None:
    one = cell("method=finetune")
    found = outputs.predictions(workspace, one)
    data = inputs.dataset(one)
    net = models.unlearned(workspace, one)
    with torch.no_grad():
        logits = net(data.inputs(torch.from_numpy(found.rows_N))).numpy()
    np.testing.assert_allclose(found.logits_MQNC[0, 0], logits, atol=1e-4)
    assert (found.y_N == data.y[found.rows_N].numpy()).all()
    counts = np.bincount(found.split_N)
    assert counts.tolist() == [1099, 123, 216, 359]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("original", "original"),
        ("retrain", "retrained"),
        ("finetune", "unlearned"),
    ],
)
def test_status_of_forget_rows(workspace: Workspace, cell: Cells, method: str, kind: str) -> None:
    found = outputs.predictions(workspace, cell(f"method={method}"))
    assert found.kind_M == (kind,)
    by_part = {part: set(found.status_MN[0][found.split_N == part]) for part in range(4)}
    assert by_part == {RETAIN: {RETAINED}, FORGET: {FORGOTTEN}, VAL: {UNSEEN}, TEST: {UNSEEN}}


def test_utility_rows(workspace: Workspace, cell: Cells) -> None:
    one = cell("method=finetune")
    found = rows_of(workspace, one)
    assert found.error is None
    told = values(found)
    logits, reference = (
        outputs.predictions(workspace, c) for c in (one, replace(one, method=one.reference))
    )

    def accuracy(p: Any, part: int) -> float:
        rows = p.split_N == part
        return float((p.logits_MQNC[0, 0][rows].argmax(1) == p.y_N[rows]).mean())

    assert told["test_acc"] == pytest.approx(accuracy(logits, TEST))
    assert told["forget_acc"] == pytest.approx(accuracy(logits, FORGET))
    expected = sum(
        abs(accuracy(logits, part) / accuracy(reference, part) - 1)
        for part in (RETAIN, FORGET, TEST)
    )
    assert told["ret_dev"] == pytest.approx(expected)
    seconds = [
        workspace.store.load(c.model_key).manifest["seconds"]
        for c in (replace(one, method=one.reference), one)
    ]
    assert told["rte"] == pytest.approx(seconds[0] / seconds[1])
    assert {row["n"] for row in found.rows if row["metric"] == "forget_acc"} == {123}


def test_retrain_is_its_own_reference(workspace: Workspace, cell: Cells) -> None:
    told = values(rows_of(workspace, cell("method=retrain")))
    assert told["ret_dev"] == 0
    assert told["rte"] == 1
    second = values(rows_of(workspace, cell("method=second_retrain")))
    assert second["ret_dev"] > 0
    assert "rte" not in values(rows_of(workspace, cell("method=original")))


def test_utility_stands_under_no_attack(workspace: Workspace, cell: Cells) -> None:
    one = cell("method=finetune", "attack=umia")
    rows = rows_of(workspace, one).rows
    keys = {
        (row["attack"], row["key"], row["metric"].startswith(("mia", "indisc"))) for row in rows
    }
    assert keys == {("none", one.utility_key, False), ("umia", one.key, True)}
    assert {row["utility_key"] for row in rows} == {one.utility_key}
    assert {row["model_key"] for row in rows} == {one.model_key}
    assert len({row["forget_hash"] for row in rows}) == 1


def test_a_method_that_raises_is_a_failed_row(
    workspace: Workspace, cell: Cells, methods: Any
) -> None:
    def broken(model: nn.Module, task: Any) -> nn.Module:
        raise RuntimeError("a bug in it")

    methods.broken = broken
    one = with_method(cell(), "broken")
    found = rows_of(workspace, one)
    assert [row["status"] for row in found.rows] == ["failed"]
    assert found.rows[0]["reason"] == "RuntimeError: a bug in it"
    assert isinstance(found.error, RuntimeError)
    assert not workspace.store.has(one.model_key)


def test_weights_that_are_not_finite_are_a_failed_row(
    workspace: Workspace, cell: Cells, methods: Any
) -> None:
    def diverged(model: nn.Module, task: Any, *, value: float) -> nn.Module:
        with torch.no_grad():
            next(model.parameters()).fill_(value)
        return model

    methods.diverged = diverged
    one = with_method(cell(), "diverged", value=float("nan"))
    found = rows_of(workspace, one)
    assert found.rows[0]["status"] == "failed"
    assert "weights are not finite" in found.rows[0]["reason"]
    assert not workspace.store.has(one.model_key)


def test_a_method_that_cannot_work_here_is_a_skipped_row(
    workspace: Workspace, cell: Cells, methods: Any
) -> None:
    def nothing(model: nn.Module, task: Any) -> nn.Module:
        raise Skip("no convolution to act on")

    methods.nothing = nothing
    rows = rows_of(
        workspace, replace(with_method(cell(), "nothing"), attack={"name": "umia", "call": {}})
    ).rows
    assert {row["status"] for row in rows} == {"skipped"}
    assert {row["reason"] for row in rows} == {"no convolution to act on"}
    assert len({row["key"] for row in rows}) == 2, "the model's rows and the attack's"


def test_what_failed_is_not_tried_again(workspace: Workspace, cell: Cells) -> None:
    one = cell("method=finetune", "method.call.epochs=3")
    workspace = replace(workspace, failures={one.original().predictions_key: "out of memory"})
    with pytest.raises(Failed, match="the original failed: out of memory"):
        outputs.predict(workspace, one)


def test_a_method_gets_no_test_rows_and_a_private_copy(
    workspace: Workspace, cell: Cells, methods: Any
) -> None:
    seen = {}

    def spying(model: nn.Module, task: Any) -> nn.Module:
        seen.update(vars(task))
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        return model

    methods.spying = spying
    one = with_method(cell(), "spying")
    before = models.original(workspace, one).state_dict()
    outputs.predict(workspace, one)
    after = models.original(workspace, one).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    test_rows = set(inputs.dataset(one).test_rows.tolist())
    for part in ("retain", "forget", "val"):
        assert not test_rows & set(seen[part].rows.tolist())


def test_regression_cells(new_workspace: Workspace, cell: Cells) -> None:
    words = ["dataset=diabetes", "model=mlp", "attack=umia"]
    found = rows_of(new_workspace, cell(*words, "method=finetune"))
    told = values(found)
    one = outputs.predictions(new_workspace, cell(*words, "method=finetune"))
    rows = one.split_N == TEST
    expected = utility.rmse(one.logits_MQNC[0, 0, rows, 0], one.y_N[rows])
    assert told["rmse_test"] == pytest.approx(expected)
    assert [row["reason"] for row in found.rows if row["status"] == "skipped"] == [
        "umia needs classes; this is a regression"
    ]
    labels = rows_of(new_workspace, cell(*words, "method=random_labels"))
    assert {row["status"] for row in labels.rows} == {"skipped"}


def test_a_model_that_does_not_take_the_data_is_skipped(
    new_workspace: Workspace, cell: Cells
) -> None:
    found = rows_of(new_workspace, cell("dataset=wine", "model=cnn"))
    assert found.rows[0]["status"] == "skipped"
    assert found.rows[0]["reason"] == "model=cnn takes image data; dataset=wine is tabular"


def test_missing_data_is_a_failed_row(
    new_workspace: Workspace, cell: Cells, tmp_path: Path
) -> None:
    found = rows_of(new_workspace, cell("dataset=cifar10", f"dataset.root={tmp_path}/none"))
    assert found.rows[0]["status"] == "failed"
    assert f"{tmp_path}/none" in found.rows[0]["reason"]


def test_an_artifact_knows_what_it_is_made_of(workspace: Workspace, cell: Cells) -> None:
    one = cell("method=finetune")
    outputs.predict(workspace, one)
    found = models.artifact(workspace, one)
    told = workspace.store.load(one.model_key).manifest
    assert told["made_of"]["method"]["name"] == "finetune"
    assert "forget" not in workspace.store.load(one.original_key).manifest["made_of"]
    assert found.seconds > 0
    assert found.peak_bytes > 1e6
    assert found.state.keys() == models.original(workspace, one).state_dict().keys()


def test_on_a_cpu_seconds_are_the_processors_whoever_else_has_it_meanwhile(
    workspace: Workspace, cell: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = inputs.fresh

    def late(*told: Any, **also: Any) -> nn.Module:
        time.sleep(5)  # as if another process had the core
        return real(*told, **also)

    monkeypatch.setattr(inputs, "fresh", late)
    _net, taken = models._trained(workspace, cell("method=original"))
    assert 0 < taken["seconds"] < 5
    assert clock("cpu") is time.process_time
    assert clock("cuda:1") is time.perf_counter


def test_a_full_disk_is_a_failed_row_with_nothing_half_written(cell: Cells, tmp_path: Path) -> None:
    one = cell("method=original")
    with full(tmp_path / "disk", "100k") as root:
        full_lab = Workspace(Store(root), "cpu")
        found = rows_of(full_lab, one)
        (row,) = found.rows
        assert row["status"] == "failed"
        assert "No space left on device" in row["reason"]
        assert "\n" not in row["reason"]
        assert [path for path in root.glob("*/*") if path.is_file() or any(path.iterdir())] == []


def test_a_read_only_store_is_a_failed_row(cell: Cells, tmp_path: Path) -> None:
    one = cell("method=original")
    with read_only(tmp_path / "disk", lambda root: None) as root:
        (row,) = rows_of(Workspace(Store(root), "cpu"), one).rows
        assert row["status"] == "failed"
        assert "Read-only file system" in row["reason"]


@pytest.mark.tried(
    "precision=64-true",
    "weights, inputs and draws are float64 from the original to the unlearned model",
)
@pytest.mark.parametrize("words", [(), ("dataset=diabetes", "model=mlp")])
def test_float64_from_end_to_end(workspace: Workspace, cell: Cells, words: tuple[str, ...]) -> None:
    small = "train.call.epochs=1", "method.call.epochs=1", *words
    double, single = (
        cell(f"precision={precision}", "method=amnesiac", *small)
        for precision in ("64-true", "32-true")
    )
    data, plain = inputs.dataset(double), inputs.dataset(single)
    assert (data.dtype, plain.dtype) == (torch.float64, torch.float32)
    assert data.inputs(data.test_rows).equal(plain.inputs(data.test_rows).double())
    if not data.n_classes:
        assert data.y.dtype == torch.float64
    for net in (inputs.fresh(double, data), models.unlearned(workspace, double)):
        kinds = {t.dtype for t in net.state_dict().values() if t.is_floating_point()}
        assert kinds == {torch.float64}
    first = next(inputs.fresh(double, data).parameters())
    assert not first.equal(first.float().double()), "drawn in float64, not rounded"
    assert torch.get_default_dtype() == torch.float32
    assert outputs.predictions(workspace, double).logits_MQNC.dtype == np.float32
    assert all(row["status"] == "ok" for row in rows_of(workspace, double).rows)
