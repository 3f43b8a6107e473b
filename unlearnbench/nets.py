"""Nets that several layers make, before and after deletions, for attacks on parameters.

Axes: K deletions, P parameters of a net in their order, S statistics beside them, M public records,
F inputs, B rows of a batch, C outputs.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from unlearnbench.gradient import flat, unflat
from unlearnbench.values import Loss

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NetAudit:
    """What an attack on the parameters of two nets gets, and the truth that it is held to.

    Attributes:
        net: before, in eval mode.
        theta_KP: the parameters after each deletion.
        buffers_KS: the statistics after it, of nets that keep some.
        loss: what they were trained with.
        decay: λ' of (1/n) Σ ℓ + ½λ'‖θ‖².
        n: rows that the net was trained on.
        residual: largest entry of ∇J of any of the nets, in sum form: how far from an optimum.
        public_MF: the attacker's records: inputs.
        public_y_M: their classes.
        x_KF: the deleted records.
        y_K: their classes.
        row_K: their numbers in the data set.
        n_classes: how many there are.
        shape: of one input: (C, H, W) of an image, or (F,).
        low_F: least values that an input can have.
        high_F: its largest.
    """

    net: nn.Module
    theta_KP: Tensor
    buffers_KS: Tensor
    loss: Loss
    decay: float
    n: int
    residual: float
    public_MF: Array
    public_y_M: NDArray[Any]
    x_KF: Array
    y_K: NDArray[Any]
    row_K: NDArray[np.integer]
    n_classes: int
    shape: tuple[int, ...]
    low_F: Array
    high_F: Array


def head(net: nn.Module) -> nn.Linear | None:
    """The last layer, where it is linear with a bias."""
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear and linear[-1].bias is not None else None


def theta(net: nn.Module) -> Tensor:
    """All parameters (P,), on the CPU."""
    return flat(parameter.detach() for parameter in net.parameters()).cpu()


def buffers(net: nn.Module) -> Tensor:
    """All statistics (S,) but counts, on the CPU."""
    kept = [one for one in net.buffers() if one.is_floating_point()]
    return flat([*kept, torch.zeros(0)]).cpu()


def outputs(net: nn.Module, theta_P: Tensor, buffers_S: Tensor, x: Tensor) -> Tensor:
    """Outputs (B, C) with other parameters and statistics than the net's own."""
    own = dict(net.named_parameters())
    kept = {name: one for name, one in net.named_buffers() if one.is_floating_point()}
    given = dict(zip(own, unflat(theta_P, own.values()), strict=True))
    given |= dict(zip(kept, unflat(buffers_S, kept.values()), strict=True))
    return cast(Tensor, functional_call(net, given, (x,)))
