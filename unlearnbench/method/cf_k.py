"""CF-k, catastrophic forgetting: train the head and the last k stages on retain rows."""

from torch import Tensor, nn

from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import descend, step_decay


def cf_k(
    model: nn.Module,
    task: Task,
    *,
    lr: float,
    decay: float,
    proximity: float,
    epochs: int,
    batch_size: int,
    k: int,
) -> nn.Module:
    """Freeze all but the head and the k stages before it, and go on training those on retain rows.

        θ_k ← θ_k − lr_e · ∇ [ CE(B_r) + (λ/2) · ‖θ_k − θ_O,k‖² ],   lr_e = lr · ρ^s(e)

    λ is ``proximity`` and ρ ``decay``; s(e) counts which of ⌊E/2⌋, ⌊.8E⌋, ⌊.9E⌋ are over. Plain
    gradient descent, no momentum. Batch norm is frozen, so what is frozen stays as it is to the
    bit. Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning" (arXiv
    2201.06640); Deep Unlearn (arXiv 2410.01276), "CF-k".

    Differs: with k above the number of stages the stem moves too; in the published code never, nor
    does a TinyViT's stage of convolutions, which is the fourth here.
    """
    sgd = {"lr": lr, "momentum": 0.0, "weight_decay": 0.0}
    with ops.only(model, ops.tail(model, k).values()) as movable:
        start = [parameter.detach().clone() for parameter in movable]

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            pairs = zip(movable, start, strict=True)
            away = sum(((parameter - before) ** 2).sum() for parameter, before in pairs)
            return task.loss(model, x, y) + proximity / 2 * away

        retain, schedule = task.retain.batched(batch_size), step_decay(decay)
        return descend(
            model, retain, loss, sgd=sgd, epochs=epochs, schedule=schedule, training=False
        )
