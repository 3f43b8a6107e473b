"""FCS: one walk towards uniform posteriors, then rounds of blurring and training."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from method.bench import Bench, all_close, weights
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.method import fcs as module
from unlearnbench.method.fcs import fcs
from unlearnbench.train import loop

SETTINGS: dict[str, Any] = {
    "sgd": {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01},
    "retain_sgd": {"lr": 0.03, "momentum": 0.8, "weight_decay": 0.02},
    "forget_sgd": {"lr": 0.05, "momentum": 0.7, "weight_decay": 0.03},
    "eta_min": 0.01,
    "batch_size": 40,
    "temperature": 1.5,
}


def optimizer(net: nn.Module, name: str) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), **SETTINGS[name])


def down(net: nn.Module, value: Tensor, by: torch.optim.SGD) -> None:
    net.zero_grad()
    value.backward()
    by.step()


@pytest.mark.parametrize("epochs", [0, 2])
def test_against_loops_by_hand(bench: Bench, epochs: int) -> None:
    task, net = bench.task, bench.original.train()
    forget, retain = task.forget.batched(40), task.retain.batched(40)
    others, first = retain.endless(), optimizer(net, "sgd")
    for x, _ in forget:
        p = net(x).softmax(1)
        down(net, (0.1 * (0.1 / p).log()).sum() / len(x), first)
    blur, strengthen, t = optimizer(net, "forget_sgd"), optimizer(net, "retain_sgd"), 0
    for _ in range(epochs):
        for x, _ in forget:
            Z_f, Z_r = net(x), net(next(others)[0]).detach()
            S = torch.stack([torch.stack([f @ r for r in Z_r]) for f in Z_f]) / 1.5
            half = (1 + math.cos(math.pi * t / (epochs * len(forget)))) / 2
            blur.param_groups[0]["lr"] = 0.01 + (0.05 - 0.01) * half
            down(net, (S.logsumexp(1, keepdim=True) - S).mean(), blur)
            t += 1
        for x, y in retain:
            down(net, F.cross_entropy(net(x), y), strengthen)
    found = bench.run(fcs, bench.task, **SETTINGS, epochs=epochs)
    all_close(found.state_dict(), net.state_dict())


@pytest.mark.parametrize("eta_min", [1e-6, 0.1])
def test_the_forget_rate_is_one_cosine_over_all_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, eta_min: float
) -> None:
    """From lr to η, upwards if η is larger; the last step is one short of η."""
    rates: dict[float, list[float]] = {}

    def watched(net: nn.Module, sgd: Any) -> torch.optim.SGD:
        made, seen = loop.make_optimizer(net, sgd), rates.setdefault(sgd["lr"], [])
        made.register_step_pre_hook(lambda *_: seen.append(made.param_groups[0]["lr"]))
        return made

    monkeypatch.setattr(module, "make_optimizer", watched)
    task = bench.task
    bench.run(fcs, task, **{**SETTINGS, "eta_min": eta_min}, epochs=2)
    assert set(rates[0.03]) == {0.03}
    assert len(rates[0.03]) == 2 * len(task.retain.batched(40))
    T = 2 * len(task.forget.batched(40))
    halves = [(1 + math.cos(math.pi * t / T)) / 2 for t in range(T)]
    assert rates[0.05] == pytest.approx([eta_min + (0.05 - eta_min) * half for half in halves])


def test_flattens_the_posteriors_of_forget_rows(bench: Bench) -> None:
    ((x, _),) = bench.task.forget.batched(1000)
    gentle = {**SETTINGS, "sgd": {"lr": 0.005, "momentum": 0.9, "weight_decay": 0.0}}
    net = bench.run(fcs, bench.task, **gentle, epochs=0)
    with torch.no_grad():
        before, after = (
            model(x).softmax(1).max(1).values.mean() for model in (bench.original, net)
        )
    assert after < before
    assert not torch.equal(weights(net)["stem.0.weight"], weights(bench.original)["stem.0.weight"])


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        bench.run(fcs, replace(bench.task, n_classes=0), **SETTINGS, epochs=1)
