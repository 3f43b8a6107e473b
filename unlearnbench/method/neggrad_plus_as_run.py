"""NG+ as its authors' benchmark runs it: batch norm frozen, forget batches in one order."""

from collections.abc import Mapping
from itertools import cycle

from torch import Tensor, nn

from unlearnbench.core.data import Loss
from unlearnbench.core.task import Task
from unlearnbench.train.loop import descend, make_optimizer


def neggrad_plus_as_run(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    alpha: float,
) -> nn.Module:
    """Descend on retain batches while ascending on forget batches, with batch norm frozen.

        L = α · CE(B_r) − (1 − α) · CE(B_f)

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "NG+".

    Differs from ``neggrad_plus``: the model is in eval mode throughout, and within an epoch the
    forget batches of its first walk come again in the same order.
    """
    retain, optimizer = task.retain.batched(batch_size), make_optimizer(model, sgd)
    for _ in range(epochs):
        loss = _loss(task, batch_size, alpha)
        descend(model, retain, loss, sgd=optimizer, epochs=1, training=False)
    return model


def _loss(task: Task, batch_size: int, alpha: float) -> Loss:
    forget = cycle(task.forget.batched(batch_size))

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return alpha * task.loss(model, x, y) - (1 - alpha) * task.loss(model, *next(forget))

    return loss
