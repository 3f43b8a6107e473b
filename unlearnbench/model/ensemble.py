"""Ensembles of nets."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Log of the mean posterior of the members; softmax of the output is this mean.

    Bourtoule et al., "Machine Unlearning" (arXiv 1912.03817), aggregation of SISA.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Log of the mean posterior (B, C) of inputs (B, …)."""
        posterior_MBC = torch.stack([member(x).log_softmax(1) for member in self.members])
        return posterior_MBC.logsumexp(0) - math.log(len(self.members))
