"""NegGrad+ as run: eval mode throughout, and forget batches that come again in one order."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from method.bench import SGD, Bench, all_close, same, weights
from torch import Tensor, nn

from unlearnbench.method.neggrad_plus_as_run import neggrad_plus_as_run
from unlearnbench.train.loop import descend

SETTINGS: dict[str, Any] = {"sgd": SGD, "batch_size": 32}


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    net = bench.run(neggrad_plus_as_run, bench.task, **SETTINGS, epochs=0, alpha=0.5)
    assert same(net.state_dict(), bench.original.state_dict())


def test_alpha_one_is_finetuning_in_eval_mode_without_a_schedule(bench: Bench) -> None:
    """Bit-equal to one loop of two epochs, buffers too: momentum lives on between epochs."""
    net = bench.run(neggrad_plus_as_run, bench.task, **SETTINGS, epochs=2, alpha=1.0)
    retain, loss = bench.task.retain.batched(32), bench.task.loss
    other = descend(bench.original, retain, loss, sgd=SGD, epochs=2, training=False)
    assert same(net.state_dict(), other.state_dict())
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))


def test_alpha_zero_is_ascent_over_the_retain_sets_length(bench: Bench) -> None:
    sgd = {**SGD, "lr": 1e-4}  # at more the ascent is not finite
    net = bench.run(neggrad_plus_as_run, bench.task, sgd=sgd, batch_size=32, epochs=2, alpha=0.0)
    other, task = bench.original.eval(), bench.task
    optimizer = torch.optim.SGD(other.parameters(), **sgd)
    for _ in range(2):
        batches = list(task.forget.batched(32))
        for number in range(len(task.retain.batched(32))):
            optimizer.zero_grad()
            (-task.loss(other, *batches[number % len(batches)])).backward()
            optimizer.step()
    all_close(weights(net), weights(other))


def test_forget_batches_repeat_in_order_within_an_epoch_and_not_beyond(bench: Bench) -> None:
    task, seen, modes = bench.task, list[Tensor](), set[bool]()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(x)
        modes.add(model.training)
        return bench.task.loss(model, x, y)

    bench.run(neggrad_plus_as_run, replace(task, loss=loss), **SETTINGS, epochs=3, alpha=0.9)
    assert modes == {False}
    steps, walk = len(task.retain.batched(32)), len(task.forget.batched(32))
    assert steps > 2 * walk > 2
    batches = seen[1::2]  # each step asks for the retain loss first
    epochs = [batches[start : start + steps] for start in range(0, 3 * steps, steps)]
    for epoch in epochs:
        assert all(torch.equal(epoch[i], epoch[i % walk]) for i in range(steps))
        rows = torch.cat(epoch[:walk]).flatten(1)
        assert len(rows) == len(task.forget.rows)
        assert len(rows.unique(dim=0)) == len(rows)
    assert not any(torch.equal(one[0], other[0]) for one, other in pairwise(epochs))
