"""NG+: descend on retain batches, ascend on forget batches, in lock-step."""

from collections.abc import Mapping

from torch import Tensor, nn

from unlearnbench.core.task import Task
from unlearnbench.train.loop import descend


def neggrad_plus(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    alpha: float,
) -> nn.Module:
    """Descend on retain batches while ascending on forget batches, in lock-step.

        L = α · CE(B_r) − (1 − α) · CE(B_f)

    One epoch is one walk over the retain rows; forget batches go round as often as it takes.
    Kurmanji et al., "Towards Unbounded Machine Unlearning" (NeurIPS 2023); Deep Unlearn
    (arXiv 2410.01276), "NG+".

    Differs: batch norm is in train mode, as in training; the published code freezes it. Forget
    batches are shuffled anew each time round. At α = 1 the parameters are those of finetuning, the
    batch-norm statistics are not: forget batches pass through the net and count in them.
    """
    forget = task.forget.batched(batch_size).endless()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return alpha * task.loss(model, x, y) - (1 - alpha) * task.loss(model, *next(forget))

    return descend(model, task.retain.batched(batch_size), loss, sgd=sgd, epochs=epochs)
