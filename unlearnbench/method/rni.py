"""RNI, repeated noise injection: reset the head, train a few tensors at a time, some noisy."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench import ops
from unlearnbench.train import descend
from unlearnbench.values import Task

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
            if e ≥ E_q:   W ← W + σ · N(0, 1) for ⌊9ρ⌋ of the 9, but for none a second time
        in the E_f last:        S = all
        S ← one epoch of CE on D_R with new momentum

    E_f = round(fine · E), E_q = round(quiet · E), ρ is ``noise_ratio``, σ ``origin_noise``; nets
    with fewer tensors take all, and ρ of them. NeurIPS 2023 unlearning challenge; Deep Unlearn
    (arXiv 2410.01276), "RNI".

    Differs: the phases are shares of the epochs, so that there is one with noise; one rate in the
    last epochs, where the published code has a list of six.
    """
    draw, noise, noisy_before = task.generator("tensors"), task.generator("noise"), set[int]()
    ops.reset(ops.head(model), task.generator("reset"))
    norms = ops.norms(model)
    others = [p for p in model.parameters() if not any(p is q for q in norms)]
    retain = task.retain.batched(batch_size)
    for e in range(epochs):
        if e >= epochs - round(fine * epochs):
            descend(model, retain, task.loss, sgd=fine_sgd, epochs=1)
            continue
        S = torch.randperm(len(others), generator=draw)[:CHOSEN].tolist()
        if e >= round(quiet * epochs):
            noisy = set(S[: int(noise_ratio * len(S))]) - noisy_before
            ops.shake([others[i] for i in sorted(noisy)], origin_noise, noise)
            noisy_before |= noisy
        with ops.only(model, [*norms, *(others[i] for i in S)]):
            descend(model, retain, task.loss, sgd=sgd, epochs=1)
    return model
