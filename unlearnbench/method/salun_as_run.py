"""SalUn as its authors' benchmark runs it: early batches count more in the mask."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method.random_labels import _descend_on_random_labels
from unlearnbench.train import gradient
from unlearnbench.train.loop import make_optimizer


def salun_as_run(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    threshold: float,
) -> nn.Module:
    """Train under random labels with the gradients of all but the salient weights set to zero.

        G = | Σ_i (n − i) · ∇ CE(B_i; θ_O) |   over the n forget batches, i from 0
        m = 1 for the ⌊threshold · P⌋ weights with the largest G, else 0
        θ ← SRL's step with ∇ ← m ⊙ ∇

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "SalUn".

    Differs from ``salun``: a batch counts once for each batch from it on, and weight decay moves
    masked weights.
    """
    forget, theta = task.forget.batched(batch_size), list(model.eval().parameters())
    G = [torch.zeros_like(tensor) for tensor in theta]
    for i, (x, y) in enumerate(forget):
        grads = torch.autograd.grad(task.loss(model, x, y), theta, materialize_grads=True)
        for total, g in zip(G, grads, strict=True):
            total.add_(g, alpha=len(forget) - i)
    m = gradient.largest(G, threshold)

    def mask_gradients(model: nn.Module) -> None:
        for parameter, mask in zip(model.parameters(), m, strict=True):
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    optimizer = make_optimizer(model, sgd)
    return _descend_on_random_labels(model, task, optimizer, epochs, batch_size, mask_gradients)
