"""MSG as run: scores are sums over batches in train mode, which moves the batch norms."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import compose
from method.bench import SGD, TOLERANCE, Bench, same, weights

from unlearnbench.method import _redraw as redraw
from unlearnbench.method.msg import msg
from unlearnbench.method.msg_as_run import msg_as_run
from unlearnbench.train.loop import descend

SETTINGS: dict[str, Any] = {"sgd": SGD, "batch_size": 20}
CONVOLUTIONS = ["stem.0.weight", "stage1.0.weight", "stage2.0.weight"]


@pytest.mark.parametrize("init_rate", [0.0, 0.3])
def test_scoring_moves_running_statistics(bench: Bench, init_rate: float) -> None:
    """And a share of each convolution is drawn anew; nothing else changes."""
    net = bench.run(msg_as_run, bench.task, **SETTINGS, epochs=0, init_rate=init_rate)
    before = bench.original.state_dict()
    for name, tensor in net.state_dict().items():
        changed = (tensor != before[name]).sum()
        if "running" in name or "tracked" in name:
            assert changed > 0.9 * tensor.numel(), name
        else:
            share = init_rate if name in CONVOLUTIONS else 0
            assert changed == round(share * tensor.numel()), name


def test_scores_against_a_loop_by_hand(bench: Bench) -> None:
    """Retain rows come in batches of 64 whatever the batch size; the two sums do not balance."""
    task, net = bench.task, bench.original.train()
    drawn = torch.randperm(len(task.retain.rows), generator=task.generator("scores"))
    for sign, part in (
        (1, task.retain.chosen(drawn[: len(task.forget.rows)]).batched(64)),
        (-1, task.forget.batched(20)),
    ):
        for x, y in part:
            (sign * task.loss(net, x, y)).backward()  # ``grad`` adds them up
    found = bench.run(msg_as_run, bench.task, **SETTINGS, epochs=0, init_rate=0.3)
    assert same(dict(net.named_buffers()), dict(found.named_buffers()))
    balanced = bench.run(msg, bench.task, **SETTINGS, epochs=0, init_rate=0.3)
    parameters = dict(net.named_parameters())
    for name in CONVOLUTIONS:
        scores = parameters[name].grad.abs()
        changed = weights(found)[name] != parameters[name]
        border = scores.flatten().sort().values[changed.sum() - 1] * (1 + TOLERANCE)
        assert scores[changed].max() <= border
        assert scores[weights(balanced)[name] != parameters[name]].max() > border


@pytest.mark.tried(
    "a skipped row of msg_as_run for a net without convolutions",
    "it finetunes, as the published code would, and the row has acted_on = 0",
)
def test_a_net_without_convolutions_is_finetuned(bench: Bench) -> None:
    noted: dict[str, float] = {}
    linear = Bench(bench.workspace, compose("model=logreg"))
    task = replace(linear.task, note=noted.__setitem__)
    net = linear.run(msg_as_run, task, **SETTINGS, epochs=2, init_rate=0.3)
    assert noted == {"acted_on": 0}
    task = linear.task
    alike = task.retain.chosen(torch.arange(len(task.forget.rows)))
    for part in (alike.batched(64), task.forget.batched(20)):
        list(part)  # scoring walks once; orders of batches are drawn one after the other
    how: dict[str, Any] = {"sgd": SGD, "epochs": 2, "schedule": redraw.triangle}
    other = descend(linear.original, task.retain.batched(20), task.loss, **how)
    assert same(weights(net), weights(other))


def test_trains_like_msg_from_where_scoring_left_it(bench: Bench) -> None:
    """Nothing is drawn anew and nothing depends on running statistics: parameters agree."""
    arguments = {**SETTINGS, "epochs": 3, "init_rate": 0.0}
    net, other = (bench.run(method, bench.task, **arguments) for method in (msg, msg_as_run))
    assert same(weights(net), weights(other))
