"""ℓ1-sparse: finetune with a falling ℓ1 penalty."""

from collections.abc import Mapping

from torch import Tensor, nn

from unlearnbench.core.data import Loss
from unlearnbench.core.task import Task
from unlearnbench.train.loop import at, cosine, descend, make_optimizer


def l1_sparse(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    gamma: float,
) -> nn.Module:
    """Finetune on the retain rows while pulling all weights towards zero, less and less.

        θ ← θ − lr_e · ∇ [ CE(B_r) + γ_e · ‖θ‖₁ ],   γ_e = γ · (1 − e/E),   lr_e a cosine

    Jia et al., "Model Sparsity Can Simplify Machine Unlearning" (NeurIPS 2023).
    """
    retain, optimizer = task.retain.batched(batch_size), make_optimizer(model, sgd)
    for e in range(epochs):
        loss, rate = _sparse(task.loss, gamma * (1 - e / epochs)), at(cosine, e, epochs)
        descend(model, retain, loss, sgd=optimizer, epochs=1, schedule=rate)
    return model


def _sparse(loss: Loss, gamma_e: float) -> Loss:
    def sparse_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        norm = sum(theta.abs().sum() for theta in model.parameters())
        return loss(model, x, y) + gamma_e * norm

    return sparse_loss
