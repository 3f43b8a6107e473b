"""ℓ1-sparse: finetuning at γ = 0, a smaller norm above it, and a pull that falls linearly."""

from typing import Any

import torch
import torch.nn.functional as F
from method.bench import SGD, Bench, all_close, same, weights
from torch import nn

from unlearnbench.method.finetune import finetune
from unlearnbench.method.l1_sparse import l1_sparse

SETTINGS: dict[str, Any] = {"sgd": SGD, "epochs": 2, "batch_size": 64}


def norm(net: nn.Module) -> float:
    return sum(float(theta.abs().sum()) for theta in weights(net).values())


def test_gamma_zero_is_finetuning_to_the_bit(bench: Bench) -> None:
    net = bench.run(l1_sparse, bench.task, **SETTINGS, gamma=0.0)
    other = bench.run(finetune, bench.task, **SETTINGS)
    assert same(net.state_dict(), other.state_dict())


def test_a_larger_gamma_leaves_a_smaller_norm(bench: Bench) -> None:
    norms = [
        norm(bench.run(l1_sparse, bench.task, **SETTINGS, gamma=gamma))
        for gamma in (0.0, 5e-4, 5e-3)
    ]
    assert norms[0] > 1.02 * norms[1] > 1.05 * norms[2]


def test_against_a_loop_by_hand(bench: Bench) -> None:
    """γ_e = γ (1 − e/E) on all parameters, while lr_e is a cosine and momentum lives on."""
    gamma = 0.01
    net = bench.run(l1_sparse, bench.task, **SETTINGS, gamma=gamma)
    other = bench.original.train()
    optimizer = torch.optim.SGD(other.parameters(), **SGD)
    batches = bench.task.retain.batched(64)
    for rate, pull in ((1.0, 1.0), (0.5, 0.5)):
        optimizer.param_groups[0]["lr"] = rate * SGD["lr"]
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(other(x), y).backward()
            for p in other.parameters():
                assert p.grad is not None
                p.grad += gamma * pull * p.detach().sign()
            optimizer.step()
    all_close(weights(net), weights(other))
