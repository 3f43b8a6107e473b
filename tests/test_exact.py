"""Training to the optimum: its gradient is 0, and what it cannot train is told."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from cells import composed
from numpy.testing import assert_allclose

from unlearnbench.convex import deletion
from unlearnbench.convex.objective import Objective
from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.model.linear import Linear
from unlearnbench.pipeline import inputs
from unlearnbench.pipeline.split import split_of
from unlearnbench.train import exact


@cache
def problem(*words: str) -> tuple[Linear, Task]:
    cell = composed("train=exact", "attack=none", *words)
    data = inputs.dataset(cell)
    net = inputs.fresh(cell, data)
    return net, inputs.task(cell, data, split_of(cell, data))  # type: ignore[return-value]


@pytest.mark.parametrize("model", ["ridge", "softmax_regression", "svm"])
@pytest.mark.parametrize("form", ["sum", "mean"])
def test_the_gradient_is_zero_at_the_optimum(model: str, form: str) -> None:
    """By autograd, of the loss that methods descend on and the penalty."""
    net, task = problem("dataset=wine", f"model={model}", "model.call.intercept=free")
    lam, n = 0.3, len(task.train.rows)
    exact.exact(net, task.train, task.loss, lam=lam, form=form)
    assert not net.training
    ((x, y),) = task.train.ordered()
    weight = net.head.weight
    penalty = lam * (n if form == "mean" else 1) * weight.square().sum() / 2
    (n * task.loss(net, x, y) + penalty).backward()
    assert max(float(p.grad.abs().max()) for p in net.parameters()) < 1e-6


def test_where_it_starts_has_no_say() -> None:
    net, task = problem("dataset=diabetes", "model=ridge", "model.call.features=20")
    task.fit(net, task.train)
    first = net.theta_PC
    net.put(np.ones_like(first))
    task.fit(net, task.train)
    assert (net.theta_PC == first).all()
    goal = Objective("squared", 1.0, "penalised", "sum")
    assert_allclose(deletion.fit(goal, *exact.data(goal, net, task.train)), first)


def test_what_a_training_minimises() -> None:
    net, _ = problem("dataset=wine", "model=softmax_regression", "model.call.intercept=free")
    told = exact.objective(net, {"lam": 2.0, "form": "mean"})
    assert told == Objective("softmax", 2.0, "free", "mean")
    # SGD decays the intercept too.
    by_sgd: dict[str, Any] = {"sgd": {"lr": 0.1, "weight_decay": 5e-4}, "epochs": 3}
    assert exact.objective(net, by_sgd) == Objective("softmax", 5e-4, "penalised", "mean")


def test_what_it_cannot_train_is_told() -> None:
    _, task = problem("dataset=wine", "model=ridge")
    with pytest.raises(ValueError, match=r"^train=exact solves .*: take train=default$"):
        task.fit(torch.nn.Linear(13, 3), task.train)
    empty = task.train.chosen(torch.arange(0))
    with pytest.raises(ValueError, match="there is no row"):
        task.fit(problem("dataset=wine", "model=ridge")[0], empty)
    net, task = problem("dataset=wine", "model=svm", "model.call.loss=hinge")
    with pytest.raises(Skip, match="the hinge has no curvature"):
        task.fit(net, task.train)
