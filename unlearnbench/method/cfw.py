"""CFW, confuse, finetune, weaken: noise on the stem, finetune, noise."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import at, cosine, descend, make_optimizer


def cfw(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    start_confuser_std: float,
    final_confuser_std: float,
) -> nn.Module:
    """Draw the stem's convolutions around where they are, finetune, and shake them once more.

        W ~ N(W, σ_1²) before the first epoch, W ~ N(W, σ_2²) before the last of several
        θ ← θ − lr_e · ∇ [ mean_i c(y_i) · CE_i(B_r) ],   c(y) = n_R / (C · n_y),   lr_e a cosine

    W are the weights of the convolutions of the stem: the first of a ResNet, those of the patch
    embedding of a vision transformer. σ_1 and σ_2 are ``start_confuser_std`` and
    ``final_confuser_std``. NeurIPS 2023 unlearning challenge; Deep Unlearn (arXiv 2410.01276),
    "CFW". The share of the net that gets noise stands in the rows as ``acted_on``.

    Differs: the published code finds the stem by its name, and so none in a vision transformer, and
    weighs whole batches (``cfw_as_run``).
    """
    if not task.n_classes or not ops.convolutions(model):
        raise Skip("CFW shakes convolutions and weighs classes; there must be both")
    c = len(task.retain.rows) / (task.n_classes * ops.class_counts(task.retain, task.n_classes))
    shaken = [conv.weight for conv in ops.stem_convolutions(model)]
    ops.note_acted_on(task, model, shaken)
    noise, optimizer = task.generator("noise"), make_optimizer(model, sgd)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return (c[y] * F.cross_entropy(model(x), y, reduction="none")).mean()

    ops.shake(shaken, start_confuser_std, noise)
    retain = task.retain.batched(batch_size)
    for e in range(epochs):
        if 0 < e == epochs - 1:
            ops.shake(shaken, final_confuser_std, noise)
        rate = at(cosine, e, epochs)
        descend(model, retain, loss, sgd=optimizer, epochs=1, schedule=rate)
    return model
