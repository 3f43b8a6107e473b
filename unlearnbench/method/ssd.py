"""SSD, selective synaptic dampening: shrink weights that matter more to forget rows than to all."""

import torch
from torch import Tensor, nn

from unlearnbench.core.data import Batches
from unlearnbench.core.task import Task
from unlearnbench.train import gradient


def ssd(model: nn.Module, task: Task, *, alpha: float, lambda_: float) -> nn.Module:
    """Shrink the weights that matter more to the forget rows than to the whole training set.

        I_S = mean over x ∈ S of ( ∂ℓ(x)/∂θ )²  at θ_O,   S = D_F or D = D_R ∪ D_F
        where I_F > α · I_D:   θ ← min( λ · I_D / I_F, 1 ) · θ

    λ is ``lambda_``. No training; batch norm is frozen. Foster, Schoepf & Brintrup, "Fast Machine
    Unlearning without Retraining through Selective Synaptic Dampening" (AAAI 2024).
    """
    I_F, I_R = (_importances(model, part, task) for part in (task.forget, task.retain))
    n_F, n_R = len(task.forget.rows), len(task.retain.rows)
    with torch.no_grad():
        for theta, of_F, of_R in zip(model.parameters(), I_F, I_R, strict=True):
            of_D = (n_F * of_F + n_R * of_R) / (n_F + n_R)
            dampened = (lambda_ * of_D / of_F).clamp(max=1) * theta
            theta.copy_(torch.where(of_F > alpha * of_D, dampened, theta))
    return model.eval()


def _importances(model: nn.Module, batches: Batches, task: Task) -> list[Tensor]:
    sums = [torch.zeros_like(theta) for theta in model.parameters()]
    for gradients in gradient.gradients_of_rows(model, batches.ordered(), task.loss):
        for total, part in zip(sums, gradients, strict=True):
            total.add_((part**2).sum(0))
    return [total / len(batches.rows) for total in sums]
