"""What an attack on parameters gets, and the truth that it is measured by."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.convex.deletion import Deletions, Rows
from unlearnbench.convex.objective import Array, Objective
from unlearnbench.core.data import Loss


@dataclass(frozen=True)
class Audit:
    """What an attack on the parameters of two models gets, and the truth that it is held to.

    Attributes:
        objective: what both models minimise.
        found: both models, of each deletion.
        public_MF: the attacker's records: inputs.
        public_y_M: their classes, or targets.
        x_KF: the deleted records.
        y_K: their classes, or targets.
        row_K: their numbers in the data set.
        n_classes: 0 for a regression.
        embedding: φ, from inputs (N, F) to features (N, D) as tensors; None: there is none.
        shape: of one input: (C, H, W) of an image, or (F,).
        low_F: least values that an input can have.
        high_F: its largest.
    """

    objective: Objective
    found: Deletions
    public_MF: Array
    public_y_M: NDArray[Any]
    x_KF: Array
    y_K: NDArray[Any]
    row_K: Rows
    n_classes: int
    embedding: Any
    shape: tuple[int, ...]
    low_F: Array
    high_F: Array


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
