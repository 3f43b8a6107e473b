"""The one training loop. Lightning (Fabric) gives device, precision and backward, here only."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from unlearnbench.values import Batches, Compute, Loss

Schedule = Callable[[int, int], float]
"""The factor on the learning rate in epoch e of E: ``schedule(e, E)``, e from 0."""


def constant(epoch: int, epochs: int) -> float:
    """The learning rate as it is."""
    return 1.0


def cosine(epoch: int, epochs: int) -> float:
    """(1 + cos(πe/E)) / 2, stepped once an epoch, so that 0 is never used."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of a batch, a scalar."""
    return F.cross_entropy(model(x), y)


def squared_error(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of a batch, a scalar; the loss of regression."""
    return F.mse_loss(model(x).squeeze(1), y)


def optimizer(model: nn.Module, sgd: Mapping[str, float]) -> SGD:
    """Plain SGD: classical momentum, weight decay added to the gradient before it.

    Args:
        model: whose parameters it moves.
        sgd: ``lr``, ``momentum`` and ``weight_decay``.
    """
    # One fused kernel instead of three small ones a tensor: on small nets that is half a step.
    lr, momentum, weight_decay = sgd["lr"], sgd["momentum"], sgd["weight_decay"]
    return SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)


@lru_cache
def _fabric(compute: Compute) -> Fabric:
    accelerator, _, index = compute.device.partition(":")
    devices = [int(index)] if index else 1
    return Fabric(accelerator=accelerator, devices=devices, precision=compute.precision)  # type: ignore[arg-type]


def descend(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    sgd: Mapping[str, float] | Optimizer,
    epochs: int,
    schedule: Schedule = constant,
    edit: Callable[[nn.Module], None] | None = None,
    training: bool = True,
) -> nn.Module:
    """Walk ``epochs`` times over the batches, down the loss; the model is returned in eval mode.

    Args:
        model: changed in place.
        batches: what is walked over; they say where and in which precision to compute.
        loss: ``loss(model, x, y)``, a scalar.
        sgd: settings of plain SGD, or a live optimizer that keeps its momentum between calls.
        epochs: walks over the batches.
        schedule: factor on the learning rate in each epoch.
        edit: called between backward and step, to change gradients.
        training: False keeps the model in eval mode (batch norm frozen, no dropout).
    """
    fabric = _fabric(batches.compute)
    stepper = sgd if isinstance(sgd, Optimizer) else optimizer(model, sgd)
    rates = [group["lr"] for group in stepper.param_groups]
    model.train(training)
    for epoch in range(epochs):
        for group, rate in zip(stepper.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(epoch, epochs)
        for x, y in batches:
            with fabric.autocast():
                value = loss(model, x, y)
            fabric.backward(value)
            if edit is not None:
                edit(model)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
    for group, rate in zip(stepper.param_groups, rates, strict=True):
        group["lr"] = rate
    return model.eval()


def fit(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
) -> nn.Module:
    """Train from the start: SGD with a cosine schedule on augmented batches.

    The training of original and retrained models in Deep Unlearn (arXiv 2410.01276), no selection
    on validation rows: the last weights are kept.
    """
    batches = batches.batched(batch_size).augmented()
    return descend(model, batches, loss, sgd=sgd, epochs=epochs, schedule=cosine)


@torch.inference_mode()
def logits(model: nn.Module, batches: Batches, rows: Tensor) -> Tensor:
    """Outputs (n, C) of the model for ``rows`` in their order, float32 in eval mode, on the CPU.

    Always in float32: bf16 logits are off by 2e-3, which the low end of an attack's ROC sees.
    """
    model.eval()
    parts = [model(batches.data.inputs(rows_B)) for rows_B in rows.split(batches.size)]
    return torch.cat(parts).float().cpu()
