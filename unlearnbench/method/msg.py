"""MSG, masked small gradients: draw anew weights on which retain and forget rows agree."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.method import _redraw as redraw
from unlearnbench.train import gradient
from unlearnbench.train.loop import descend


def msg(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    init_rate: float,
) -> nn.Module:
    """Draw those convolution weights anew on which retain and forget rows agree; then finetune.

        s = | ∇ CE(R') − ∇ CE(D_F) |,   R' ⊂ D_R of n_F rows, drawn once
        S = the round(p·n) of each convolution's n weights with the smallest s
        W_S ~ Kaiming-normal(fan out);   ∇W ← ∇W on S, 0.1 · ∇W elsewhere
        θ ← θ − lr_e · ∇ CE(B_r),   lr_e rising to lr over half of the epochs, then falling

    p is ``init_rate``; weight decay is not scaled. NeurIPS 2023 unlearning challenge; Deep Unlearn
    (arXiv 2410.01276), "MSG". What it acts on stands in the rows as ``acted_on``.

    Differs: scores are gradients of means over rows with batch norm frozen (``msg_as_run``).
    """
    if not ops.convolutions(model):
        raise Skip("MSG acts on convolutions; this model has none")
    forget, retain = task.forget.batched(batch_size), task.retain.batched(batch_size)
    drawn = torch.randperm(len(retain.rows), generator=task.generator("scores"))
    alike = retain.chosen(drawn[: len(forget.rows)])
    retained, forgotten = (gradient.gradient(model, part, task.loss) for part in (alike, forget))
    s = [(k - f).abs() for k, f in zip(retained, forgotten, strict=True)]
    slow = redraw.redraw(model, task, s, init_rate)
    rise = redraw.triangle
    return descend(model, retain, task.loss, sgd=sgd, epochs=epochs, schedule=rise, grad_hook=slow)
