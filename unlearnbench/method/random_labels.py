"""SRL, successive random labels: train on all rows, forget rows under labels drawn anew."""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.train.loop import descend, make_optimizer


def random_labels(
    model: nn.Module, task: Task, *, sgd: Mapping[str, float], epochs: int, batch_size: int
) -> nn.Module:
    """Train on all rows, the forget rows under labels drawn anew each epoch.

        y'_f ~ U{0, …, C−1}  for each forget row, each epoch
        θ ← θ − lr · ∇ CE(B),   B from D_R ∪ {(x_f, y'_f)}

    A drawn label may be the true one. Deep Unlearn (arXiv 2410.01276), "SRL".

    Differs: the published code draws the same stream of labels in every epoch.
    """
    return _descend_on_random_labels(model, task, make_optimizer(model, sgd), epochs, batch_size)


def _descend_on_random_labels(
    model: nn.Module,
    task: Task,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int,
    edit: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    if not task.n_classes:
        raise Skip("random labels need classes to draw from; this is a regression")
    labels, retain = task.generator("labels"), task.retain.batched(batch_size)
    for _ in range(epochs):
        drawn = torch.randint(task.n_classes, (len(task.forget.rows),), generator=labels)
        mixed = retain.joined(task.forget.relabelled(drawn))
        descend(model, mixed, task.loss, sgd=optimizer, epochs=1, grad_hook=edit)
    return model
