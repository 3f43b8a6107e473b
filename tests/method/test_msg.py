"""MSG: which weights are drawn anew, and how much slower the others move."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import compose
from method.bench import TOLERANCE, Bench, all_close, weights
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method._redraw import triangle
from unlearnbench.method.msg import msg

SGD: dict[str, Any] = {"lr": 0.03, "momentum": 0.9, "weight_decay": 0.05}
SETTINGS: dict[str, Any] = {"sgd": SGD, "batch_size": 64}
CONVOLUTIONS = ["stem.0.weight", "stage1.0.weight", "stage2.0.weight"]
RATES = {  # by the number of epochs, in units of lr
    1: [1.0],
    2: [1.0, 1 / 2],
    3: [1 / 2, 1.0, 1 / 2],
    4: [1 / 2, 1.0, 2 / 3, 1 / 3],
    5: [1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3],
}


def small(task: Task) -> Task:
    """As many retain as forget rows: all of them are scored, whatever is drawn."""
    return replace(task, retain=task.retain.chosen(torch.arange(len(task.forget.rows))))


def changes(net: nn.Module, bench: Bench) -> dict[str, Tensor]:
    before = bench.original.state_dict()
    return {name: tensor != before[name] for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("init_rate", [0.0, 0.3, 1.0])
def test_exactly_a_share_of_each_convolution_is_drawn_anew(bench: Bench, init_rate: float) -> None:
    changed = changes(bench.run(msg, bench.task, **SETTINGS, epochs=0, init_rate=init_rate), bench)
    for name, mask in changed.items():
        share = init_rate if name in CONVOLUTIONS else 0
        assert mask.sum() == round(share * mask.numel()), name


def test_it_is_those_where_retain_and_forget_rows_agree(bench: Bench) -> None:
    task, net = small(bench.task), bench.original.eval()
    theta = weights(net)
    sides = [
        torch.autograd.grad(task.loss(net, *next(iter(part.batched(1000)))), list(net.parameters()))
        for part in (task.retain, task.forget)
    ]
    scores = {name: (r - f).abs() for name, r, f in zip(theta, *sides, strict=True)}
    changed = changes(bench.run(msg, task, **SETTINGS, epochs=0, init_rate=0.3), bench)
    for name in CONVOLUTIONS:
        border = scores[name].flatten().sort().values[changed[name].sum() - 1]
        assert scores[name][changed[name]].max() <= border * (1 + TOLERANCE)


def test_new_weights_are_kaiming_normal_of_the_fan_out(bench: Bench) -> None:
    net = bench.run(msg, bench.task, **SETTINGS, epochs=0, init_rate=1.0)
    for name in CONVOLUTIONS[1:]:
        W = weights(net)[name]
        assert W.std() == pytest.approx((2 / (len(W) * 9)) ** 0.5, rel=0.03)
        assert abs(W.mean()) < 4 * W.std() / W.numel() ** 0.5


@pytest.mark.parametrize("init_rate", [0.0, 0.3])
@pytest.mark.parametrize("epochs", [1, 4])
def test_others_move_at_a_tenth_of_their_gradient(
    bench: Bench, init_rate: float, epochs: int
) -> None:
    """Weight decay is not scaled; at rate 0 this is finetuning with scaled gradients."""
    other = bench.run(msg, bench.task, **SETTINGS, epochs=0, init_rate=init_rate).train()
    changed, task = changes(other, bench), bench.task
    by = {name: 0.1 + 0.9 * changed[name].double() for name in CONVOLUTIONS}
    optimizer = torch.optim.SGD(other.parameters(), **SGD)
    list(small(task).retain)  # scoring walks once, and so the next walk has another order
    for rate in RATES[epochs]:
        optimizer.param_groups[0]["lr"] = rate * SGD["lr"]
        for x, y in task.retain.batched(64):
            optimizer.zero_grad()
            task.loss(other, x, y).backward()
            for name, p in other.named_parameters():
                p.grad *= by.get(name, 1.0)
            optimizer.step()
    net = bench.run(msg, bench.task, **SETTINGS, epochs=epochs, init_rate=init_rate)
    all_close(weights(net), weights(other))


@pytest.mark.parametrize("epochs", RATES)
def test_rates_rise_and_fall(epochs: int) -> None:
    assert [triangle(e, epochs) for e in range(epochs)] == pytest.approx(RATES[epochs])


def test_notes_the_share_of_convolutions(bench: Bench) -> None:
    noted: dict[str, float] = {}
    task = replace(bench.task, note=noted.__setitem__)
    net = bench.run(msg, task, **SETTINGS, epochs=0, init_rate=0.3)
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    assert noted == {"acted_on": sum(sizes[name] for name in CONVOLUTIONS) / sum(sizes.values())}


@pytest.mark.parametrize("model", ["logreg", "mlp"])
def test_a_net_without_convolutions_is_skipped(bench: Bench, model: str) -> None:
    net = Bench(bench.workspace, compose(f"model={model}")).fresh()
    with pytest.raises(Skip, match="convolution"):
        msg(deepcopy(net), bench.task, **SETTINGS, epochs=1, init_rate=0.3)
