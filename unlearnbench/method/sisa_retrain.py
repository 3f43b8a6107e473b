"""SISA trained from scratch on the retain rows: what SISA's unlearning must come to."""

from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method.sisa import _grow, _slices
from unlearnbench.model.ensemble import Ensemble


def sisa_retrain(model: nn.Module, task: Task, *, shards: int, slices: int) -> nn.Module:
    """Train a net on each shard of the retain rows; the mean of their posteriors answers.

        θ_s,r = train( θ_s,r−1, D_s,1 ∪ … ∪ D_s,r ∖ D_F ),   p(x) = (1/S) Σ_s softmax f(x; θ_s,R)

    The shards are cut from all training rows, as SISA cuts them before it knows the forget set.
    Bourtoule et al., "Machine Unlearning" (IEEE S&P 2021, arXiv 1912.03817).
    """
    members = [task.fresh(f"shard {s}") for s in range(shards)]
    for s, parts in enumerate(_slices(task, shards, slices)):
        for _ in _grow(task, members[s], s, parts, 0):
            pass
    return Ensemble(members).eval()
