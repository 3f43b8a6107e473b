"""IU as its authors' benchmark runs it: a recursion that is no inverse."""

import torch
from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.train import gradient

SAMPLES = 1000


def influence_as_run(model: nn.Module, task: Task, *, alpha: float) -> nn.Module:
    """Move the weights once along what a WoodFisher-style recursion makes of the gradients.

        k ← v = n_F/n · ( ∇ CE(D_F) − ∇ CE(D_R) ),   o ← g_1
        for each next retain row:  d = ⟨o, g⟩
            k ← k − ⟨k, g⟩/(N + d) · o,   o ← o − d/(N + d) · o,   N = 1000, 1002 rows in all
        θ ← θ + α · k

    g_i is the gradient of row i's loss in the order of the data set. What the code of Deep Unlearn
    (arXiv 2410.01276) computes for "IU".

    Differs from ``influence``: o stays parallel to g_1, so k − v does too, and k does not solve
    (F_R + δI) k = v for any δ.
    """
    retain, forget = task.retain.batched(gradient.BATCH), task.forget.batched(gradient.BATCH)
    k = gradient.flat(gradient.influence_gradient(model, retain, forget, task.loss))
    first = torch.arange(min(SAMPLES + 2, len(retain.rows)))
    o = None
    for gradients in gradient.gradients_of_rows(model, retain.chosen(first).ordered(), task.loss):
        for g in torch.cat([part.flatten(1) for part in gradients], 1):
            if o is None:
                o = g
                continue
            d = o @ g
            k = k - (k @ g) / (SAMPLES + d) * o
            o = o - d / (SAMPLES + d) * o
    gradient.shift(model, alpha * k)
    return model.eval()
