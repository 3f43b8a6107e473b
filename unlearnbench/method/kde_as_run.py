"""KDE as its authors' benchmark runs it: warmed up on validation rows."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import cosine, descend


def kde_as_run(
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

        top-level convolutions, and the head  ←  new draws of their initialisers
        on D_V:  θ ← θ − lr · ∇ KL( t(x)/T ‖ s(x)/T )
        on D_R:  θ ← θ − lr_e · ∇ [ H( t(x)/T, s(x)/T ) + CE(B_r) + KL( t(x)/T ‖ s(x)/T ) ]

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "KDE".

    Differs from ``kde``: it trains on validation rows, not shuffled, so what is then measured on
    them is not unseen; of the stem only children of the net itself with "conv" in their name are
    reset.
    """
    if not task.n_classes:
        raise Skip("KDE distils posteriors; a regression has none")
    t, retain = ops.frozen(model), task.retain.batched(batch_size)
    warm_up = task.val.batched(batch_size).ordered()
    ops.reset([*ops.top_convolutions(model), *ops.head(model)], task.generator("reset"))

    def distil(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return ops.kl(t(x), model(x), temperature)

    def learn(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        t_x, s_x = t(x), model(x)
        H = F.cross_entropy(s_x / temperature, (t_x / temperature).softmax(1))
        return H + F.cross_entropy(s_x, y) + ops.kl(t_x, s_x, temperature)

    descend(model, warm_up, distil, sgd=sgd, epochs=epochs)
    return descend(model, retain, learn, sgd=retain_sgd, epochs=retain_epochs, schedule=cosine)
