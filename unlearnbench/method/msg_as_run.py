"""MSG as its authors' benchmark runs it: scores that move the batch norms."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method import _redraw as redraw
from unlearnbench.train.loop import descend


def msg_as_run(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    init_rate: float,
) -> nn.Module:
    """Draw those convolution weights anew on which retain and forget rows agree; then finetune.

        s = | Σ_b ∇ CE(R'_b) − Σ_b ∇ CE(B_f) |,   R' ⊂ D_R of n_F rows in batches of 64
        S, reset, gradients and schedule as ``msg``

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "MSG".

    Differs from ``msg``: the model is in train mode while scoring, so batch-norm statistics move;
    sums run over batches, which balance only where ``batch_size`` is 64; a net without convolutions
    is finetuned.
    """
    forget, retain = task.forget.batched(batch_size), task.retain.batched(batch_size)
    drawn = torch.randperm(len(retain.rows), generator=task.generator("scores"))
    alike, theta = retain.chosen(drawn[: len(forget.rows)]).batched(64), list(model.parameters())
    s = [torch.zeros_like(tensor) for tensor in theta]
    model.train()
    for sign, part in ((1, alike), (-1, forget)):
        for x, y in part:
            grads = torch.autograd.grad(task.loss(model, x, y), theta, materialize_grads=True)
            for total, g in zip(s, grads, strict=True):
                total.add_(g, alpha=sign)
    slow = redraw.redraw(model, task, [tensor.abs() for tensor in s], init_rate)
    rise = redraw.triangle
    return descend(model, retain, task.loss, sgd=sgd, epochs=epochs, schedule=rise, grad_hook=slow)
