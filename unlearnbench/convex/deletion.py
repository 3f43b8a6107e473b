"""Train linear models to their optimum, and retrain without one row at a time.

Axes: N rows, P features (with the constant), C outputs, K deletions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from unlearnbench.convex import newton
from unlearnbench.convex.objective import Array, Objective, batched, outputs, pulled_back

Rows = NDArray[np.integer]

CHORDS = 60
"""Maximal steps of a retraining with the Hessian at θ₊; each scales the error by the leverage."""

ROUGH, LAST_STEPS = 1e-2, 8
"""Largest entry of ∇J at which the Hessian is formed, and maximal number of steps with it."""

LARGEST = 16_000
"""Maximal parameters of a softmax whose Hessian is formed: 2 GB, and 2 GB for its factor."""


@dataclass(frozen=True)
class Deletions:
    """A model, and its changes by retraining without each of K rows, one at a time.

    Attributes:
        theta_PC: θ₊, trained on all rows.
        delta_KPC: θ₋ − θ₊.
        residual_K: largest entry of ∇J of each retrained model, 0 at its optimum.
        residual: largest entry of ∇J at θ₊.
        rows_K: the deleted row of each retrained model.
        n: number of rows that θ₊ is trained on.
    """

    theta_PC: Array
    delta_KPC: Array
    residual_K: Array
    residual: float
    rows_K: Rows
    n: int


def fit(objective: Objective, x_NP: Array, t_NC: Array) -> Array:
    """θ (P, C) at the optimum, by a direct solver or by Newton's method."""
    lam_P1 = objective.penalty(*x_NP.shape)
    if objective.loss == "squared":
        return _inverse(x_NP.T @ x_NP, lam_P1)(x_NP.T @ t_NC)
    start_PC = np.zeros((x_NP.shape[1], t_NC.shape[1]))
    enough = newton.tolerance(x_NP)
    return newton.descend(objective, x_NP, t_NC, lam_P1, start_PC, enough=enough)


def delete(objective: Objective, x_NP: Array, t_NC: Array, rows_K: Rows) -> Deletions:
    """Train on all rows, and retrain without each of the given ones.

    Squared loss: rank-one downdates of one factorisation. Others: Newton steps with the Hessian
    fixed at θ₊, for a batch of deletions at a time; a softmax with more than ``LARGEST`` parameters
    uses Hessian-vector products only. A model that does not converge in this way (for a row with
    leverage near 1) is retrained separately.
    """
    way = _by_downdates if objective.loss == "squared" else _by_chords
    theta_PC, delta_KPC, residual_K, residual = way(objective, x_NP, t_NC, rows_K)
    return Deletions(theta_PC, delta_KPC, residual_K, residual, rows_K, len(x_NP))


def observed(
    objective: Objective,
    x_NP: Array,
    t_NC: Array,
    rows_K: Rows,
    theta_PC: Array,
    delta_KPC: Array,
) -> Deletions:
    """Wrap deletions computed elsewhere, with the residuals ∇J of their models."""
    n, width = x_NP.shape
    lam_P1 = objective.penalty(n - 1, width)
    residual_K = [
        np.abs(_gradients(objective, x_NP, t_NC, lam_P1, rows, theta_PC + delta)).max(axis=(1, 2))
        for rows, delta in zip(
            batched(rows_K, x_NP, t_NC), batched(delta_KPC, x_NP, t_NC), strict=True
        )
    ]
    g_PC = newton.gradient(objective, x_NP, t_NC, objective.penalty(n, width), theta_PC)
    residual = float(np.abs(g_PC).max())
    return Deletions(theta_PC, delta_KPC, np.concatenate(residual_K), residual, rows_K, n)


def _by_downdates(
    objective: Objective, x_NP: Array, t_NC: Array, rows_K: Rows
) -> tuple[Array, Array, Array, float]:
    """B₋ = B − C⁻¹x̃ (t − Bᵀx̃)ᵀ / (1 − h), h = x̃ᵀC⁻¹x̃, both with the Λ of n − 1 rows."""
    n, width = x_NP.shape
    gram_PP, moment_PC = x_NP.T @ x_NP, x_NP.T @ t_NC
    lam_P1, lam_less_P1 = objective.penalty(n, width), objective.penalty(n - 1, width)
    inverse = _inverse(gram_PP, lam_less_P1)
    theta_PC = _inverse(gram_PP, lam_P1)(moment_PC) if objective.form == "mean" else None
    base_PC = inverse(moment_PC)
    theta_PC = base_PC if theta_PC is None else theta_PC
    x_KP, t_KC = x_NP[rows_K], t_NC[rows_K]
    pull_KP = inverse(x_KP.T).T
    slack_K = 1 - (x_KP * pull_KP).sum(axis=1)
    alone_K = slack_K < 1e-6  # the downdate loses precision
    miss_KC = (t_KC - x_KP @ base_PC) / np.where(alone_K, 1, slack_K)[:, None]
    delta_KPC = (base_PC - theta_PC) - pull_KP[:, :, None] * miss_KC[:, None, :]
    for k in map(int, np.flatnonzero(alone_K)):
        rest_PP = gram_PP - np.outer(x_KP[k], x_KP[k])
        rest_PC = moment_PC - np.outer(x_KP[k], t_KC[k])
        delta_KPC[k] = _inverse(rest_PP, lam_less_P1)(rest_PC) - theta_PC
    residual = float(np.abs(gram_PP @ theta_PC + lam_P1 * theta_PC - moment_PC).max())
    residual_K = np.empty(len(rows_K))
    for k, (x_P, t_C) in enumerate(zip(x_KP, t_KC, strict=True)):
        at_PC = theta_PC + delta_KPC[k]
        own_PC = np.outer(x_P, x_P @ at_PC - t_C)
        residual_PC = gram_PP @ at_PC + lam_less_P1 * at_PC - moment_PC - own_PC
        residual_K[k] = np.abs(residual_PC).max()
    return theta_PC, delta_KPC, residual_K, residual


