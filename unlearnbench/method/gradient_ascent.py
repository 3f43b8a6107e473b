"""GA, gradient ascent: climb the loss of the forget rows."""

from collections.abc import Mapping

from torch import Tensor, nn

from unlearnbench.core.task import Task
from unlearnbench.train.loop import descend


def gradient_ascent(
    model: nn.Module, task: Task, *, sgd: Mapping[str, float], epochs: int, batch_size: int
) -> nn.Module:
    """Climb the loss of the forget rows; the retain rows are not looked at.

        θ ← θ − lr · ∇ [ −CE(B_f) ]

    The loss has no upper bound: a run that goes too far ends in weights that are not finite.
    Deep Unlearn (arXiv 2410.01276), "GA".
    """

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return -task.loss(model, x, y)

    return descend(model, task.forget.batched(batch_size), loss, sgd=sgd, epochs=epochs)
