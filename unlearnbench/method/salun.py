"""SalUn: random labels, and only the weights move that forget rows pull at."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method.random_labels import _descend_on_random_labels
from unlearnbench.train import gradient
from unlearnbench.train.loop import make_optimizer


def salun(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    threshold: float,
) -> nn.Module:
    """Train under random labels, and let only those weights move that the forget rows pull at.

        m = 1 for the ⌊threshold · P⌋ weights with the largest | ∇ CE(D_F; θ_O) |, else 0
        θ ← m ⊙ SRL(θ) + (1 − m) ⊙ θ_O   after each step

    Fan et al., "SalUn" (ICLR 2024); Deep Unlearn (arXiv 2410.01276), "SalUn".

    Differs: the published code weighs batches unevenly in m and lets weight decay move masked
    weights (``salun_as_run``). Batch-norm statistics are no weights and move.
    """
    G = gradient.gradient(model, task.forget.batched(batch_size), task.loss)
    m, theta_O = gradient.largest(G, threshold), [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def put_back(*_: object) -> None:
        for theta, mask, start in zip(model.parameters(), m, theta_O, strict=True):
            theta.copy_(torch.where(mask, theta, start))

    optimizer = make_optimizer(model, sgd)
    optimizer.register_step_post_hook(put_back)
    return _descend_on_random_labels(model, task, optimizer, epochs, batch_size)