def _inverse(gram_PP: Array, lam_P1: Array) -> newton.Solve:
    """Solver for XᵀX + Λ; its pseudo-inverse if nothing is penalised."""
    matrix_PP = gram_PP.copy()
    matrix_PP[np.diag_indices_from(matrix_PP)] += lam_P1[:, 0]
    if lam_P1.any():
        return newton.cholesky(matrix_PP)
    values_P, vectors_PP = linalg.eigh(matrix_PP)
    positive_P = values_P > len(values_P) * np.finfo(float).eps * values_P[-1]
    basis = vectors_PP[:, positive_P]
    return lambda b: np.asarray(basis @ ((basis.T @ b).T / values_P[positive_P]).T)


def _by_chords(
    objective: Objective, x_NP: Array, t_NC: Array, rows_K: Rows
) -> tuple[Array, Array, Array, float]:
    """δ ← δ − H(θ₊)⁻¹ ∇J₋(θ₊ + δ) from δ = 0 for all deletions, each until it converges."""
    n, width = x_NP.shape
    theta_PC, solve, residual = _with_inverse(objective, x_NP, t_NC)
    lam_P1, enough = objective.penalty(n - 1, width), newton.tolerance(x_NP)
    parts = []
    for rows in batched(rows_K, x_NP, t_NC):
        delta_KPC = np.zeros((len(rows), *theta_PC.shape))
        residual_K, worst_K = np.full((2, len(rows)), np.inf)
        going = np.arange(len(rows))
        for _ in range(CHORDS):
            about = (objective, x_NP, t_NC, lam_P1, rows[going], theta_PC + delta_KPC[going])
            g_KPC = _gradients(*about)
            size_K = np.abs(g_KPC).max(axis=(1, 2))
            worst_K[going] = np.minimum(worst_K[going], 10 * size_K)
            residual_K[going] = size_K
            still_K = (size_K > enough) & (size_K <= worst_K[going])
            going, g_KPC = going[still_K], g_KPC[still_K]
            if not len(going):
                break
            delta_KPC[going] -= np.moveaxis(solve(np.moveaxis(g_KPC, 0, 2)), 2, 0)
        for k in map(int, np.flatnonzero(~(residual_K <= enough))):
            rest = np.arange(n) != rows[k]
            data = x_NP[rest], t_NC[rest], lam_P1
            at_PC = newton.descend(objective, *data, theta_PC, enough=enough)
            delta_KPC[k] = at_PC - theta_PC
            residual_K[k] = np.abs(newton.gradient(objective, *data, at_PC)).max()
        parts.append((delta_KPC, residual_K))
    delta_KPC, residual_K = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return theta_PC, delta_KPC, residual_K, residual


def _with_inverse(
    objective: Objective, x_NP: Array, t_NC: Array
) -> tuple[Array, newton.Solve, float]:
    """Return θ₊, a solver for the Hessian there, and the largest entry of ∇J.

    The last steps use the Hessian at a nearby point; the Hessian at the optimum is computed only if
    these steps fail.
    """
    large = objective.loss == "softmax" and x_NP.shape[1] * t_NC.shape[1] > LARGEST
    inverse = newton.hessian_inverse_by_products if large else newton.hessian_inverse
    about = objective, x_NP, t_NC, objective.penalty(*x_NP.shape)
    theta_PC = np.zeros((x_NP.shape[1], t_NC.shape[1]))
    precise = newton.tolerance(x_NP)
    for enough in (ROUGH / newton.PRECISION * precise, precise):
        theta_PC = newton.descend(*about, theta_PC, enough=enough)
        solve = inverse(*about, theta_PC)
        g_PC = newton.gradient(*about, theta_PC)
        for _ in range(LAST_STEPS):
            if np.abs(g_PC).max() <= precise:
                break
            nearer_PC = theta_PC - solve(g_PC[:, :, None])[:, :, 0]
            residual_PC = newton.gradient(*about, nearer_PC)
            if not np.abs(residual_PC).max() < np.abs(g_PC).max():
                break
            theta_PC, g_PC = nearer_PC, residual_PC
        residual = float(np.abs(g_PC).max())
        if residual <= precise:
            break
    return theta_PC, solve, residual


def _gradients(
    objective: Objective, x_NP: Array, t_NC: Array, lam_P1: Array, rows_K: Rows, theta_KPC: Array
) -> Array:
    """∇J₋ (K, P, C) of K models, each on all rows except its deleted one."""
    slope_NKC = objective.slope(outputs(x_NP, theta_KPC), t_NC[:, None])
    slope_NKC[rows_K, np.arange(len(rows_K))] = 0
    return pulled_back(x_NP, slope_NKC) + lam_P1 * theta_KPC
