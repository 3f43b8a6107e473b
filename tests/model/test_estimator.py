"""scikit-learn's models go through the pipeline as nets do, and say what scikit-learn says."""

import math
import re
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cells import composed
from method.bench import same
from numpy.typing import NDArray
from safetensors.torch import load, save
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from unlearnbench.config import validate
from unlearnbench.core.cell import Cell, target
from unlearnbench.core.data import Batches
from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.model.estimator import ZERO, Estimator
from unlearnbench.pipeline import inputs, models, outputs
from unlearnbench.pipeline.rows import rows_of
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train.estimator import fit
from unlearnbench.train.loop import cross_entropy

MODELS = ("decision_tree", "logistic_regression", "random_forest")
SETS = ("digits", "wine", "breast_cancer")
FORGETTING = {"retrain", "second_retrain", "sisa", "sisa_retrain", "original"}


@cache
def cell_of(model: str, *words: str) -> Cell:
    few = ["model.call.n_estimators=12"] if model == "random_forest" else []
    overrides = [f"model={model}", "train=estimator", "attack=none", *few, *words]
    return composed(*overrides)


def task_of(cell: Cell) -> Task:
    data = inputs.dataset(cell)
    return inputs.task(cell, data, split_of(cell, data))


@cache
def fitted(model: str, dataset: str = "digits") -> Estimator:
    cell = cell_of(model, f"dataset={dataset}")
    net = fit(inputs.fresh(cell, inputs.dataset(cell)), task_of(cell).train, cross_entropy)
    assert isinstance(net, Estimator)
    return net


def rows(batches: Batches) -> tuple[Tensor, Tensor]:
    return batches.data.inputs(batches.rows), batches.y


def posteriors(net: nn.Module, x: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = net(x).softmax(1).numpy()
    return found


def published(model: str, random_state: int) -> Any:
    """The same model, as scikit-learn's own."""
    if model == "decision_tree":
        return DecisionTreeClassifier(max_leaf_nodes=10, random_state=random_state)
    if model == "random_forest":
        return RandomForestClassifier(12, random_state=random_state)
    return make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=400)))


def flat(x: Tensor) -> NDArray[np.float64]:
    return x.flatten(1).double().numpy()


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("model", MODELS)
def test_softmax_gives_predict_proba_back(model: str, dataset: str) -> None:
    net, task = fitted(model, dataset), task_of(cell_of(model, f"dataset={dataset}"))
    x, y = rows(task.train)
    reference = published(model, int(net.random_state)).fit(flat(x), y.numpy())
    for part in (task.train, task.val):
        x, _ = rows(part)
        expected = reference.predict_proba(flat(x))
        np.testing.assert_allclose(posteriors(net, x), expected, rtol=0, atol=1e-12)
    assert (expected.argmax(1) == net(x).argmax(1).numpy()).all()


