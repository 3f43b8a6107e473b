"""UNSIR: unlearning a class by noise, impair and repair."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import descend


def unsir(
    model: nn.Module,
    task: Task,
    *,
    noise: Mapping[str, float],
    impair_lr: float,
    repair_lr: float,
    rows_per_class: int,
    batch_size: int,
) -> nn.Module:
    """Learn inputs that the net calls anything but the class, train on them, then on retain rows.

        N = argmin_N  −CE( θ_O(N), c ) + λ · mean_i ‖N_i‖²   for each forgotten class c
        impair: one epoch of Adam on CE( R' ∪ (N, c) )
        repair: one epoch of Adam on CE( R' ),   R' ⊂ D_R of ``rows_per_class`` rows a class at most

    N starts from N(0, 1); ``noise`` holds Adam's ``lr`` and ``steps``, and λ (``penalty``). For
    classes forgotten whole. Tarun et al., "Fast Yet Effective Machine Unlearning" (arXiv
    2111.08947).
    """
    forgotten = task.forget.y.unique()
    if not task.n_classes or torch.isin(task.retain.y, forgotten).any():
        raise Skip("UNSIR forgets whole classes, and retain rows of the forgotten ones are left")
    c = forgotten.repeat_interleave(batch_size)
    N = _noise(model, task, c, noise)

    def beside_noise(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return task.loss(model, torch.cat([x, N]), torch.cat([y, c]))

    places = [(task.retain.y == y).nonzero().flatten() for y in task.retain.y.unique()]
    R = task.retain.chosen(torch.cat([one[:rows_per_class] for one in places])).batched(batch_size)
    for lr, loss in ((impair_lr, beside_noise), (repair_lr, task.loss)):
        descend(model, R, loss, sgd=Adam(model.parameters(), lr=lr, fused=True), epochs=1)
    return model


def _noise(model: nn.Module, task: Task, c: Tensor, noise: Mapping[str, float]) -> Tensor:
    theta_O, x = ops.frozen(model), task.retain.data.inputs(task.retain.rows[:1])
    N = ops.normal(x.expand(len(c), *x.shape[1:]), task.generator("noise")).requires_grad_()
    optimizer = Adam([N], lr=noise["lr"])
    for _ in range(int(noise["steps"])):
        size = N.flatten(1).square().sum(1).mean()
        optimizer.zero_grad()
        (noise["penalty"] * size - task.loss(theta_O, N, c)).backward()
        optimizer.step()
    return N.detach()
