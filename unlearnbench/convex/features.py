"""Random Fourier features: an embedding for which a linear model approximates a kernel machine.

Axes: N rows, F inputs, D features.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

ROWS_FOR_MEDIAN = 1000


@dataclass(frozen=True)
class Fourier:
    """A drawn embedding; a call maps inputs (N, F) to features (N, D).

    φ(x) = √(2/D) cos(Wx + b)
    """

    w_DF: Tensor
    b_D: Tensor

    def __call__(self, x_NF: Tensor) -> Tensor:
        """Compute features (N, D) of inputs (N, F) in the precision of the embedding."""
        scale: float = (2 / len(self.b_D)) ** 0.5
        return torch.addmm(self.b_D, x_NF, self.w_DF.T).cos() * scale

    def to(self, where: torch.dtype | torch.device) -> "Fourier":
        """Return the embedding in another precision, or on another device."""
        return Fourier(self.w_DF.to(where), self.b_D.to(where))


def rff(inputs: int, *, dimension: int, gamma: float, generator: Generator) -> Fourier:
    """Draw W ~ N(0, 2γ), b ~ U[0, 2π) in float64, so that E φ(x)ᵀφ(x') = exp(−γ‖x − x'‖²).

    Rahimi & Recht, Random Features for Large-Scale Kernel Machines (NIPS 2007).
    """
    w_DF = torch.randn(dimension, inputs, generator=generator, dtype=torch.float64)
    b_D = torch.rand(dimension, generator=generator, dtype=torch.float64)
    return Fourier(w_DF * (2 * gamma) ** 0.5, b_D * 2 * torch.pi)


def median_gamma(x_NF: Tensor) -> float:
    """γ = 1 / (2 · median ‖x_i − x_j‖²) over the pairs of the first 1,000 rows.

    Raises:
        ValueError: at least half of the pairs are equal rows.
    """
    median = float(torch.pdist(x_NF[:ROWS_FOR_MEDIAN].double()).square().median())
    if not median > 0:
        raise ValueError("gamma: the median distance between rows is 0")
    return 1 / (2 * median)
