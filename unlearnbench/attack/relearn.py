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
    """Finetune on the forget set until its loss is close to that of the original model.

        target = L_R + share · (L_O − L_R)

    L is the mean loss on the forget rows, of the original (O) and the retrained model (R). The
    ratio divides the steps to the target by those of the retrained model on the same batches: 1
    means as if never seen, a ratio below 1 means remaining information. After Golatkar et al. (CVPR
    2020, arXiv 1911.04933) and the anamnesis index of Chundawat et al. (2022, arXiv 2201.05629);
    the target is specific to this benchmark.

    Args:
        models: the unlearned, the original and the retrained model.
        sgd: optimizer settings of the finetuning.
        batch_size: size of the batches, which are drawn anew for each step.
        steps: maximal number of steps.
        share: share of the loss difference to recover, in (0, 1].

    Returns:
        ``relearn_steps``, ``relearn_steps_retrained``, ``relearn_ratio`` and
        ``relearn_loss_start``. NaN: the target is not reached.

    Raises:
        ValueError: a number is out of range.
        Skip: the retrained model fits the forget rows as well as the original.
    """
    if not 0 < share <= 1:
        raise ValueError(f"attack.call.share={share}: must be above 0, at most 1")
    if steps < 1 or batch_size < 1:
        settings = f"attack.call.steps={steps}, batch_size={batch_size}"
        raise ValueError(f"{settings}: must be 1 or more")
    forget, loss = models.task.forget, models.task.loss
    if not any(True for _ in models.model.parameters()):
        raise Skip("relearn: the model has no weights to finetune")
    loss_O, loss_R = (mean_loss(net, forget, loss) for net in (models.original, models.retrained))
    if loss_R <= loss_O:
        raise Skip(
            f"relearn: nothing to relearn, {loss_R:.3g} after retraining, {loss_O:.3g} before"
        )
    target = loss_R + share * (loss_O - loss_R)
    order = forget.order.get_state()
    taken, start = [], 0.0
    for net in (models.retrained, models.model):  # the model last: its initial loss is reported
        forget.order.set_state(order)
        losses = _losses(net, forget, loss, sgd, batch_size, steps, target)
        taken.append(distance.relearn_time(losses, target))
        start = losses[0]
    ratio = taken[1] / taken[0] if taken[0] else float("nan")
    metrics = {
        "relearn_steps": taken[1],
        "relearn_steps_retrained": taken[0],
        "relearn_ratio": ratio,
        "relearn_loss_start": start,
    }
    return measured({name: (value, len(forget.rows)) for name, value in metrics.items()})


def _losses(
    net: nn.Module,
    forget: Batches,
    loss: Loss,
    sgd: Mapping[str, float],
    batch_size: int,
    steps: int,
    target: float,
) -> list[float]:
    """Losses on the forget rows after 0, 1, 2 … steps, up to the target or the last step."""
    net = deepcopy(net)
    optimizer, batch = make_optimizer(net, sgd), forget.batched(batch_size).limited(1)
    losses = [mean_loss(net, forget, loss)]
    while len(losses) <= steps and losses[-1] > target:
        descend(net, batch, loss, sgd=optimizer, epochs=1)
        losses.append(mean_loss(net, forget, loss))
    return losses


@torch.no_grad()
def mean_loss(net: nn.Module, rows: Batches, loss: Loss) -> float:
    """Mean loss over all rows, in eval mode."""
    net.eval()
    total = sum(float(loss(net, x, y)) * len(y) for x, y in rows.ordered())
    return total / len(rows.rows)
