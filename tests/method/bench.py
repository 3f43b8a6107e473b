"""A trained model and a small task to try methods on, in float64.

Two float32 trainings that differ in the last bit are apart by 1e-4 after a few epochs, and which
bits they differ in depends on the processor. In float64 a method and a loop written by hand agree
to ``TOLERANCE`` on any.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unlearnbench.core.cell import Cell
from unlearnbench.core.task import Task
from unlearnbench.pipeline import inputs, models
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace

PRECISION = "64-true"
TOLERANCE = 1e-9
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


class Bench:
    """An original and what a method needs, new with every call; the same to the bit."""

    def __init__(self, workspace: Workspace, cell: Cell, precision: str = PRECISION) -> None:
        self.workspace, self.cell = workspace, replace(cell, precision=precision)
        cell = self.cell
        self.data = inputs.dataset(cell)
        self.parts = split_of(cell, self.data)
        self._original = models.original(workspace, cell)

    @property
    def original(self) -> nn.Module:
        return deepcopy(self._original)

    @property
    def task(self) -> Task:
        return inputs.task(self.cell, self.data, self.parts)

    def fresh(self) -> nn.Module:
        return inputs.fresh(self.cell, self.data)

    def run(self, method: Callable[..., nn.Module], task: Task, **arguments: Any) -> nn.Module:
        return method(self.original, task, **arguments)


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in net.named_parameters()}


def close(net: Tensor, by_hand: Tensor) -> None:
    """Assert that two float64 tensors agree to ``TOLERANCE``, relative to their largest entry."""
    scale = max(1.0, float(by_hand.detach().abs().max())) if by_hand.numel() else 1.0
    assert net.dtype == by_hand.dtype == torch.float64, (net.dtype, by_hand.dtype)
    torch.testing.assert_close(net, by_hand, rtol=0, atol=TOLERANCE * scale)


def all_close(nets: Mapping[str, Tensor], by_hand: Mapping[str, Tensor]) -> None:
    """Assert that the weights or states of two nets agree, counts to the unit."""
    assert nets.keys() == by_hand.keys()
    for name, tensor in by_hand.items():
        if tensor.is_floating_point():
            close(nets[name], tensor)
        else:
            assert torch.equal(nets[name], tensor), name


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)
