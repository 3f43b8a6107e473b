"""NegGrad+ between its limits: finetuning at α = 1, ascent at α = 0."""

from typing import Any

import torch
from method.bench import SGD, Bench, all_close, same, weights
from torch import Tensor, nn

from unlearnbench.method.neggrad_plus import neggrad_plus
from unlearnbench.train.loop import descend

SETTINGS: dict[str, Any] = {"sgd": SGD, "epochs": 2, "batch_size": 64}


def test_alpha_one_is_finetuning_in_its_parameters(bench: Bench) -> None:
    """With the same schedule and batch-norm mode; the running statistics differ, as it says."""
    net = bench.run(neggrad_plus, bench.task, **SETTINGS, alpha=1.0)
    task = bench.task
    other = descend(bench.original, task.retain.batched(64), task.loss, sgd=SGD, epochs=2)
    assert same(weights(net), weights(other))
    assert not same(dict(net.named_buffers()), dict(other.named_buffers()))


def test_alpha_zero_is_ascent_over_the_retain_sets_length(bench: Bench) -> None:
    net = bench.run(neggrad_plus, bench.task, **SETTINGS, alpha=0.0)
    task = bench.task
    forget = task.forget.batched(64).endless()

    def ascent(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return -task.loss(model, *next(forget))

    other = descend(bench.original, task.retain.batched(64), ascent, sgd=SGD, epochs=2)
    all_close(weights(net), weights(other))


def test_raises_the_forget_loss_above_finetunings(bench: Bench) -> None:
    x, y = next(iter(bench.task.forget.batched(1000)))
    losses = []
    for alpha in (0.8, 1.0):
        net = bench.run(neggrad_plus, bench.task, **SETTINGS, alpha=alpha)
        with torch.no_grad():
            losses.append(float(bench.task.loss(net, x, y)))
    assert losses[0] > losses[1]
