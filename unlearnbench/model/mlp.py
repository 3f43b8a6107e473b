"""A multi-layer perceptron."""

import math
from collections.abc import Sequence

from torch import nn

from unlearnbench.model.norm import swap
from unlearnbench.model.stages import declare


def mlp(shape: Sequence[int], n_classes: int, *, hidden: Sequence[int], norm: str) -> nn.Module:
    """Linear layers with ReLU in between, on flattened inputs.

    Args:
        shape: shape of one input.
        n_classes: number of outputs.
        hidden: widths of the hidden layers, first to last.
        norm: ``batch`` or ``group`` before each ReLU, or ``none``.

    Raises:
        ValueError: ``norm`` is unknown.
    """
    if norm not in ("batch", "group", "none"):
        raise ValueError(f"model.call.norm is {norm!r}; try batch, group or none")
    net = nn.Sequential()
    net.add_module("flatten", nn.Flatten())
    width = math.prod(shape)
    names: list[str] = []
    for following in hidden:
        names.append(f"hidden{len(names) + 1}")
        normed = [] if norm == "none" else [nn.BatchNorm1d(following)]
        net.add_module(names[-1], nn.Sequential(nn.Linear(width, following), *normed, nn.ReLU()))
        width = following
    net.add_module("head", nn.Linear(width, n_classes))
    declare(net, ((), *((name,) for name in names), ("head",)))
    return net if norm == "none" else swap(net, norm)
