"""Linear models with one optimum, on inputs or on random Fourier features of them, in float64.

Axes: B rows of a batch, F inputs, P features with the constant last, C outputs.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.convex.features import Fourier, rff
from unlearnbench.core.data import Loss
from unlearnbench.core.errors import Skip
from unlearnbench.core.seeding import generator
from unlearnbench.model.stages import declare


class Linear(nn.Module):
    """f = θᵀφ(x̃), with θ = 0 initially: the optimum is unique and needs no random start.

    Attributes:
        loss: training loss, one of ``LOSSES``.
        intercept: ``penalised``, ``free`` or ``none``.
        embedding: φ, drawn with the seed of the option: the same for all its models.
        head: the trained layer.
    """

    def __init__(
        self, inputs: int, outputs: int, *, loss: str, intercept: str, embedding: Fourier | None
    ) -> None:
        super().__init__()
        self.loss, self.intercept, self.embedding = loss, intercept, embedding
        width = inputs if embedding is None else len(embedding.b_D)
        self.head = nn.Linear(width, outputs, bias=intercept != "none", dtype=torch.float64)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def features(self, x: Tensor) -> Tensor:
        """φ (B, D) of inputs (B, …), float64."""
        x = x.flatten(1).double()
        if self.embedding is None:
            return x
        if self.embedding.w_DF.device != x.device:
            self.embedding = self.embedding.to(x.device)
        return self.embedding(x)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, C), float64."""
        outputs: Tensor = self.head(self.features(x))
        return outputs

    @property
    def theta_PC(self) -> NDArray[np.float64]:
        """Parameters (P, C), with those of the constant last."""
        blocks = (parameter.detach().cpu() for parameter in self.head.parameters())
        return torch.cat([block.reshape(len(block), -1).T for block in blocks]).numpy()

    @torch.no_grad()
    def put(self, theta_PC: NDArray[np.float64]) -> None:
        """Set the parameters."""
        theta = torch.from_numpy(theta_PC)
        width = self.head.in_features
        self.head.weight.copy_(theta[:width].T)
        if self.intercept != "none":
            self.head.bias.copy_(theta[width])


def linear(
    shape: Sequence[int],
    n_classes: int,
    *,
    loss: str,
    intercept: str,
    features: int,
    gamma: float | None,
    seed: int,
) -> nn.Module:
    """A linear model on flattened inputs, or on random Fourier features of them.

    Args:
        shape: shape of one input.
        n_classes: number of outputs; 1 for a regression.
        loss: ``squared``, ``softmax``, ``squared_hinge`` or ``hinge``, one class against the rest.
        intercept: ``penalised``, ``free`` of penalty, or ``none``.
        features: number of random Fourier features; 0: the model uses the inputs.
        gamma: γ of the kernel exp(−γ‖x − x'‖²); by default 1/(4F), the median heuristic for F
            independent inputs of variance 1.
        seed: seed of the features.

    Raises:
        Skip: a regression with a classification loss.
        ValueError: an unknown choice, or a number out of range.
    """
    _check_choice("loss", loss, tuple(LOSSES))
    _check_choice("intercept", intercept, ("penalised", "free", "none"))
    if features < 0:
        raise ValueError(f"model.call.features={features}: must not be negative")
    if gamma is not None and not gamma > 0:
        raise ValueError(f"model.call.gamma={gamma}: must be above 0")
    if n_classes < 2 and loss != "squared":
        raise Skip(f"model.call.loss={loss} tells classes apart; a regression has none")
    inputs = math.prod(shape)
    embedding = None
    if features:
        width = 1 / (4 * inputs) if gamma is None else gamma
        drawn = generator(seed, "features")
        embedding = rff(inputs, dimension=features, gamma=width, generator=drawn)
    net = Linear(inputs, n_classes, loss=loss, intercept=intercept, embedding=embedding)
    return declare(net, ((), ("head",)))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"model.call.{name}={value}: must be one of {', '.join(choices)}")


# ---------------------------------------------------------------------------------------------
# Mean losses of a batch, without the penalty, which the training adds.


def squared(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """½‖f − t‖², with t a number or the one-hot vector of the class."""
    f_BC: Tensor = model(x)
    return (f_BC - _one_hot(y, f_BC)).square().sum(1).mean() / 2


def squared_hinge(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Σ_c max(0, 1 − t_c f_c)², t = ±1."""
    return _hinges(model, x, y).square().sum(1).mean()


def hinge(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Σ_c max(0, 1 − t_c f_c), t = ±1."""
    return _hinges(model, x, y).sum(1).mean()


def softmax(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(x), y)


def _hinges(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    f_BC: Tensor = model(x)
    return (1 - (2 * _one_hot(y, f_BC) - 1) * f_BC).clamp(min=0)


def _one_hot(y: Tensor, f_BC: Tensor) -> Tensor:
    if y.is_floating_point():
        return y[:, None].to(f_BC.dtype)
    classes = torch.arange(f_BC.shape[1], device=y.device)
    return (y[:, None] == classes).to(f_BC.dtype)


LOSSES: dict[str, Loss] = {
    "squared": squared,
    "softmax": softmax,
    "squared_hinge": squared_hinge,
    "hinge": hinge,
}
