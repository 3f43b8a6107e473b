"""Reconstruct a deleted record from the change of a net, by matching an estimated gradient.

Experimental. Axes: K deletions, P parameters, M public records, F inputs, R inputs of one batch,
C outputs.
"""

import copy
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from unlearnbench.attack import _inversion
from unlearnbench.attack._judged import Guess, farthest
from unlearnbench.attack._rank_one import classes, factors
from unlearnbench.convex.objective import Array
from unlearnbench.protocol._audit import NetAudit
from unlearnbench.train.gradient import BATCH, head, hessian_products, outputs, theta

Gradients = Callable[[Tensor, Tensor], Tensor]
"""Map inputs (R, F) and their classes (R,) to the gradients of their losses (R, P)."""


def guess(deletions: NetAudit, *, label: str, space: str, restarts: int, steps: int) -> Guess:
    """Reconstruct records with ``inverted`` from the gradients of ``estimate``; see ``hrec``."""
    v_KP = deletions.theta_KP.double() - theta(deletions.net).double()
    if not v_KP.isfinite().all():
        raise ValueError("hrec: the attack needs finite parameters")
    moved_K = v_KP.any(dim=1).numpy()
    g_KP = estimate(deletions, v_KP)
    y_K, quality_K = read_label(deletions.net, g_KP, label=label)
    from_change, _ = read_label(deletions.net, v_KP, label=label)
    inversion = {"restarts": restarts, "steps": steps}
    x_KF = inverted(deletions, g_KP, y_K, **inversion) * moved_K[:, None]
    change_KF = inverted(deletions, v_KP, from_change, **inversion) * moved_K[:, None]
    return Guess(
        x_KF=x_KF,
        y_K=y_K,
        quality_K=np.where(moved_K, quality_K, 1.0),
        nearest_K=max_diff(deletions, bounded=space == "probabilities"),
        change_KF=change_KF,
        moved_K=moved_K,
        residual=deletions.residual,
    )


def estimate(deletions: NetAudit, v_KP: Tensor) -> Tensor:
    """Estimate the gradient ∂ℓ/∂θ (K, P) of each deleted record at θ₊, in float64.

        ĝ = ((n−1)/m) Σ_j ∇²ℓ(θ₊; z_j) v + (n−1)λ'v − λ'θ₊,   v = θ₋ − θ₊

    The sum is over public records with their classes. Training minimises (1/n) Σ ℓ + ½λ'‖θ‖².

    Args:
        deletions: the audit; its deleted records are not read.
        v_KP: the change of the parameters in each deletion.

    Raises:
        ValueError: there is no public record.
    """
    if not len(deletions.public_MF):
        raise ValueError("hrec: there is no public record")
    net, rows = copy.deepcopy(deletions.net).double(), deletions.n - 1
    x, y_M = _inputs(deletions), torch.from_numpy(deletions.public_y_M)
    parts = zip(x.split(BATCH), y_M.split(BATCH), strict=True)
    curved_KP = hessian_products(net, parts, deletions.loss, v_KP)
    ridge_KP = rows * deletions.decay * v_KP - deletions.decay * theta(net)
    return rows / len(x) * curved_KP + ridge_KP


def _inputs(deletions: NetAudit) -> Tensor:
    return torch.from_numpy(deletions.public_MF).reshape(-1, *deletions.shape)


def read_label(net: nn.Module, g_KP: Tensor, *, label: str) -> tuple[NDArray[np.generic], Array]:
    """Return the classes (K,), and s₂/s₁ (K,) of the last layer's block of the gradient.

        ∂ℓ/∂b = p − e_y,   ∂ℓ/∂W = (p − e_y) hᵀ

    The last layer is a softmax regression on its inputs h: only the entry of the class is negative.
    ``auto`` reads the bias alone, the other rules work as for a linear model. Zhao, Mopuri & Bilen,
    iDLG: Improved Deep Leakage from Gradients (2001.02610).
    """
    last, sizes = head(net), [parameter.numel() for parameter in net.parameters()]
    assert last is not None
    weight_KQ, bias_KC = (
        block
        for parameter, block in zip(net.parameters(), g_KP.split(sizes, dim=1), strict=True)
        if parameter is last.weight or parameter is last.bias
    )
    weight_KCH = weight_KQ.unflatten(1, last.weight.shape)
    g_KPC = torch.cat([weight_KCH.mT, bias_KC[:, None]], dim=1).double().numpy()
    decomposition = factors(g_KPC)
    rule = "intercept" if label == "auto" else label
    sign_K1 = np.sign(decomposition[0][:, -1:])
    return classes(g_KPC, decomposition, sign_K1, label=rule, sharp=False), decomposition[3]


