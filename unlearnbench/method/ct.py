"""CT, convolution transpose: turn every kernel about its diagonal, finetune."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import cosine, descend


def ct(
    model: nn.Module, task: Task, *, sgd: Mapping[str, float], epochs: int, batch_size: int
) -> nn.Module:
    """Turn every convolution kernel about its diagonal, then finetune.

        W[o, i, h, w] ← W[o, i, w, h]   for all square kernels; those of 1×1 stay as they are
        θ ← θ − lr_e · ∇ CE(B_r),   lr_e = lr · (1 + cos(πe/E)) / 2

    NeurIPS 2023 unlearning challenge; Deep Unlearn (arXiv 2410.01276), "CT". What it acts on stands
    in the rows as ``acted_on``: 98 % of a ResNet18, 0.5 % of a TinyViT.
    """
    turned = [W for W in (conv.weight for conv in ops.convolutions(model)) if _has_two_sides(W)]
    if not turned:
        raise Skip("CT turns square convolution kernels larger than 1×1; this model has none")
    ops.note_acted_on(task, model, turned)
    with torch.no_grad():
        for W in turned:
            W.copy_(W.mT.clone())
    retain = task.retain.batched(batch_size)
    return descend(model, retain, task.loss, sgd=sgd, epochs=epochs, schedule=cosine)


def _has_two_sides(W: torch.Tensor) -> bool:
    height, width = W.shape[2:]
    return height == width > 1
