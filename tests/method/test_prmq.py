"""PRMQ: what is cut and drawn anew, how long it trains, and that it ends in float16."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, all_close, same, weights
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.method.prmq import _prune_and_redraw, prmq

SETTINGS: dict[str, Any] = {"sgd": {**SGD, "lr": 0.03}, "batch_size": 64}
FAN_IN = {"stem.0": 9, "stage1.0": 32 * 9, "stage2.0": 64 * 9, "head.2": 64}


def rounded(tensor: Tensor) -> Tensor:
    return tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor


def test_nothing_cut_and_no_epochs_is_rounding_to_float16(bench: Bench) -> None:
    net = bench.run(prmq, bench.task, **SETTINGS, epochs=0, prune_amount=0.0)
    before = bench.original.state_dict()
    assert same(net.state_dict(), {name: rounded(tensor) for name, tensor in before.items()})
    assert not same(weights(net), weights(bench.original))


@pytest.mark.parametrize("amount", [0.5, 0.99])
def test_the_smallest_weights_are_drawn_anew(bench: Bench, amount: float) -> None:
    """Of weights and biases together; a cut bias stays 0, and all else is rounded only."""
    net = bench.run(prmq, bench.task, **SETTINGS, epochs=0, prune_amount=amount)
    before, after = weights(bench.original), weights(net)
    layers = [f"{name}.weight" for name in FAN_IN] + ["head.2.bias"]
    assert not any(before[name].eq(0).any() for name in layers)
    magnitudes = torch.cat([before[name].flatten() for name in layers]).abs().sort().values
    cut = round(amount * len(magnitudes))
    border = (magnitudes[cut - 1] + magnitudes[cut]) / 2
    for name, p in before.items():
        small = (p.abs() < border) if name in layers else torch.zeros_like(p, dtype=torch.bool)
        assert torch.equal(after[name][~small], rounded(p)[~small]), name
        if name == "head.2.bias":
            assert small.any() or amount < 0.9  # of ten entries
            assert not after[name][small].any()
        elif name in layers:
            s, drawn = FAN_IN[name.removesuffix(".weight")] ** -0.5, after[name][small]
            assert drawn.abs().max() <= s * 1.001
            assert drawn.std() == pytest.approx(s / 3**0.5, rel=4 / len(drawn) ** 0.5)
            # Rounded, a few are again what they were.
            assert (drawn != rounded(p)[small]).float().mean() > 0.99


@pytest.mark.parametrize(("batch_size", "epochs"), [(64, 0.3), (64, 2.0), (100, 1.75)])
def test_steps_of_a_fraction_of_an_epoch(bench: Bench, batch_size: int, epochs: float) -> None:
    walked: list[int] = []

    @contextmanager
    def count(rows: Tensor) -> Iterator[None]:
        walked.append(len(rows))
        yield

    task = bench.task
    task = replace(task, retain=task.retain.watched(count))
    arguments = {**SETTINGS, "batch_size": batch_size, "epochs": epochs}
    bench.run(prmq, task, **arguments, prune_amount=0.0)
    assert len(walked) == int(len(task.retain.batched(batch_size)) * epochs)


def test_against_a_loop_by_hand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """CE weighed by n_y^(−0.1) and normalised, and squared differences of entropies.

    Compared before it is rounded, which may turn a last bit into one of float16.
    """
    task, net, teacher = bench.task, bench.original, bench.original.eval()
    _prune_and_redraw(net, 0.8, task)
    n_y = task.retain.y.tolist()
    c = torch.tensor([n_y.count(label) ** -0.1 for label in range(10)]).double()
    optimizer = torch.optim.SGD(net.train().parameters(), **SGD)

    def entropy(model: nn.Module, x: Tensor) -> Tensor:
        p: Tensor = model(x).softmax(1)
        return -(p * p.log()).sum(1)

    steps = 0
    for _ in range(2):
        for x, y in task.retain.batched(64):
            losses = -net(x).log_softmax(1)[torch.arange(len(y)), y]
            apart = (entropy(net, x) - entropy(teacher, x).detach()).square().mean()
            optimizer.zero_grad()
            ((c[y] * losses).sum() / c[y].sum() + apart).backward()
            optimizer.step()
            steps += 1
            if steps == int(len(task.retain.batched(64)) * 1.5):
                break
    arguments = {**SETTINGS, "sgd": SGD, "epochs": 1.5, "prune_amount": 0.8}
    ended = bench.run(prmq, bench.task, **arguments).state_dict()
    monkeypatch.setattr(nn.Module, "half", lambda net: net)
    precise = bench.run(prmq, bench.task, **arguments)
    all_close(weights(precise), weights(net))
    assert same(ended, {name: rounded(t) for name, t in precise.state_dict().items()})


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="regression"):
        bench.run(prmq, replace(bench.task, n_classes=0), **SETTINGS, epochs=1.0, prune_amount=0.5)
