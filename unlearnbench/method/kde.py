"""KDE, knowledge distillation and entropy: reset both ends of the net, distil, train."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import cosine, descend


def kde(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    retain_sgd: Mapping[str, float],
    epochs: int,
    retain_epochs: int,
    batch_size: int,
    temperature: float,
) -> nn.Module:
    """Reset the two ends of the net, let the old net warm it up, then train it on both's word.

        convolutions of the stem, and the head  ←  new draws of their initialisers
        on R':   θ ← θ − lr · ∇ KL( t(x)/T ‖ s(x)/T )
        on D_R:  θ ← θ − lr_e · ∇ [ H( t(x)/T, s(x)/T ) + CE(B_r) + KL( t(x)/T ‖ s(x)/T ) ]

    t = θ_O frozen, H the cross-entropy of softmaxes, lr_e a cosine. H and KL have one gradient, so
    the old net's word counts twice. NeurIPS 2023 unlearning challenge; Deep Unlearn (arXiv
    2410.01276), "KDE".

    Differs: R' are as many retain rows as there are validation rows, on which the published code
    warms up (``kde_as_run``); the stem is reset in every architecture.
    """
    if not task.n_classes:
        raise Skip("KDE distils posteriors; a regression has none")
    t, retain = ops.frozen(model), task.retain.batched(batch_size)
    drawn = torch.randperm(len(retain.rows), generator=task.generator("warm-up"))
    warm_up = retain.chosen(drawn[: len(task.val.rows)])
    ops.reset(ops.ends(model), task.generator("reset"))

    def distil(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return ops.kl(t(x), model(x), temperature)

    def learn(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        t_x, s_x = t(x), model(x)
        H = F.cross_entropy(s_x / temperature, (t_x / temperature).softmax(1))
        return H + F.cross_entropy(s_x, y) + ops.kl(t_x, s_x, temperature)

    descend(model, warm_up, distil, sgd=sgd, epochs=epochs)
    return descend(model, retain, learn, sgd=retain_sgd, epochs=retain_epochs, schedule=cosine)
