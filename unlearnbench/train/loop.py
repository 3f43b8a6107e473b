"""The only training loop. Lightning (Fabric) sets device and precision, and runs backward."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from unlearnbench.core.data import Batches, Compute, Loss
from unlearnbench.train.checkpoint import Place, keeper_of

Schedule = Callable[[int, int], float]
"""The factor on the learning rate in epoch (or step) e of E: ``schedule(e, E)``, e from 0."""

Step = Callable[[Tensor, Tensor], None]
"""One step on a batch: ``step(x, y)``."""

WARM_UP = 3
"""Full batches that run directly before a CUDA graph is captured, to create buffers and handles."""


def constant(epoch: int, epochs: int) -> float:
    """A constant learning rate."""
    return 1.0


def cosine(epoch: int, epochs: int) -> float:
    """(1 + cos(πe/E)) / 2, stepped once per epoch, so that 0 is never used."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


def step_decay(rate: float) -> Schedule:
    """``rate`` to the power of the number of epochs ⌊E/2⌋, ⌊.8E⌋ and ⌊.9E⌋ that are past."""
    return lambda epoch, epochs: (
        rate ** sum(epoch > int(fraction * epochs) for fraction in (0.5, 0.8, 0.9))
    )


def at(schedule: Schedule, epoch: int, epochs: int) -> Schedule:
    """One epoch of a longer schedule, for a method that trains epoch by epoch."""
    return lambda *_: schedule(epoch, epochs)


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of a batch, a scalar."""
    return F.cross_entropy(model(x), y)


def squared_error(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of a batch, a scalar; the loss of regression."""
    return F.mse_loss(model(x).squeeze(1), y)


def make_optimizer(model: nn.Module, sgd: Mapping[str, float]) -> SGD:
    """Plain SGD: classical momentum; weight decay is added to the gradient before momentum.

    Args:
        model: the model to optimise.
        sgd: ``lr``, ``momentum`` and ``weight_decay``.
    """
    # One fused kernel replaces three small ones per tensor: half the time of a step on small nets.
    lr, momentum, weight_decay = sgd["lr"], sgd["momentum"], sgd["weight_decay"]
    return SGD(model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)


REPLAYABLE = (cross_entropy, squared_error)
"""Losses that depend on model and batch only, safe in a CUDA graph: a closure may draw a batch of
its own, and a replay would not draw the next one."""


class _Graph:
    """A step that first runs directly, is then captured, and is replayed from then on.

    Only full batches are replayed, because a graph has one shape; others run directly.
    """

    def __init__(self, step: Step, size: int) -> None:
        self.step, self.size, self.warm = step, size, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, x: Tensor, y: Tensor) -> None:
        if len(x) != self.size or self.warm < WARM_UP:
            self.warm += len(x) == self.size
            self.step(x, y)
            return
        if self.graph is None:
            self.x, self.y = x.clone(), y.clone()
            self.graph = self._captured()
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self.step(self.x, self.y)  # recorded, not run
        except RuntimeError as error:
            message = f"a training step cannot be captured as a CUDA graph ({error})"
            raise RuntimeError(f"{message}; set cuda_graphs=false") from error
        return graph


@contextmanager
def _replayed(step: Step, optimizer: Optimizer, batches: Batches) -> Iterator[Step]:
    """The step as a CUDA graph. The learning rate becomes a tensor, which each replay reads."""
    device = torch.device(batches.compute.device)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=device)
    outside, inside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    inside.wait_stream(outside)
    with torch.cuda.stream(inside):
        yield _Graph(step, batches.size)
    outside.wait_stream(inside)


@lru_cache
def _fabric(compute: Compute) -> Fabric:
    accelerator, _, index = compute.device.partition(":")
    devices = [int(index)] if index else 1
    alone = LightningEnvironment()  # else Fabric counts the tasks of a SLURM job
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        precision=compute.precision,  # type: ignore[arg-type]
        plugins=alone,
    )


def descend(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    sgd: Mapping[str, float] | Optimizer,
    epochs: int,
    schedule: Schedule = constant,
    step_schedule: Schedule = constant,
    grad_hook: Callable[[nn.Module], None] | None = None,
    training: bool = True,
) -> nn.Module:
    """Minimise the loss in ``epochs`` epochs over the batches; returns the model in eval mode.

    Args:
        model: changed in place.
        batches: the training batches; they define device and precision.
        loss: ``loss(model, x, y)``, a scalar.
        sgd: settings of plain SGD, or an optimizer that keeps its momentum between calls.
        epochs: number of epochs.
        schedule: factor on the learning rate in each epoch.
        step_schedule: additional factor, in each step of all epochs.
        grad_hook: called between backward and step, to change gradients.
        training: False keeps the model in eval mode (batch norm frozen, no dropout).
    """
    fabric = _fabric(batches.compute)
    optimizer = sgd if isinstance(sgd, Optimizer) else make_optimizer(model, sgd)
    rates = [group["lr"] for group in optimizer.param_groups]

    def step(x: Tensor, y: Tensor) -> None:
        with fabric.autocast():
            value = loss(model, x, y)
        fabric.backward(value)
        if grad_hook is not None:
            grad_hook(model)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    keeper = keeper_of(batches, grad_hook is not None)
    start = keeper.begin(model, optimizer, order=batches.order, noise=batches.noise)
    batches.hooks.probe(model, 0)
    model.train(training)
    replays = batches.compute.replays and loss in REPLAYABLE and grad_hook is None
    taken: AbstractContextManager[Step] = nullcontext(step)
    if replays and optimizer.defaults.get("fused") and isinstance(optimizer, SGD):
        taken = _replayed(step, optimizer, batches)
    with taken as run_step:
        for epoch in range(start.epoch, epochs):
            _set_rates(optimizer, rates, schedule(epoch, epochs))
            order, first = batches.order.get_state(), start.batch if epoch == start.epoch else 0
            for number, (x, y) in enumerate(batches.epoch(first), start=first):
                if step_schedule is not constant:
                    step_number = epoch * len(batches) + number
                    factor = step_schedule(step_number, epochs * len(batches))
                    _set_rates(optimizer, rates, schedule(epoch, epochs) * factor)
                run_step(x, y)
                if keeper.due:
                    keeper.keep(Place(epoch, number + 1), order=order)
            batches.hooks.probe(model, epoch + 1)
    keeper.end(Place(epochs))
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return model.eval()


def _set_rates(optimizer: Optimizer, rates: Sequence[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * factor)
        else:
            group["lr"] = rate * factor


@torch.inference_mode()
def logits(model: nn.Module, batches: Batches) -> Tensor:
    """Outputs (n, C) of the model for the rows in their order, float32 in eval mode, on the CPU.

    Always in float32: bf16 logits differ by 2e-3, which changes the low end of an attack's ROC.
    """
    model.eval()
    return torch.cat([model(x) for x, _ in batches.ordered()]).float().cpu()
