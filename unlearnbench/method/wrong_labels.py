"""Wrong labels: the forget rows are taught as something else."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.train.loop import descend


def wrong_labels(
    model: nn.Module, task: Task, *, sgd: Mapping[str, float], epochs: int, batch_size: int
) -> nn.Module:
    """Go on training on all rows, each forget row under one wrong label that it keeps.

        y'_f ~ U( {0, …, C−1} ∖ {y_f} )  for each forget row, once
        θ ← θ − lr · ∇ CE(B),   B from D_R ∪ {(x_f, y'_f)}

    ``random_labels`` draws anew each epoch, and may draw the true label. Graves, Nagisetty &
    Ganesh, "Amnesiac Machine Learning" (AAAI 2021), "unlearning" by random relabelling.

    Differs: of single examples the paper inserts a small number of copies, here it is one; momentum
    starts at rest, where theirs goes on.
    """
    if not task.n_classes:
        raise Skip("wrong labels need classes to draw from; this is a regression")
    y_f, draw = task.forget.y, task.generator("labels")
    off = torch.randint(1, task.n_classes, (len(y_f),), generator=draw).to(y_f)
    mixed = task.retain.joined(task.forget.relabelled((y_f + off) % task.n_classes))
    return descend(model, mixed.batched(batch_size), task.loss, sgd=sgd, epochs=epochs)
