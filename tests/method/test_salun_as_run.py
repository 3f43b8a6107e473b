"""SalUn as run: early batches weigh more in the mask, and weight decay moves what it masks."""

from typing import Any

import torch
from method.bench import TOLERANCE, Bench, all_close, same, weights
from torch import Tensor

from unlearnbench.method.random_labels import random_labels
from unlearnbench.method.salun import salun
from unlearnbench.method.salun_as_run import salun_as_run

SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0}
SETTINGS: dict[str, Any] = {"sgd": SGD, "epochs": 2, "batch_size": 20}


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_threshold_one_is_random_labels(bench: Bench) -> None:
    net = bench.run(salun_as_run, bench.task, **SETTINGS, threshold=1.0)
    other = bench.run(random_labels, bench.task, **SETTINGS)
    assert same(net.state_dict(), other.state_dict())


def test_one_batch_and_no_weight_decay_is_salun(bench: Bench) -> None:
    """The two have nothing left to differ in."""
    arguments = {**SETTINGS, "batch_size": 1000, "threshold": 0.3}
    net, other = (bench.run(method, bench.task, **arguments) for method in (salun, salun_as_run))
    assert same(net.state_dict(), other.state_dict())


def test_batch_i_of_n_counts_n_minus_i_times(bench: Bench) -> None:
    task, start = bench.task, bench.original.eval()
    batches = task.forget.batched(SETTINGS["batch_size"])
    G = torch.zeros(())
    running = torch.zeros(())
    for x, y in batches:  # a sum of running sums is that weighting
        running = running + flat(
            torch.autograd.grad(task.loss(start, x, y), list(start.parameters()))
        )
        G = G + running
    assert len(batches) > 3
    n = int(0.3 * len(G))
    # From train mode, for the mask takes eval mode by itself.
    net = salun_as_run(bench.original.train(), bench.task, **SETTINGS, threshold=0.3)
    moved = flat(weights(net).values()) != flat(weights(start).values())
    assert 0.97 * n < moved.sum() <= n
    for sums, holds in ((G.abs(), True), (running.abs(), False)):
        border = (1 - TOLERANCE) * sums.sort(descending=True).values[n - 1]
        assert bool(sums[moved].min() > border) is holds


def test_weight_decay_moves_masked_weights(bench: Bench) -> None:
    """With all of them masked, θ shrinks by 1 − lr·λ a step."""
    sgd = {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.1}
    task = bench.task
    net = bench.run(salun_as_run, task, **{**SETTINGS, "sgd": sgd}, threshold=0.0)
    steps = 2 * len(task.train.batched(SETTINGS["batch_size"]))
    shrunk = {name: p * (1 - 0.001) ** steps for name, p in weights(bench.original).items()}
    all_close(weights(net), shrunk)
