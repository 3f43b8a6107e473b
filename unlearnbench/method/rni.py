"""RNI, repeated noise injection: reset the head, train a few tensors at a time, some noisy."""

from collections.abc import Mapping

from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import descend

CHOSEN = 9
"""Tensors that move in an epoch of the noise phase, beside those of norms."""


def rni(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    fine_sgd: Mapping[str, float],
    epochs: int,
    quiet: float,
    fine: float,
    batch_size: int,
    noise_ratio: float,
    origin_noise: float,
) -> nn.Module:
    """Reset the head, then train a few tensors at a time, some of them with noise, at last all.

        head  ←  a new draw of its initialiser
        in epoch e < E − E_f:   S = 9 tensors drawn of those that are no norm's, and all norms'
            if e ≥ E_q:   W ← W + σ · N(0, 1) for ⌊9ρ⌋ of the 9, but for none drawn before
        in the E_f last:        S = all
        S ← one epoch of CE on D_R with new momentum

    E_f = round(fine · E), E_q = round(quiet · E), ρ is ``noise_ratio``, σ ``origin_noise``. NeurIPS
    2023 unlearning challenge; Deep Unlearn (arXiv 2410.01276), "RNI".

    Differs: the phases are shares of the epochs, so that there is one with noise; a net of no more
    than 9 such tensors draws half of them, for once all are drawn none gets noise; one rate in the
    last epochs, where the published code has a list of six; every norm counts as one, whatever its
    name (``rni_as_run``).
    """
    ops.reset(ops.head(model), task.generator("reset"))
    norms, retain = ops.norms(model), task.retain.batched(batch_size)
    draw = ops.Injection(model, norms, task, CHOSEN, noise_ratio, origin_noise)
    for e in range(epochs):
        if e >= epochs - round(fine * epochs):
            descend(model, retain, task.loss, sgd=fine_sgd, epochs=1)
            continue
        with ops.only(model, [*norms, *draw(noisy=e >= round(quiet * epochs))]):
            descend(model, retain, task.loss, sgd=sgd, epochs=1)
    return model
