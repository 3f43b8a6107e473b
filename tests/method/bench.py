"""A trained model and a small task to try methods on."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from unlearnbench import pipeline
from unlearnbench.cell import Cell
from unlearnbench.pipeline import Lab
from unlearnbench.split import split_of
from unlearnbench.values import Task

SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


class Bench:
    """An original and what a method needs, new with every call; the same to the bit."""

    def __init__(self, lab: Lab, cell: Cell) -> None:
        self.lab, self.cell = lab, cell
        self.data = pipeline.dataset(cell)
        self.parts = split_of(cell, self.data)
        self._original = pipeline.original(lab, cell)

    @property
    def original(self) -> nn.Module:
        return deepcopy(self._original)

    @property
    def task(self) -> Task:
        return pipeline.task(self.cell, self.data, self.parts)

    def fresh(self) -> nn.Module:
        return pipeline.fresh(self.cell, self.data)

    def run(self, method: Callable[..., nn.Module], task: Task, **arguments: Any) -> nn.Module:
        return method(self.original, task, **arguments)


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in net.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)
