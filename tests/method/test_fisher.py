"""Fisher forgetting: the diagonal by brute force, and the noise that follows from it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from method.bench import Bench, close, same, weights
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.method import _ops as ops
from unlearnbench.method import fisher as module
from unlearnbench.method.fisher import _diagonal, fisher
from unlearnbench.model.mlp import mlp


def brute_force(bench: Bench, batch_size: int) -> dict[str, Tensor]:
    """(1/M) Σ_b Σ_y p̄_b(y) g², g the gradient of the mean CE of a batch towards one label y."""
    net, retain = bench.original.eval(), bench.task.retain
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    batches = retain.rows.split(batch_size)
    for rows in batches:
        x = bench.data.inputs(rows)
        for y in range(10):
            net.zero_grad()
            z = net(x)
            F.cross_entropy(z, torch.full((len(x),), y)).backward()
            p_bar = z.detach().softmax(1)[:, y].mean()
            for name, p in net.named_parameters():
                assert p.grad is not None
                total[name] += p_bar * p.grad**2 / len(batches)
    return total


def variance(name: str, of: Tensor, alpha: float) -> Tensor:
    """As specified, tensor by tensor; the head alone has a first axis of ten, that of classes."""
    v = (1 / (of + 1e-8)).clamp(max=1e3)
    if name.startswith("head."):
        v = v.clamp(max=1e2)
    v = alpha * v
    if v.ndim > 1:
        v = v.mean(dim=1, keepdim=True)
    return 10 * v if name.startswith("head.") or v.ndim == 1 else v


def test_alpha_zero_is_the_identity(bench: Bench) -> None:
    net = bench.run(fisher, bench.task, alpha=0.0, batch_size=64)
    assert same(net.state_dict(), bench.original.state_dict())


@pytest.mark.parametrize("batch_size", [256, 450])
def test_the_diagonal_by_brute_force(bench: Bench, batch_size: int) -> None:
    """In batches of the rows' own order, the last of which is smaller and weighs as much."""
    assert bench.task.retain.batched(batch_size).sizes[-1] < batch_size
    diagonal = _diagonal(bench.original, bench.task, batch_size)
    for one, other in zip(diagonal, brute_force(bench, batch_size).values(), strict=True):
        close(one, other)


def test_the_noises_deviation(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ones for normal draws the weights move by it."""
    monkeypatch.setattr(ops, "normal", lambda like, _: torch.ones_like(like))
    net = bench.run(fisher, bench.task, alpha=0.01, batch_size=256)
    of, before, clamped = brute_force(bench, 256), weights(bench.original), set[bool]()
    for name, p in weights(net).items():
        v = variance(name, of[name], 0.01)
        close(p - before[name], v.sqrt().expand_as(p))
        clamped |= set((1 / (of[name] + 1e-8) > 1e3).unique().tolist())
    assert clamped == {True, False}


@pytest.mark.tried(
    "a hidden layer as wide as there are classes under Fisher forgetting's rule for the classifier",
    "the rule is for the head alone; the hidden layer gets the noise of hidden layers",
)
def test_a_hidden_layer_as_wide_as_there_are_classes_is_no_classifier(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variance is capped at 1e3 α and not taken tenfold; the head's at 1e2 α, tenfold."""
    monkeypatch.setattr(ops, "normal", lambda like, _: torch.ones_like(like))
    flat = [torch.zeros(p.shape) for p in wide().parameters()]
    monkeypatch.setattr(module, "_diagonal", lambda *_: flat)
    after, before = weights(fisher(wide(), bench.task, alpha=0.01, batch_size=64)), weights(wide())
    v = {name: float(((p - before[name]) ** 2).mean()) for name, p in after.items()}
    assert v["hidden1.0.weight"] == pytest.approx(0.01 * 1e3, rel=1e-3)
    assert v["hidden1.0.bias"] == pytest.approx(0.01 * 1e4, rel=1e-3)
    assert v["head.weight"] == v["head.bias"] == pytest.approx(0.01 * 1e3, rel=1e-3)


def wide() -> nn.Module:
    """An MLP of a hidden layer of ten, for ten classes; all weights 0."""
    net = mlp((1, 8, 8), 10, hidden=[10], norm="batch")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    return net


def test_the_noise_is_standard_normal_and_the_seeds(bench: Bench) -> None:
    net = bench.run(fisher, bench.task, alpha=0.01, batch_size=256)
    of, before = brute_force(bench, 256), weights(bench.original)
    draws = {
        name: (p - before[name]) / variance(name, of[name], 0.01).sqrt()
        for name, p in weights(net).items()
    }
    z = torch.cat([draw.flatten() for draw in draws.values()])
    within = [float((z.abs() < bound).float().mean()) for bound in (1.0, 2.0, 3.0)]
    assert float(z.mean()) == pytest.approx(0.0, abs=0.02)
    assert within == pytest.approx([0.6827, 0.9545, 0.9973], abs=0.01)
    one, other = (draws[f"stage{k}.0.weight"].flatten()[:99] for k in (1, 2))
    assert not torch.allclose(one, other, atol=0.1)


def test_buffers_stay_and_forget_rows_have_no_say(bench: Bench) -> None:
    task = bench.task
    few = replace(task, forget=task.forget.chosen(torch.arange(3)))
    net, other = (bench.run(fisher, t, alpha=0.01, batch_size=256) for t in (task, few))
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))
    assert same(net.state_dict(), other.state_dict())


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="labels"):
        bench.run(fisher, replace(bench.task, n_classes=0), alpha=0.01, batch_size=64)
