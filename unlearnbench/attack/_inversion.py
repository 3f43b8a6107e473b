"""Find inputs in a box whose embeddings point in given directions, many at a time.

Axes: K directions, S starts for each, R = K·S descents, F inputs, D features.
"""

from collections import deque
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Embedding = Callable[[Tensor], Tensor]
"""Map inputs (R, F) to features (R, D); differentiable, each row independent of the others."""

MEMORY = 10
HALVINGS = 12

AT_ONCE = 2**24
"""Largest number of feature entries in one batch of inputs: 64 MB."""


def starts(embedded_KD: Tensor, public_MF: Tensor, public_MD: Tensor, *, restarts: int) -> Tensor:
    """Return starts (K, 1 + restarts, F): the public mean, and the nearest by cosine of φ."""
    near_KM = F.normalize(embedded_KD, dim=1) @ F.normalize(public_MD, dim=1).T
    return beginnings(near_KM, public_MF, restarts=restarts)


def beginnings(near_KM: Tensor, public_MF: Tensor, *, restarts: int) -> Tensor:
    """Return starts (K, 1 + restarts, F): the public mean, and the nearest public records."""
    nearest = near_KM.topk(min(restarts, len(public_MF)), dim=1).indices
    mean = public_MF.mean(dim=0).expand(len(near_KM), 1, -1)
    return torch.cat([mean, public_MF[nearest]], dim=1)


