"""RNI, repeated noise injection: reset the head, train a few tensors at a time, some noisy."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from unlearnbench import ops
from unlearnbench.train import descend
from unlearnbench.values import Task

CHOSEN = 9
"""Tensors that move in an epoch of the noise phase, beside those of norms."""


def chosen(count: int) -> int:
    """How many of the net's tensors an epoch draws: 9, or half where there are no more than 9."""
    return CHOSEN if count > CHOSEN else -(-count // 2)


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
    return injected(
        model,
        task,
        ops.norms(model),
        sgd=sgd,
        fine_sgd=fine_sgd,
        epochs=epochs,
        quiet_epochs=round(quiet * epochs),
        fine_epochs=round(fine * epochs),
        batch_size=batch_size,
        noise_ratio=noise_ratio,
        origin_noise=origin_noise,
    )


def injected(
    model: nn.Module,
    task: Task,
    norms: Sequence[Tensor],
    *,
    sgd: Mapping[str, float],
    fine_sgd: Mapping[str, float],
    epochs: int,
    quiet_epochs: int,
    fine_epochs: int,
    batch_size: int,
    noise_ratio: float,
    origin_noise: float,
) -> nn.Module:
    """The epochs of RNI.

    Args:
        model: changed in place.
        task: the retain rows and the draws.
        norms: the tensors that move in every epoch and never get noise.
        sgd: of the epochs in which a few tensors move.
        fine_sgd: of the last epochs.
        epochs: how many in all.
        quiet_epochs: how many of the first are without noise.
        fine_epochs: how many of the last move all tensors.
        batch_size: of the retain rows.
        noise_ratio: share of an epoch's tensors that get noise.
        origin_noise: its standard deviation.
    """
    draw, noise, drawn_before = task.generator("tensors"), task.generator("noise"), set[int]()
    ops.reset(ops.head(model), task.generator("reset"))
    others = [p for p in model.parameters() if not any(p is q for q in norms)]
    retain = task.retain.batched(batch_size)
    for e in range(epochs):
        if e >= epochs - fine_epochs:
            descend(model, retain, task.loss, sgd=fine_sgd, epochs=1)
            continue
        S = torch.randperm(len(others), generator=draw)[: chosen(len(others))].tolist()
        if e >= quiet_epochs:
            noisy = set(S[: int(noise_ratio * len(S))]) - drawn_before
            ops.shake([others[i] for i in sorted(noisy)], origin_noise, noise)
        drawn_before |= set(S)
        with ops.only(model, [*norms, *(others[i] for i in S)]):
            descend(model, retain, task.loss, sgd=sgd, epochs=1)
    return model
