"""SCRUB returns to the epoch that errs on forget rows most as the last does on unseen ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, same
from torch import Tensor, nn

from unlearnbench.core.data import Batches
from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import scrub as module
from unlearnbench.method.scrub import scrub
from unlearnbench.method.scrub_no_rewind import scrub_no_rewind

State = dict[str, Tensor]
SETTINGS: dict[str, Any] = {
    "sgd": {**SGD, "lr": 0.05},
    "decay": 0.1,
    "temperature": 2.0,
    "batch_size": {"retain": 64, "forget": 32},
    "alpha": 0.5,
    "gamma": 1.0,
}


def copied(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def calling(model: nn.Module, y: int) -> State:
    """The state of the model with a head that calls every row by one class."""
    state = copied(model)
    state["head.2.weight"].zero_()
    state["head.2.bias"] = torch.arange(10).eq(y).float()
    return state


def shifted(model: nn.Module) -> State:
    """Another state that errs on no other row: all logits are higher by 1."""
    state = copied(model)
    state["head.2.bias"] += 1
    return state


def walking(*states: State) -> Callable[..., None]:
    """In place of ``scrub_no_rewind``: a walk over given states."""

    def walk(model: nn.Module, task: Task, **_: Any) -> None:
        for epoch, state in enumerate(states, start=1):
            model.load_state_dict(state)
            task.probe(model, epoch)

    return walk


def error(model: nn.Module, batches: Batches) -> float:
    with torch.no_grad():
        return float((model(inputs(batches)).argmax(1) != batches.y).float().mean())


def inputs(batches: Batches) -> Tensor:
    return batches.data.inputs(batches.rows)


def of_class(task: Task, y: int) -> Task:
    return replace(task, forget=task.forget.chosen((task.forget.y == y).nonzero().flatten()))


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    net = bench.run(scrub, bench.task, **SETTINGS, epochs=0, msteps=3)
    assert same(net.state_dict(), bench.original.state_dict())


def test_returns_to_the_nearest_epoch_of_the_walk(bench: Bench) -> None:
    """From an untrained start, for the trained one errs too little for a walk to have a middle."""
    settings, states, errors = {**SETTINGS, "epochs": 5, "msteps": 2}, list[State](), list[float]()

    def probe(model: nn.Module, _: int) -> None:
        states.append(copied(model))
        errors.append(error(model.eval(), bench.task.forget))

    probe(bench.fresh(), 0)
    last = scrub_no_rewind(bench.fresh(), replace(bench.task, probe=probe), **settings)
    j = int((torch.tensor(errors) - error(last, bench.task.val)).abs().argmin())
    assert 0 < j < 5
    assert same(states[5], last.state_dict())
    assert not same(states[j], states[5])
    assert same(scrub(bench.fresh(), bench.task, **settings).state_dict(), states[j])


def test_returns_to_the_start_where_that_is_nearest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start and end err alike, and the first of the two is taken."""
    theta_O = bench.original
    walk = walking(calling(theta_O, 0), calling(theta_O, 1), shifted(theta_O))
    monkeypatch.setattr(module, "scrub_no_rewind", walk)
    net = bench.run(scrub, bench.task, **SETTINGS, epochs=3, msteps=3)
    assert same(net.state_dict(), theta_O.state_dict())


def test_compares_with_validation_rows_of_the_forgotten_classes_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last epoch that calls all a 3 errs on no validation row of a 3, on nine of ten of all."""
    start, end = bench.original, calling(bench.original, 3)
    start.load_state_dict(calling(start, 5))
    monkeypatch.setattr(module, "scrub_no_rewind", walking(end))
    net = scrub(start, of_class(bench.task, 3), **SETTINGS, epochs=1, msteps=1)
    assert same(net.state_dict(), end)


def test_without_such_rows_or_classes_it_is_skipped(bench: Bench) -> None:
    task = of_class(bench.task, 3)
    others = task.val.chosen((task.val.y != 3).nonzero().flatten())
    for impossible in (replace(task, val=others), replace(task, n_classes=0)):
        with pytest.raises(Skip, match="rewinding"):
            bench.run(scrub, impossible, **SETTINGS, epochs=1, msteps=1)
