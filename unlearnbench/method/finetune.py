"""FT, finetuning: go on training on retain rows."""

from collections.abc import Mapping

from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.train.loop import cosine, descend


def finetune(
    model: nn.Module, task: Task, *, sgd: Mapping[str, float], epochs: int, batch_size: int
) -> nn.Module:
    """Go on training on the retain rows alone, and let the forget rows fade.

        θ ← θ − lr_e · ∇ CE(B_r),   lr_e = lr · (1 + cos(πe/E)) / 2

    Deep Unlearn (arXiv 2410.01276), "FT".
    """
    retain = task.retain.batched(batch_size)
    return descend(model, retain, task.loss, sgd=sgd, epochs=epochs, schedule=cosine)
