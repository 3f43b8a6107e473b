"""Finetuning is the loop on the retain rows."""

import torch
import torch.nn.functional as F
from method.bench import SGD, Bench, all_close, same, weights

from unlearnbench.method.finetune import finetune


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    net = bench.run(finetune, bench.task, sgd=SGD, epochs=0, batch_size=64)
    assert same(net.state_dict(), bench.original.state_dict())


def test_against_a_loop_by_hand(bench: Bench) -> None:
    """θ ← θ − lr_e ∇CE with momentum and weight decay, lr_e = lr (1 + cos(πe/E)) / 2."""
    net = bench.run(finetune, bench.task, sgd=SGD, epochs=3, batch_size=64)
    other = bench.original.train()
    velocity = {name: torch.zeros_like(p) for name, p in other.named_parameters()}
    batches = bench.task.retain.batched(64)
    for factor in (1.0, 0.75, 0.25):
        for x, y in batches:
            other.zero_grad()
            F.cross_entropy(other(x), y).backward()
            with torch.no_grad():
                for name, p in other.named_parameters():
                    g = p.grad + SGD["weight_decay"] * p
                    velocity[name] = SGD["momentum"] * velocity[name] + g
                    p -= SGD["lr"] * factor * velocity[name]
    all_close(weights(net), weights(other))


def test_lowers_the_retain_loss(bench: Bench) -> None:
    task = bench.task
    net = bench.run(finetune, task, sgd=SGD, epochs=3, batch_size=64)
    x, y = next(iter(task.retain.batched(1000)))
    with torch.no_grad():
        assert task.loss(net, x, y) < task.loss(bench.original, x, y)