@pytest.mark.parametrize("model", ["decision_tree", "random_forest"])
def test_inputs_at_a_threshold_go_where_scikit_learn_sends_them(model: str) -> None:
    net = fitted(model)
    x, y = rows(task_of(cell_of(model)).train)
    reference = published(model, int(net.random_state)).fit(flat(x), y.numpy())
    inner = net.left != torch.arange(len(net.left))
    at, threshold = net.feature[inner][:500], net.threshold[inner][:500]
    x = x.flatten(1)[: len(at)].repeat(3, 1)
    # What float64 tells apart and float32 does not: just below, at and just above the threshold.
    x = x.double()
    for part, by in zip(x.split(len(at)), (1 - 1e-12, 1, 1 + 1e-12), strict=True):
        part[torch.arange(len(at)), at] = threshold * by
    expected = reference.predict_proba(x.numpy())
    np.testing.assert_allclose(posteriors(net, x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_outputs_are_finite_in_float32_and_the_least_is_zero(model: str) -> None:
    net = fitted(model)
    log_p = net(rows(task_of(cell_of(model)).train)[0])
    assert log_p.float().isfinite().all()
    assert not log_p.requires_grad
    if model == "decision_tree":
        assert log_p.min() == math.log(ZERO)
        assert log_p.float().softmax(1).min() <= 2e-45


@pytest.mark.parametrize("model", MODELS)
def test_one_query_is_answered_as_in_a_batch(model: str) -> None:
    """The published code standardises by the queries: a single one is then the zero vector."""
    net = fitted(model)
    x, _ = rows(task_of(cell_of(model)).val)
    together = net(x)
    alone = torch.cat([net(one[None]) for one in x])
    assert torch.equal(alone, together)
    assert len(together.unique(dim=0)) > 5


@pytest.mark.parametrize("model", MODELS)
def test_what_it_learned_is_tensors_that_go_through_safetensors(model: str) -> None:
    net, x = fitted(model), rows(task_of(cell_of(model)).val)[0]
    other = inputs.fresh(cell_of(model, "seed=7"), inputs.dataset(cell_of(model)))
    assert {k: v.shape for k, v in net.state_dict().items()} != {
        k: v.shape for k, v in other.state_dict().items()
    }
    other.load_state_dict(load(save(net.state_dict())))
    assert same(other.state_dict(), net.state_dict())
    assert torch.equal(other(x), net(x))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({"random_state": net.random_state})


@pytest.mark.parametrize("model", MODELS)
def test_a_deep_copy_is_another_model(model: str) -> None:
    net, x = fitted(model), rows(task_of(cell_of(model)).val)[0]
    twin, before = deepcopy(net), net(x)
    assert torch.equal(twin(x), before)
    few = task_of(cell_of(model)).train.chosen(torch.arange(60))
    fit(twin, few, cross_entropy)
    assert torch.equal(net(x), before)
    assert not torch.equal(twin(x), before)


@pytest.mark.parametrize("model", MODELS)
def test_an_ensemble_tells_the_mean_posterior_and_is_loaded_back(model: str) -> None:
    cell = cell_of(model)
    task = task_of(cell)
    x, data = rows(task.val)[0], inputs.dataset(cell)
    parts = task.train.rows.new_tensor(range(120)).split(60)
    members = [fit(task.fresh(), task.train.chosen(part), cross_entropy) for part in parts]
    both = Ensemble(members)
    mean = sum(posteriors(member, x) for member in members) / 2
    np.testing.assert_allclose(posteriors(both, x), mean, rtol=0, atol=1e-12)
    other = Ensemble(inputs.fresh(cell, data) for _ in members)
    other.load_state_dict(load(save(both.state_dict())))
    assert torch.equal(other(x), both(x))


def test_the_seed_is_all_a_forest_depends_on() -> None:
    cell, other = cell_of("random_forest"), cell_of("random_forest", "seed=1")
    first, again, apart = (task_of(one) for one in (cell, cell, other))
    nets = [task.fit(task.fresh(), task.train) for task in (first, again, apart)]
    assert same(nets[0].state_dict(), nets[1].state_dict())
    assert nets[0].random_state != nets[2].random_state
    assert not torch.equal(*(net(rows(first.val)[0]) for net in nets[1:]))
    assert first.fresh("teacher").random_state != nets[0].random_state


def test_rows_are_fitted_on_in_their_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstraps are drawn by place: sorting the rows would change them all."""
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(Estimator, "fit", lambda self, x, y: seen.append((x, y)))
    task = task_of(cell_of("random_forest"))
    state = task.retain.order.get_state()
    task.fit(task.fresh(), task.retain)
    ((x, y),) = seen
    assert not torch.equal(task.retain.rows, task.retain.rows.sort().values)
    assert torch.equal(x, rows(task.retain)[0])
    assert torch.equal(y, task.retain.y)
    assert torch.equal(task.retain.order.get_state(), state)


@pytest.mark.parametrize("model", MODELS)
def test_labels_are_those_of_the_batches(model: str) -> None:
    task = task_of(cell_of(model))
    x, y = rows(task.train)
    net = task.fit(task.fresh(), task.train.relabelled((y + 1) % 10))
    calls = net(x).argmax(1)
    assert (calls == (y + 1) % 10).float().mean() > 0.6
    assert (calls == y).float().mean() < 0.2


@pytest.mark.parametrize("classes", [[3], [2, 7], [0, 4, 9]])
@pytest.mark.parametrize("model", MODELS)
def test_classes_that_are_missing_have_posterior_zero(model: str, classes: list[int]) -> None:
    task = task_of(cell_of(model))
    chosen = torch.isin(task.train.y, torch.tensor(classes)).nonzero().flatten()
    part = task.train.chosen(chosen)
    net, (x, y) = task.fit(task.fresh(), part), rows(part)
    assert isinstance(net, Estimator)
    everyone = rows(task.val)[0]
    missing = [c for c in range(10) if c not in classes]
    assert (net(everyone)[:, missing] == math.log(ZERO)).all()
    expected = np.zeros((len(everyone), 10))
    if len(classes) > 1:
        reference = published(model, int(net.random_state)).fit(flat(x), y.numpy())
        expected[:, classes] = reference.predict_proba(flat(everyone))
    else:
        expected[:, classes] = 1
    np.testing.assert_allclose(posteriors(net, everyone), expected, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------
# Through the pipeline.


@pytest.fixture(scope="module")
def forget(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that forget one training row of digits."""
    cell = cell_of("decision_tree")
    path = tmp_path_factory.mktemp("forget") / "row.txt"
    path.write_text(str(int(split_of(cell, inputs.dataset(cell)).train[3])))
    return ["forget=rows", f"forget.path='{path}'"]


@pytest.mark.parametrize(
    ("model", "slices"), [*((model, 1) for model in MODELS), ("decision_tree", 2)]
)
def test_sisa_is_bit_equal_to_training_without_the_row(
    workspace: Workspace, forget: list[str], model: str, slices: int
) -> None:
    one = cell_of(model, *forget, "method=sisa", f"method.prepare.slices={slices}")
    other = cell_of(model, *forget, "method=sisa_retrain", f"method.call.slices={slices}")
    found, expected = (models.unlearned(workspace, cell) for cell in (one, other))
    assert same(found.state_dict(), expected.state_dict())
    assert isinstance(found, Ensemble)
    held = models.prepared(workspace, one)
    kept = []
    for s, member in enumerate(found.members):
        last = {k.removeprefix(f"{s}.{slices - 1}."): v for k, v in held.items()}
        kept.append(all(torch.equal(last[k], v) for k, v in member.state_dict().items()))
    assert sorted(kept) == [False, True, True, True, True]


def test_sisa_fits_the_touched_shard_alone(workspace: Workspace, forget: list[str]) -> None:
    cell = cell_of("decision_tree", *forget, "method=sisa", "method.prepare.slices=1")
    task = replace(task_of(cell), prepared=models.prepared(workspace, cell))
    fitted_on: list[int] = []

    def counting(net: nn.Module, batches: Batches) -> nn.Module:
        fitted_on.append(len(batches.rows))
        return fit(net, batches, cross_entropy)

    method, _ = target(cell.method["call"])
    method(task.fresh(), replace(task, fit=counting))
    assert len(fitted_on) == 1
    assert fitted_on[0] in (len(task.train.rows) // 5 - 1, len(task.train.rows) // 5)


@pytest.mark.parametrize("model", MODELS)
def test_retrained_it_is_scikit_learns_model_of_the_retain_rows(
    workspace: Workspace, model: str
) -> None:
    cell = cell_of(model, "method=retrain")
    found = outputs.predictions(workspace, cell)
    task, net = task_of(cell), models.unlearned(workspace, cell)
    assert isinstance(net, Estimator)
    assert torch.equal(net.random_state, fitted(model).random_state)
    x, y = rows(task.retain)
    reference = published(model, int(net.random_state)).fit(flat(x), y.numpy())
    x = task.val.data.inputs(torch.from_numpy(found.rows_N))
    logits = torch.from_numpy(found.logits_MQNC[0, 0])
    expected = reference.predict_proba(flat(x))
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, rtol=0, atol=1e-6)


def test_methods_that_move_weights_are_skipped(workspace: Workspace) -> None:
    # Composed by Hydra, 37 cells take longer than all other tests here together.
    files = (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml")
    methods = [dict(yaml.safe_load(path.read_text())) for path in files]
    told = {}
    for method in methods:
        cell = replace(cell_of("decision_tree"), method=method)
        if "defaults" in method:
            cell = cell_of("decision_tree", f"method={method['name']}")
        told[method["name"]] = rows_of(workspace, cell).rows[0]["status"]
    assert set(told) == set(validate.options("method"))
    assert {method for method, status in told.items() if status == "ok"} == FORGETTING
    assert set(told.values()) == {"ok", "skipped"}


@pytest.mark.parametrize("model", MODELS)
def test_it_says_that_it_has_no_gradient(workspace: Workspace, model: str) -> None:
    (row, *_) = rows_of(workspace, cell_of(model, "method=finetune")).rows
    assert row["status"] == "skipped"
    assert row["reason"].startswith(f"model={model} has neither gradients nor layers")


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["train=default"], "failed", "is fitted by scikit-learn: take train=estimator"),
        (["model=mlp"], "failed", "train=estimator fits scikit-learn's models"),
        (["dataset=diabetes"], "skipped", "tells classes apart; a regression has none"),
    ],
)
def test_what_does_not_go_together_is_told_in_one_line(
    workspace: Workspace, words: list[str], status: str, reason: str
) -> None:
    (row, *_) = rows_of(workspace, cell_of("decision_tree", *words, "method=retrain")).rows
    assert row["status"] == status
    assert re.search(reason, row["reason"])
    assert "\n" not in row["reason"]


def test_no_answer_before_a_fit_and_no_fit_without_rows() -> None:
    task = task_of(cell_of("decision_tree"))
    net = task.fresh()
    with pytest.raises(ValueError, match="model=decision_tree has not been fitted"):
        net(rows(task.val)[0])
    with pytest.raises(ValueError, match="there is no row to fit it on"):
        task.fit(net, task.train.chosen(torch.arange(0)))
    with pytest.raises(Skip):
        list(fitted("decision_tree").parameters())
