"""One trial: the objective by hand, what it may look at, what it leaves, how it fails."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import Cells
from safetensors.numpy import load as load_arrays
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from torch import Tensor, nn

from unlearnbench.core.cell import Cell
from unlearnbench.core.data import Dataset
from unlearnbench.core.task import Task
from unlearnbench.pipeline import models, outputs
from unlearnbench.pipeline.inputs import dataset
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.search import journal_study as search
from unlearnbench.search import trial
from unlearnbench.search.study import Study

OFF = {
    "name": "off",
    "version": 1,
    "call": {"_target_": "unruly.off", "strength": 0.6, "steps": 1},
    "space": {"strength": {"low": 0.0, "high": 1.0}, "steps": {"low": 1, "high": 9}},
}


@pytest.fixture
def tuned_cell(cell: Cells) -> Cell:
    return cell("attack=umia", "method=finetune", "method.call.epochs=1", "seed=100")


def study(cell: Cell, **changes: Any) -> Study:
    told = {"objective": "retrained", "sampler": "tpe", "prune": True, "seed": 0, **changes}
    return Study((cell,), (), **told)


def test_the_values_are_those_of_the_paper() -> None:
    values = trial.tuning_values((0.9, 0.8, 0.7), (0.96, 0.77, 0.7), 0.45)
    assert values == pytest.approx((0.02, 0.01, 0.0, 0.1))
    assert trial.tuning_score(values) == pytest.approx(math.sqrt((0.06**2 + 0.03**2) / 9 + 0.01))


def by_hand(
    workspace: Workspace, cell: Cell, net: nn.Module, wished: tuple[float, float, float]
) -> list[float]:
    """The four values from forward passes and scikit-learn alone."""
    data = dataset(cell)
    parts = split_of(cell, data)
    accuracies, losses = [], {}
    for name in ("retain", "forget", "val"):
        rows = getattr(parts, name)
        with torch.no_grad():
            logits = net.eval()(data.inputs(rows))
        accuracies.append((logits.argmax(1) == data.y[rows]).float().mean().item())
        told = nn.functional.cross_entropy(logits.double(), data.y[rows], reduction="none")
        losses[name] = told.numpy()
    n, draw = min(len(losses["forget"]), len(losses["val"])), np.random.default_rng(123)
    sides = [draw.permutation(losses[name])[:n] for name in ("forget", "val")]
    rounds = StratifiedShuffleSplit(n_splits=10, test_size=0.1, random_state=123)
    x, y = np.concatenate(sides)[:, None], np.repeat([1, 0], n)
    mia = cross_val_score(LogisticRegression(), x, y, cv=rounds).mean()
    return [*(abs(a - w) / 3 for a, w in zip(accuracies, wished, strict=True)), abs(2 * mia - 1)]


def accuracies(workspace: Workspace, cell: Cell) -> tuple[float, float, float]:
    net, data = models.unlearned(workspace, cell), dataset(cell)
    parts = split_of(cell, data)
    with torch.no_grad():
        right = net(data.inputs(torch.arange(len(data.y)))).argmax(1) == data.y
    retain, forget, val = (
        right[rows].float().mean().item() for rows in (parts.retain, parts.forget, parts.val)
    )
    return retain, forget, val


def test_the_objective_is_that_of_the_paper(workspace: Workspace, tuned_cell: Cell) -> None:
    values = trial.objective(workspace, study(tuned_cell), tuned_cell)
    retrained = accuracies(workspace, replace(tuned_cell, method=tuned_cell.reference))
    net = models.unlearn_in_memory(workspace, tuned_cell)
    assert values == pytest.approx(by_hand(workspace, tuned_cell, net, retrained), abs=1e-6)
    assert values[1] > 0  # so that a sign or a third would be seen
    assert values[3] > 0


def test_without_a_retrained_model_the_original_says_what_is_wished(
    new_workspace: Workspace, tuned_cell: Cell
) -> None:
    values = trial.objective(new_workspace, study(tuned_cell, objective="no_retrain"), tuned_cell)
    retrained = replace(tuned_cell, method=tuned_cell.reference)
    assert not new_workspace.store.has(retrained.model_key)
    retain, _, val = accuracies(new_workspace, tuned_cell.original())
    net = models.unlearn_in_memory(new_workspace, tuned_cell)
    assert values == pytest.approx(
        by_hand(new_workspace, tuned_cell, net, (retain, val, val)), abs=1e-6
    )


def test_no_test_row_is_ever_read(
    workspace: Workspace, tuned_cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = [tuned_cell.original(), replace(tuned_cell, method=tuned_cell.reference)]
    for one in references:  # which other rows of a sweep are made of, test rows too
        outputs.predict(workspace, one)
    before = trial.objective(workspace, study(tuned_cell), tuned_cell)
    inputs, guarded = Dataset.inputs, []

    def no_test_row(data: Dataset, rows: Tensor) -> Tensor:
        assert not torch.isin(rows, data.test_rows).any(), "a test row is read"
        guarded.append(len(rows))
        return inputs(data, rows)

    def spoiled(data: bytes) -> dict[str, Any]:
        arrays = load_arrays(data)
        arrays["logits_NC"][arrays["is_test_N"]] = np.nan
        return arrays

    monkeypatch.setattr(Dataset, "inputs", no_test_row)
    monkeypatch.setattr(outputs, "load_arrays", spoiled)
    data = dataset(tuned_cell)
    y = data.y.clone()
    y[data.test_rows] = -1
    monkeypatch.setattr(trial, "dataset", lambda cell, device: replace_y(data, y))
    evaluate = trial.evaluator(workspace, study(tuned_cell), failing)
    assert evaluate({}, tuned_cell).values == before
    assert sum(guarded) >= len(split_of(tuned_cell, data).train)
    with pytest.raises(AssertionError, match="a test row is read"):
        outputs.predict(workspace, replace(tuned_cell, seed=101))


def replace_y(data: Dataset, y: Tensor) -> Dataset:
    """The data with other labels, unchecked: those of test rows are none."""
    made = object.__new__(Dataset)
    made.__dict__.update({**vars(data), "y": y})
    return made


def failing(error: Exception) -> None:
    raise AssertionError("nothing fails here") from error


def test_nothing_of_a_trial_is_kept(new_workspace: Workspace, tuned_cell: Cell) -> None:
    evaluate = trial.evaluator(new_workspace, study(tuned_cell), failing)
    told = evaluate({"sgd.lr": 0.02, "epochs": 2}, tuned_cell)
    assert told.status == search.COMPLETE
    original, retrained = tuned_cell.original(), replace(tuned_cell, method=tuned_cell.reference)
    references = {original.model_key, retrained.model_key, retrained.predictions_key}
    assert {*new_workspace.store.artifacts()} == references
    again = evaluate({"sgd.lr": 0.02, "epochs": 2}, tuned_cell)
    assert again.values == told.values
    assert {*new_workspace.store.artifacts()} == references


def test_a_trial_is_the_cell_with_these_settings(
    workspace: Workspace, cell: Cells, tuned_cell: Cell
) -> None:
    evaluate = trial.evaluator(workspace, study(tuned_cell), failing)
    told = evaluate({"sgd.lr": 0.02, "epochs": 2}, tuned_cell)
    typed = ["method.call.sgd.lr=0.02", "method.call.epochs=2", "seed=100"]
    same = cell("attack=umia", "method=finetune", *typed)
    assert told.values == trial.objective(workspace, study(same), same)
    assert told.values != evaluate({}, tuned_cell).values
    assert told.score == pytest.approx(math.hypot(*told.values))
    assert told.seconds > 0


def raising(model: nn.Module, task: Task, *, strength: float, steps: int) -> nn.Module:
    raise KeyError("on purpose")


def diverging(model: nn.Module, task: Task, *, strength: float, steps: int) -> nn.Module:
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(float("nan"))
    return model


@pytest.mark.parametrize(
    ("function", "reason", "kept"),
    [(raising, "KeyError: 'on purpose'", 1), (diverging, "outputs are not finite", 0)],
)
def test_what_goes_wrong_is_told(
    workspace: Workspace, tuned_cell: Cell, function: Callable[..., Any], reason: str, kept: int
) -> None:
    call = {"_target_": f"{__name__}.{function.__name__}", "strength": 1.0, "steps": 1}
    broken = replace(tuned_cell, method={**OFF, "call": call})
    errors: list[Exception] = []
    told = trial.evaluator(workspace, study(broken), errors.append)({"steps": 2}, broken)
    assert (told.status, told.reason, told.score) == (search.FAILED, reason, math.inf)
    assert told.values == ()
    assert len(errors) == kept


def test_what_cannot_be_tuned_is_skipped(workspace: Workspace, cell: Cells, tmp_path: Path) -> None:
    regression = cell("dataset=diabetes", "model=mlp", "attack=umia")
    told = trial.evaluator(workspace, study(regression), failing)({}, regression)
    assert (told.status, told.reason) == (
        search.SKIPPED,
        "a search looks at accuracies; this is a regression",
    )
    unfit = cell("method=unsir", "attack=umia")
    told = trial.evaluator(workspace, study(unfit), failing)({}, unfit)
    assert told.status == search.SKIPPED
    assert told.reason.startswith("UNSIR")
