"""Redraw or disturb weights of some layers."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearnbench.core.task import Task
from unlearnbench.method._ops import convolutions, note_acted_on
from unlearnbench.train.gradient import smallest


def redraw(
    model: nn.Module, task: Task, s: list[Tensor], init_rate: float
) -> Callable[[nn.Module], None]:
    """Reset of MSG: redraw the weights with the smallest scores in each convolution.

    Args:
        model: changed in place.
        task: task with the generator, which records the share acted on.
        s: a score for each weight, one tensor per parameter.
        init_rate: share of the weights of each convolution that is redrawn.

    Returns:
        A function that scales gradients: 1 for redrawn weights of convolutions, 0.1 for the others.
    """
    weights = [conv.weight for conv in convolutions(model)]
    note_acted_on(task, model, weights)
    draw, scores = task.generator("reset"), dict(zip(map(id, model.parameters()), s, strict=True))
    scaled = []
    for W in weights:
        S = smallest(scores[id(W)], init_rate)
        fresh = nn.init.kaiming_normal_(
            torch.empty(W.shape, dtype=W.dtype),
            mode="fan_out",
            nonlinearity="relu",
            generator=draw,
        )
        W.data = torch.where(S, fresh.to(W), W.data)
        scaled.append((W, torch.where(S, W.new_tensor(1.0), W.new_tensor(0.1))))

    def scale_gradients(model: nn.Module) -> None:
        for W, by in scaled:
            if W.grad is not None:
                W.grad.mul_(by)

    return scale_gradients


def triangle(epoch: int, epochs: int) -> float:
    """Schedule of MSG: rises linearly to 1 over half of the epochs, then falls."""
    i, peak = epoch + 1, (epochs + 1) // 2
    return i / peak if i <= peak else (epochs + 1 - i) / (epochs + 1 - peak)
