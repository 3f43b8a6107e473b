"""Objective of a linear model: a convex loss of its outputs and a penalty, in float64.

A model is θ on features with a constant 1 as last entry, f = θᵀx̃, and minimises

    J(θ) = Σ_i ℓ(θᵀx̃_i; t_i) + ½ Σ_pc Λ_p θ²_pc

a sum over rows. Losses: ``squared`` ½‖f − t‖² (ridge, or least squares of least norm at λ = 0),
``softmax`` (cross-entropy), ``squared_hinge`` Σ_c max(0, 1 − t_c f_c)², one class against the rest.
Axes: N rows, P features, C outputs, K models.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Array = NDArray[np.float64]

LOSSES = ("squared", "softmax", "squared_hinge")
AT_ONCE = 2**24
"""Largest number of entries of an array (rows, deletions, outputs): 128 MB."""


@dataclass(frozen=True)
class Objective:
    """Loss and penalty of a linear model.

    Attributes:
        loss: one of ``LOSSES``.
        lam: λ, or λ' for the form ``mean``.
        intercept: ``penalised``; ``free``: without penalty; ``none``: features have no constant.
        form: ``sum``: Λ = λ for any number of rows. ``mean``: training minimises
            (1/n) Σ ℓ + ½λ'‖θ‖², so that Λ = nλ' here, and (n−1)λ' after a deletion.
    """

    loss: str
    lam: float
    intercept: str
    form: str

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: a choice is unknown, λ is negative, or the loss is the plain hinge.
        """
        if self.loss == "hinge":
            raise ValueError(
                "loss=hinge: no curvature, and a row that is no support vector leaves no trace "
                "in the model; take squared_hinge"
            )
        choices = {
            "loss": LOSSES,
            "intercept": ("penalised", "free", "none"),
            "form": ("sum", "mean"),
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}={getattr(self, name)}: must be one of {', '.join(valid)}")
        if not self.lam >= 0:
            raise ValueError(f"lam={self.lam}: must not be negative")

    def penalty(self, n: int, width: int) -> Array:
        """Diagonal (P, 1) of Λ for a model on n rows."""
        lam_P1 = np.full((width, 1), self.lam * (n if self.form == "mean" else 1))
        if self.intercept == "free":
            lam_P1[-1] = 0
        return lam_P1

    def features(self, x_NF: NDArray[np.floating]) -> Array:
        """Features (N, P) in float64: the inputs, then the constant if there is an intercept."""
        constant = np.ones((len(x_NF), int(self.intercept != "none")))
        return np.concatenate([x_NF, constant], axis=1, dtype=np.float64)

    def targets(self, y_N: NDArray[np.generic], n_classes: int) -> Array:
        """Targets (N, C) of the loss: numbers, one-hot classes, or ±1."""
        if not n_classes:
            if self.loss != "squared":
                raise ValueError(f"loss={self.loss}: needs classes; this is a regression")
            return y_N.astype(np.float64)[:, None]
        one_hot_NC = np.eye(n_classes)[y_N.astype(np.intp)]
        return 2 * one_hot_NC - 1 if self.loss == "squared_hinge" else one_hot_NC

    def slope(self, f_NC: Array, t_NC: Array) -> Array:
        """∂ℓ/∂f, in the shape of the outputs: the gradient of a row's loss is x̃ slopeᵀ."""
        if self.loss == "softmax":
            f_NC = softmax(f_NC, axis=-1)
        if self.loss == "squared_hinge":
            hinge: Array = -2 * t_NC * np.maximum(0, 1 - t_NC * f_NC)
            return hinge
        slope: Array = f_NC - t_NC
        return slope

    def bend(self, f_NC: Array, t_NC: Array) -> Callable[[Array], Array]:
        """∂²ℓ/∂f² · d as a function of d, broadcast over leading axes."""
        if self.loss == "softmax":
            p_NC = softmax(f_NC, axis=-1)
            return lambda d: np.asarray(p_NC * (d - (p_NC * d).sum(axis=-1, keepdims=True)))
        if self.loss == "squared_hinge":
            twice_NC = 2.0 * (t_NC * f_NC < 1)
            return lambda d: np.asarray(twice_NC * d)
        return lambda d: d

    def value(self, f_NC: Array, t_NC: Array) -> float:
        """Σ ℓ."""
        if self.loss == "softmax":
            return float((np.logaddexp.reduce(f_NC, axis=1) - (t_NC * f_NC).sum(axis=1)).sum())
        if self.loss == "squared_hinge":
            return float((np.maximum(0, 1 - t_NC * f_NC) ** 2).sum())
        return float(((f_NC - t_NC) ** 2).sum() / 2)

    def hessian_product(self, theta_PC: Array, x_NP: Array, t_NC: Array, v_KPC: Array) -> Array:
        """Σ_i ∇²ℓ(θ; x̃_i, t_i) v (K, P, C) for K directions, without Λ.

            Σ_i x̃_i [∂²ℓ/∂f² · vᵀx̃_i]ᵀ

        Only a squared hinge uses the targets.
        """
        if self.loss == "squared" and x_NP.shape[1] < 2 * len(v_KPC) * t_NC.shape[1]:
            gram: Array = (x_NP.T @ x_NP) @ v_KPC  # the same for every output, and cheaper here
            return gram
        bend = self.bend((x_NP @ theta_PC)[:, None], t_NC[:, None])
        parts = batched(v_KPC, x_NP, t_NC)
        return np.concatenate([pulled_back(x_NP, bend(outputs(x_NP, v))) for v in parts])


def outputs(x_NP: Array, theta_KPC: Array) -> Array:
    """Outputs (N, K, C) of K models, in one product."""
    k, width, c = theta_KPC.shape
    stacked = theta_KPC.swapaxes(0, 1).reshape(width, k * c)
    return (x_NP @ stacked).reshape(len(x_NP), k, c)


def pulled_back(x_NP: Array, slope_NKC: Array) -> Array:
    """Σ_i x̃_i slope_iᵀ (K, P, C), in one product."""
    n, k, c = slope_NKC.shape
    return (x_NP.T @ slope_NKC.reshape(n, k * c)).reshape(-1, k, c).swapaxes(0, 1)


def batched(values_K: NDArray[Any], x_NP: Array, t_NC: Array) -> Iterator[NDArray[Any]]:
    """Yield chunks along K whose outputs (N, K, C) have at most ``AT_ONCE`` entries."""
    each = max(1, AT_ONCE // max(t_NC.size, 1))
    for first in range(0, len(values_K), each):
        yield values_K[first : first + each]
