"""EU-k, exact unlearning of a part: the last k stages anew, from initial weights."""

from collections.abc import Mapping

import torch
from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import cosine, descend


def eu_k(
    model: nn.Module, task: Task, *, sgd: Mapping[str, float], epochs: int, batch_size: int, k: int
) -> nn.Module:
    """Put the head and the k stages before it back to initial weights; train those on retain rows.

        θ_k ← θ_init,k(seed)
        θ_k ← θ_k − lr_e · ∇ CE(B_r),   lr_e = lr · (1 + cos(πe/E)) / 2

    Retain batches are augmented as in training, for this is training: with k above the number of
    stages and training's own settings it is retraining. Goel et al., "Towards Adversarial
    Evaluations for Inexact Machine Unlearning" (arXiv 2201.06640); Deep Unlearn (arXiv 2410.01276),
    "EU-k".

    Differs: the published code draws new weights, keeps the old batch-norm statistics and trains in
    eval mode (``eu_k_as_run``). The batch norms of frozen stages go on counting.
    """
    initial = task.fresh().state_dict()
    tail = ops.tail(model, k)
    with torch.no_grad():
        for name, tensor in tail.items():
            tensor.copy_(initial[name])
    retain = task.retain.batched(batch_size).augmented()
    with ops.only(model, tail.values()):
        return descend(model, retain, task.loss, sgd=sgd, epochs=epochs, schedule=cosine)
