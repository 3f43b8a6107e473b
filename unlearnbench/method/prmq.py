"""PRMQ: prune and reinitialise small weights, match the old certainty, quantise."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train import gradient
from unlearnbench.train.loop import descend, make_optimizer


def prmq(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: float,
    batch_size: int,
    prune_amount: float,
) -> nn.Module:
    """Cut the smallest weights, draw them anew, train to the old net's certainty, and round.

        the share a of weights and biases of convolutions and linear layers nearest 0  ←  0
        each weight that is 0  ~  U(−s, s),   s = 1/√fan_in;   cut biases stay 0
        θ ← θ − lr · ∇ [ CE_c(B_r) + mean_i ( H(s(x_i)) − H(t(x_i)) )² ],   c(y) = n_y^(−0.1)
        θ ← float16(θ)

    a is ``prune_amount``, t = θ_O frozen, H in nats, CE_c normalised by its weights; ``epochs`` may
    be a fraction. NeurIPS 2023 unlearning challenge; Deep Unlearn (arXiv 2410.01276), "PRMQ".
    Differs: the published code takes one step more.
    """
    if not task.n_classes:
        raise Skip("PRMQ matches entropies of posteriors; a regression has none")
    t, c = ops.frozen(model), ops.class_counts(task.retain, task.n_classes) ** -0.1
    retain, optimizer = task.retain.batched(batch_size), make_optimizer(model, sgd)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        s = model(x)
        return F.cross_entropy(s, y, weight=c) + F.mse_loss(ops.entropy(s), ops.entropy(t(x)))

    _prune_and_redraw(model, prune_amount, task)
    whole, rest = divmod(int(len(retain) * epochs), len(retain))
    descend(model, retain, loss, sgd=optimizer, epochs=whole)
    descend(model, retain.limited(rest), loss, sgd=optimizer, epochs=1)
    return model.half().to(task.retain.data.dtype)


@torch.no_grad()
def _prune_and_redraw(model: nn.Module, amount: float, task: Task) -> None:
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    tensors, draw = [p for m in layers for p in m.parameters(False)], task.generator("reset")
    cut = gradient.smallest(gradient.flat(tensors).abs(), amount)
    for tensor, mask in zip(tensors, gradient.unflat(cut, tensors), strict=True):
        tensor.masked_fill_(mask, 0)
    for W in (layer.weight for layer in layers):
        s, new = W[0].numel() ** -0.5, torch.empty(W.shape, dtype=W.dtype)
        W.copy_(torch.where(W == 0, new.uniform_(-s, s, generator=draw).to(W), W))
