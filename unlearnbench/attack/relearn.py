"""Relearning: how soon does a model know again what it was to forget?"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import nn

from unlearnbench.attack.weights import measured
from unlearnbench.core.data import Batches, Loss
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Scores
from unlearnbench.core.task import Compared
from unlearnbench.metric import distance
from unlearnbench.train.loop import descend, make_optimizer


def relearn(
    models: Compared, *, sgd: Mapping[str, float], batch_size: int, steps: int, share: float
) -> Scores:
    """Finetune on the forget set, step by step, until its loss is nearly what it once was.

        target = L_R + share · (L_O − L_R)

    L is the mean loss on the forget rows, of the original and the retrained model. The steps to
    the target are held to those the retrained model takes on the same batches: a ratio of 1 = as
    if never seen, below it something was left. After Golatkar et al. (CVPR 2020, arXiv 1911.04933)
    and the anamnesis index of Chundawat et al. (2022, arXiv 2201.05629); the target is ours.

    Args:
        models: the model beside the others.
        sgd: of the finetuning.
        batch_size: of its batches, which are drawn anew for each step.
        steps: at most.
        share: above 0, at most 1.

    Returns:
        ``relearn_steps``, ``relearn_steps_retrained``, ``relearn_ratio`` and
        ``relearn_loss_start``. NaN: the target was not reached.

    Raises:
        ValueError: a number that makes no sense.
        Skip: the retrained model knows the forget rows as well as the original.
    """
    if not 0 < share <= 1:
        raise ValueError(f"attack.call.share={share}: must be above 0, at most 1")
    if steps < 1 or batch_size < 1:
        told = f"attack.call.steps={steps}, batch_size={batch_size}"
        raise ValueError(f"{told}: must be 1 or more")
    forget, loss = models.task.forget, models.task.loss
    if not any(True for _ in models.model.parameters()):
        raise Skip("relearn: the model has no weights to finetune")
    known, never = (mean_loss(net, forget, loss) for net in (models.original, models.retrained))
    if never <= known:
        raise Skip(f"relearn: nothing to relearn, {never:.3g} after retraining, {known:.3g} before")
    target = never + share * (known - never)
    order = forget.order.get_state()
    taken, start = [], 0.0
    for net in (models.retrained, models.model):  # the model last: its start is told
        forget.order.set_state(order)
        losses = _losses(net, forget, loss, sgd, batch_size, steps, target)
        taken.append(distance.relearn_time(losses, target))
        start = losses[0]
    ratio = taken[1] / taken[0] if taken[0] else float("nan")
    found = {
        "relearn_steps": taken[1],
        "relearn_steps_retrained": taken[0],
        "relearn_ratio": ratio,
        "relearn_loss_start": start,
    }
    return measured({name: (value, len(forget.rows)) for name, value in found.items()})


def _losses(
    net: nn.Module,
    forget: Batches,
    loss: Loss,
    sgd: Mapping[str, float],
    batch_size: int,
    steps: int,
    target: float,
) -> list[float]:
    """The loss on the forget rows after 0, 1, 2 … steps, until it is at the target or too late."""
    net = deepcopy(net)
    optimizer, one = make_optimizer(net, sgd), forget.batched(batch_size).limited(1)
    losses = [mean_loss(net, forget, loss)]
    while len(losses) <= steps and losses[-1] > target:
        descend(net, one, loss, sgd=optimizer, epochs=1)
        losses.append(mean_loss(net, forget, loss))
    return losses


@torch.no_grad()
def mean_loss(net: nn.Module, rows: Batches, loss: Loss) -> float:
    """Mean loss over all rows, in eval mode."""
    net.eval()
    total = sum(float(loss(net, x, y)) * len(y) for x, y in rows.ordered())
    return total / len(rows.rows)