def inverted(
    deletions: NetAudit, g_KP: Tensor, y_K: NDArray[np.generic], *, restarts: int, steps: int
) -> Array:
    """x̂ = argmin 1 − cos(∇ℓ(θ₊; x, ŷ), ĝ) over the box (K, F), by projected L-BFGS in float32.

    Geiping et al., Inverting Gradients (2003.14053), without a prior on images. Descents start at
    the public mean and at the public records whose gradients have the largest cosine with ĝ.

    Args:
        deletions: the audit; its deleted records are not read.
        g_KP: ĝ.
        y_K: ŷ.
        restarts: number of public records to start from.
        steps: maximal number of steps of each descent.
    """
    public_MF, y_M = torch.from_numpy(deletions.public_MF).float(), deletions.public_y_M
    goal_KP, label_K = F.normalize(g_KP, dim=1).float(), torch.from_numpy(np.asarray(y_K))
    gradients = _gradients(deletions)
    each = max(1, _inversion.AT_ONCE // goal_KP.shape[1])
    near = [
        F.normalize(gradients(x_RF, y_R), dim=1) @ goal_KP.T
        for x_RF, y_R in zip(public_MF.split(each), torch.from_numpy(y_M).split(each), strict=True)
    ]
    begin_KSF = _inversion.beginnings(torch.cat(near).T, public_MF, restarts=restarts)
    low, high = float(deletions.low_F.min()), float(deletions.high_F.max())
    x_KF, _ = _inversion.matched(
        lambda x_RF, which_R: gradients(x_RF, label_K[which_R]),
        goal_KP,
        begin_KSF,
        low=low,
        high=high,
        steps=steps,
    )
    return np.asarray(x_KF.double().numpy())


def _gradients(deletions: NetAudit) -> Gradients:
    net = copy.deepcopy(deletions.net).float().eval()
    # Contiguous: with channels-last tensors vmap runs some layers row by row.
    weights = {name: parameter.detach().contiguous() for name, parameter in net.named_parameters()}

    def of_row(weights: dict[str, Tensor], x_F: Tensor, y: Tensor) -> Tensor:
        def model(x: Tensor) -> Tensor:
            return cast(Tensor, functional_call(net, weights, (x,)))

        x = x_F.reshape(1, *deletions.shape)
        return deletions.loss(cast(nn.Module, model), x, y[None])

    of_rows = vmap(grad(of_row), in_dims=(None, 0, 0))

    def gradients(x_RF: Tensor, y_R: Tensor) -> Tensor:
        gradient_by_name = of_rows(weights, x_RF, y_R)
        return torch.cat([gradient_by_name[name].flatten(1) for name in weights], dim=1)

    return gradients


@torch.no_grad()
def max_diff(deletions: NetAudit, *, bounded: bool) -> NDArray[np.intp]:
    """Return the public record (K,) whose prediction each deletion changes most; a baseline."""
    x = _inputs(deletions).to(deletions.theta_KP.dtype)
    before_M1C = deletions.net(x).double().numpy()[:, None]
    chosen = []
    for pair in zip(deletions.theta_KP, deletions.buffers_KS, strict=True):
        after_MC = outputs(deletions.net, *pair, x).double().numpy()
        chosen.append(farthest(before_M1C, after_MC[:, None], bounded=bounded))
    return np.concatenate(chosen)
