"""SalUn between its limits: nothing moves at threshold 0, random labels at 1."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import TOLERANCE, Bench, same, weights
from torch import Tensor

from unlearnbench.core.errors import Skip
from unlearnbench.method.random_labels import random_labels
from unlearnbench.method.salun import salun

SETTINGS: dict[str, Any] = {
    "sgd": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.05},
    "epochs": 2,
    "batch_size": 50,
}


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_threshold_one_is_random_labels(bench: Bench) -> None:
    net = bench.run(salun, bench.task, **SETTINGS, threshold=1.0)
    other = bench.run(random_labels, bench.task, **SETTINGS)
    assert same(net.state_dict(), other.state_dict())


def test_threshold_zero_moves_running_statistics_alone(bench: Bench) -> None:
    net = bench.run(salun, bench.task, **SETTINGS, threshold=0.0)
    assert same(weights(net), weights(bench.original))
    assert not same(dict(net.named_buffers()), dict(bench.original.named_buffers()))


@pytest.mark.parametrize("threshold", [0.1, 0.6])
def test_only_the_most_salient_weights_move(bench: Bench, threshold: float) -> None:
    """Momentum and weight decay move no other, not by a bit."""
    start, task = bench.original.eval(), bench.task
    ((x, y),) = task.forget.batched(1000)
    G = flat(torch.autograd.grad(task.loss(start, x, y), list(start.parameters()))).abs()
    n = int(threshold * len(G))
    # From train mode, for the mask takes eval mode by itself.
    net = salun(bench.original.train(), task, **SETTINGS, threshold=threshold)
    moved = flat(weights(net).values()) != flat(weights(start).values())
    assert 0.99 * n < moved.sum() <= n
    # Batches add up to G but for rounding, which may swap weights at the border.
    assert G[moved].min() > (1 - TOLERANCE) * G.sort(descending=True).values[n - 1]


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        bench.run(salun, replace(bench.task, n_classes=0), **SETTINGS, threshold=0.5)