def invert(
    embedding: Embedding,
    embedded_KD: Tensor,
    starts_KSF: Tensor,
    *,
    low: float,
    high: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """x̂ = argmin 1 − cos(φ(x), φ̂) over the box; the best of all starts (K, F), and 1 − cos (K,).

    The starts, the embedding and φ̂ set the precision; float32 is sufficient.

    Args:
        embedding: φ.
        embedded_KD: φ̂.
        starts_KSF: starts of the descents.
        low: smallest value of an input.
        high: largest value of an input.
        steps: maximal number of steps of each descent.
    """
    return matched(
        lambda x_RF, _: embedding(x_RF), embedded_KD, starts_KSF, low=low, high=high, steps=steps
    )


def matched(
    features: Callable[[Tensor, Tensor], Tensor],
    goal_KD: Tensor,
    starts_KSF: Tensor,
    *,
    low: float,
    high: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Same as ``invert``, with features that depend on the direction.

    Args:
        features: maps inputs (R, F) and the indices of their directions (R,) to features (R, D).
        goal_KD: the directions.
        starts_KSF: starts of the descents.
        low: smallest value of an input.
        high: largest value of an input.
        steps: maximal number of steps of each descent.
    """
    k, each, _ = starts_KSF.shape
    unit_KD = F.normalize(goal_KD, dim=1)
    k_R = torch.arange(k, device=unit_KD.device).repeat_interleave(each)
    at_once = max(1, AT_ONCE // unit_KD.shape[1])

    def away(x_RF: Tensor, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        chunks = zip(x_RF.split(at_once), k_R[rows_R].split(at_once), strict=True)
        apart, slopes = zip(*(_away(*chunk) for chunk in chunks), strict=True)
        return torch.cat(apart), torch.cat(slopes)

    def _away(x_RF: Tensor, which_R: Tensor) -> tuple[Tensor, Tensor]:
        x_RF = x_RF.detach().requires_grad_()
        # 1 − cos a = ½‖difference of unit vectors‖², which has no cancellation near 0.
        apart_RD = F.normalize(features(x_RF, which_R), dim=1) - unit_KD[which_R]
        apart_R = apart_RD.square().sum(dim=1) / 2
        return apart_R.detach(), torch.autograd.grad(apart_R.sum(), x_RF)[0]

    x_RF, apart_R = descend(away, starts_KSF.flatten(0, 1), low=low, high=high, steps=steps)
    apart_KS = apart_R.reshape(k, each)
    best_K = apart_KS.argmin(dim=1)
    here_K = torch.arange(k, device=best_K.device)
    return x_RF.reshape(k, each, -1)[here_K, best_K], apart_KS[here_K, best_K]


def descend(
    away: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x_RF: Tensor,
    *,
    low: float,
    high: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Projected L-BFGS for many independent problems: inputs (R, F) and values (R,).

    A step does not move entries at a bound whose descent direction points outwards. Each problem
    has its own step length, halved until the value decreases, and stops when it no longer does.

    Args:
        away: maps inputs (r, F) and the indices of their problems (r,) to values and gradients.
        x_RF: starts.
        low: smallest value of an entry.
        high: largest value of an entry.
        steps: maximal number of steps.
    """
    x_RF = x_RF.clamp(low, high)
    rows_R = torch.arange(len(x_RF), device=x_RF.device)
    f_R, g_RF = away(x_RF, rows_R)
    best_RF, value_R = x_RF.clone(), f_R.clone()
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    idle_R = torch.zeros_like(rows_R)
    for _ in range(steps):
        free_RF = ~(((x_RF <= low) & (g_RF > 0)) | ((x_RF >= high) & (g_RF < 0)))
        slope_RF = g_RF * free_RF
        d_RF = _quasi_newton(slope_RF, pairs) * free_RF
        uphill_R = (d_RF * slope_RF).sum(dim=1) >= 0
        first_R1 = (0.1 * (high - low) / slope_RF.abs().amax(dim=1).clamp_min(1e-30))[:, None]
        d_RF = torch.where(uphill_R[:, None] | (not pairs), -slope_RF * first_R1, d_RF)
        new_RF, new_f_R, new_g_RF = _shorter(away, rows_R, x_RF, f_R, g_RF, d_RF, low, high)
        s_RF, y_RF = new_RF - x_RF, new_g_RF - g_RF
        along_R = (s_RF * y_RF).sum(dim=1)
        bent_R = along_R > 1e-10 * y_RF.norm(dim=1) * s_RF.norm(dim=1)
        pairs.append((s_RF, y_RF, torch.where(bent_R, 1 / along_R, 0.0)))
        idle_R = torch.where(new_f_R < f_R * (1 - 1e-4), 0, idle_R + 1)
        x_RF, f_R, g_RF = new_RF, new_f_R, new_g_RF
        best_RF[rows_R], value_R[rows_R] = x_RF, f_R
        keep_R = idle_R < 3
        if not keep_R.any():
            break
        if keep_R.float().mean() < 0.9:
            rows_R, x_RF, f_R, g_RF, idle_R = (
                tensor[keep_R] for tensor in (rows_R, x_RF, f_R, g_RF, idle_R)
            )
            retained = [tuple(tensor[keep_R] for tensor in pair) for pair in pairs]
            pairs = deque(((s, y, rho) for s, y, rho in retained), maxlen=MEMORY)
    return best_RF, value_R


def _quasi_newton(g_RF: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """−H⁻¹g by the two-loop recursion; a pair without curvature (ρ = 0) has no effect."""
    q_RF = g_RF.clone()
    shares = []
    for s, y, rho in reversed(pairs):
        shares.append(rho * (s * q_RF).sum(dim=1))
        q_RF -= shares[-1][:, None] * y
    if pairs:
        s, y, rho = pairs[-1]
        size_R = torch.where(rho > 0, 1 / (rho * y.square().sum(dim=1)).clamp_min(1e-30), 1.0)
        q_RF *= size_R[:, None]
    for (s, y, rho), share in zip(pairs, reversed(shares), strict=True):
        q_RF += (share - rho * (y * q_RF).sum(dim=1))[:, None] * s
    return -q_RF


def _shorter(
    away: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    rows_R: Tensor,
    x_RF: Tensor,
    f_R: Tensor,
    g_RF: Tensor,
    d_RF: Tensor,
    low: float,
    high: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the longest step of 1, ½, ¼ … along d that lowers each value, or no step."""
    new_RF, new_f_R, new_g_RF = x_RF.clone(), f_R.clone(), g_RF.clone()
    remaining = torch.arange(len(x_RF), device=x_RF.device)
    for halving in range(HALVINGS):
        tried = (x_RF[remaining] + d_RF[remaining] * 0.5**halving).clamp(low, high)
        f, g = away(tried, rows_R[remaining])
        promised = (g_RF[remaining] * (tried - x_RF[remaining])).sum(dim=1)
        good = f <= f_R[remaining] + 1e-4 * promised.clamp_max(0)
        done = remaining[good]
        new_RF[done], new_f_R[done], new_g_RF[done] = tried[good], f[good], g[good]
        remaining = remaining[~good]
        if not len(remaining):
            break
    return new_RF, new_f_R, new_g_RF
