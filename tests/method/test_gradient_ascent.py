"""Gradient ascent climbs the forget rows' loss and looks at nothing else."""

from dataclasses import replace

import torch
from method.bench import SGD, Bench, same
from torch import Tensor, nn

from unlearnbench.method.gradient_ascent import gradient_ascent
from unlearnbench.train.loop import descend

SETTINGS = {"sgd": SGD, "epochs": 2, "batch_size": 64}


def test_is_descent_on_the_negative_loss(bench: Bench) -> None:
    net = bench.run(gradient_ascent, bench.task, **SETTINGS)
    task = bench.task

    def negative(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return -task.loss(model, x, y)

    batches = task.forget.batched(64)
    other = descend(bench.original, batches, negative, sgd=SETTINGS["sgd"], epochs=2)
    assert same(net.state_dict(), other.state_dict())


def test_raises_the_forget_loss(bench: Bench) -> None:
    task = bench.task
    net = bench.run(gradient_ascent, task, **SETTINGS)
    x, y = next(iter(task.forget.batched(1000)))
    with torch.no_grad():
        assert task.loss(net, x, y) > task.loss(bench.original, x, y)


def test_does_not_look_at_retain_rows(bench: Bench) -> None:
    net = bench.run(gradient_ascent, bench.task, **SETTINGS)
    blind = replace(bench.task, retain=bench.task.forget)
    assert same(net.state_dict(), bench.run(gradient_ascent, blind, **SETTINGS).state_dict())
