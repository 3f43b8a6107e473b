"""CFW as its authors' benchmark runs it: top-level convolutions, whole batches weighed."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import at, cosine, descend, make_optimizer


def cfw_as_run(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    start_confuser_std: float,
    final_confuser_std: float,
) -> nn.Module:
    """Draw top-level convolutions around where they are, finetune, and shake them once more.

        W ~ N(W, σ_1²) before the first epoch, W ~ N(W, σ_2²) before the last of several
        θ ← θ − lr_e · ∇ [ CE(B_r) · mean_i c(y_i) ],   c(y) = n_R / (C · n_y),   lr_e a cosine

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "CFW".

    Differs from ``cfw``: it shakes children of the net itself with "conv" in their name (the stem
    of a ResNet18; in a vision transformer none, which leaves weighted finetuning), and scales each
    batch's loss. The share of the net that gets noise stands in the rows as ``acted_on``.
    """
    if not task.n_classes:
        raise Skip("CFW weighs classes; a regression has none")
    c = len(task.retain.rows) / (task.n_classes * ops.class_counts(task.retain, task.n_classes))
    shaken = [conv.weight for conv in ops.top_convolutions(model)]
    ops.note_acted_on(task, model, shaken)
    noise, optimizer = task.generator("noise"), make_optimizer(model, sgd)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y) * c[y].mean()

    ops.shake(shaken, start_confuser_std, noise)
    retain = task.retain.batched(batch_size)
    for e in range(epochs):
        if 0 < e == epochs - 1:
            ops.shake(shaken, final_confuser_std, noise)
        rate = at(cosine, e, epochs)
        descend(model, retain, loss, sgd=optimizer, epochs=1, schedule=rate)
    return model
