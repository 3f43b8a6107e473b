"""Relearning: retraining takes as long as itself, the original no time, and steps are steps."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import compose

from unlearnbench.attack.relearn import mean_loss, relearn
from unlearnbench.core.errors import Skip
from unlearnbench.pipeline.models import compared
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train.loop import cross_entropy

WORDS = ["model=mlp", "attack=relearn"]
SETTINGS: dict[str, Any] = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.0},
    "batch_size": 32,
    "steps": 60,
    "share": 0.9,
}


def figures(workspace: Workspace, method: str, **changed: Any) -> dict[str, float]:
    models = compared(workspace, compose(*WORDS, f"method={method}"))
    before = deepcopy(models.model.state_dict())
    found = relearn(models, **{**SETTINGS, **changed})
    after = models.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # a copy was trained
    assert {n for _, n in found.metrics.values()} == {len(models.task.forget.rows)}
    return {name: value for name, (value, _) in found.metrics.items()}


def test_retraining_takes_as_long_as_itself(workspace: Workspace) -> None:
    found = figures(workspace, "retrain")
    assert found["relearn_ratio"] == 1
    assert found["relearn_steps"] == found["relearn_steps_retrained"] > 0


def test_the_original_knows_already(workspace: Workspace) -> None:
    found = figures(workspace, "original")
    assert found["relearn_steps"] == found["relearn_ratio"] == 0
    assert found["relearn_steps_retrained"] == figures(workspace, "retrain")["relearn_steps"]


def test_steps_are_those_of_plain_sgd(workspace: Workspace) -> None:
    """By hand: batches of the forget rows in the drawn order, the loss after each of them."""
    models = compared(workspace, compose(*WORDS, "method=retrain"))
    forget = models.task.forget
    generator = torch.Generator()
    generator.set_state(forget.order.get_state())
    net = deepcopy(models.retrained)
    known = mean_loss(models.original, forget, cross_entropy)
    never = mean_loss(net, forget, cross_entropy)
    target = never + 0.9 * (known - never)
    momentum = [torch.zeros_like(p) for p in net.parameters()]
    losses = [never]
    while losses[-1] > target:
        chosen = torch.randperm(len(forget.rows), generator=generator)[:32]
        net.train()
        cross_entropy(net, forget.data.inputs(forget.rows[chosen]), forget.y[chosen]).backward()
        with torch.no_grad():
            for p, v in zip(net.parameters(), momentum, strict=True):
                assert p.grad is not None
                v.mul_(0.9).add_(p.grad)
                p.sub_(0.05 * v)
                p.grad = None
        losses.append(mean_loss(net, forget, cross_entropy))
    last, before = losses[-1], losses[-2]
    expected = len(losses) - 2 + (before - target) / (before - last)
    assert figures(workspace, "retrain")["relearn_steps"] == pytest.approx(expected, rel=1e-3)


def test_too_few_steps_are_told(workspace: Workspace) -> None:
    found = figures(workspace, "retrain", steps=1, share=1.0)
    assert found["relearn_steps"] != found["relearn_steps"]


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}, {"steps": 0}, {"batch_size": 0}])
def test_wrong_numbers_are_refused(workspace: Workspace, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        figures(workspace, "retrain", **wrong)


def test_nothing_to_relearn_is_skipped(workspace: Workspace) -> None:
    models = compared(workspace, compose(*WORDS, "method=retrain"))
    with pytest.raises(Skip, match="nothing to relearn"):
        relearn(replace(models, original=models.retrained), **SETTINGS)
