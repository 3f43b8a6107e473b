"""Newton's method for the objectives of linear models.

Axes: N rows, P features, C outputs, K deletions.
"""

from collections.abc import Callable

import numpy as np
from scipy import linalg

from unlearnbench.objective import Array, Objective

Solve = Callable[[Array], Array]
"""From right-hand sides, whose first axis is that of the matrix, to solutions."""

PRECISION = 1e-9
"""Largest entry of ∇J at an optimum, for features of at most 1 (it grows with them)."""

STEPS = 200
BENT_MOST = {"softmax": 0.5, "squared_hinge": 2.0}
"""Bound on the eigenvalues of ∂²ℓ/∂f²: Böhning, 1992, for the softmax."""


def tolerance(x_NP: Array) -> float:
    """Largest entry of ∇J that counts as none."""
    return PRECISION * max(1.0, float(np.abs(x_NP).max(initial=0)))


def gradient(objective: Objective, x_NP: Array, t_NC: Array, lam_P1: Array, at_PC: Array) -> Array:
    """∇J (P, C)."""
    total: Array = x_NP.T @ objective.slope(x_NP @ at_PC, t_NC) + lam_P1 * at_PC
    return total


def cholesky(matrix_PP: Array) -> Solve:
    """Solutions with a positive (semi-)definite matrix, which is overwritten."""
    size = np.trace(matrix_PP) / len(matrix_PP) or 1.0
    for jitter in (0.0, 1e-12, 1e-9, 1e-6):
        try:
            shifted_PP = matrix_PP + jitter * size * np.eye(len(matrix_PP)) if jitter else matrix_PP
            factor = linalg.cho_factor(shifted_PP, lower=True, check_finite=False)
        except linalg.LinAlgError:
            continue
        return lambda b: np.asarray(linalg.cho_solve(factor, b, check_finite=False))
    raise ValueError("the Hessian has negative or infinite eigenvalues")


def descend(
    objective: Objective,
    x_NP: Array,
    t_NC: Array,
    lam_P1: Array,
    theta_PC: Array,
    *,
    enough: float,
) -> Array:
    """Down to where ∇J has no entry above ``enough``: Newton steps, halved until J falls.

    They are found by conjugate gradients. Preconditioner: b·XᵀX + Λ with b the bound on the
    loss's curvature, factored once.
    """
    bound_PP = BENT_MOST[objective.loss] * (x_NP.T @ x_NP)
    bound_PP[np.diag_indices_from(bound_PP)] += lam_P1[:, 0]
    precondition = cholesky(bound_PP)

    def height(f_NC: Array, at_PC: Array) -> float:
        return objective.value(f_NC, t_NC) + float((lam_P1 * at_PC**2).sum()) / 2

    f_NC = x_NP @ theta_PC
    value = height(f_NC, theta_PC)
    for _ in range(STEPS):
        g_PC = x_NP.T @ objective.slope(f_NC, t_NC) + lam_P1 * theta_PC
        if np.abs(g_PC).max() <= enough:
            break
        product = _product(x_NP, objective.bend(f_NC, t_NC), lam_P1)
        step_PC = _conjugate_gradients(product, precondition, -g_PC)
        fall = float((g_PC * step_PC).sum())
        along_NC = x_NP @ step_PC
        for size in 0.5 ** np.arange(40):
            new = height(f_NC + size * along_NC, theta_PC + size * step_PC)
            # Near the optimum J is flat to rounding: the step is good, the comparison is not.
            if new <= value + 1e-4 * size * fall + 1e-13 * abs(value):
                break
        theta_PC = theta_PC + size * step_PC
        f_NC, value = f_NC + size * along_NC, new
    return theta_PC


def _product(x_NP: Array, bend: Callable[[Array], Array], lam_P1: Array) -> Solve:
    def product(v_PC: Array) -> Array:
        total: Array = x_NP.T @ bend(x_NP @ v_PC) + lam_P1 * v_PC
        return total

    return product


def _conjugate_gradients(product: Solve, precondition: Solve, b_PC: Array) -> Array:
    """About H⁻¹b, the better the smaller b."""
    x_PC, r_PC = np.zeros_like(b_PC), b_PC
    z_PC = precondition(r_PC)
    p_PC, inner = z_PC, float((r_PC * z_PC).sum())
    enough = inner * min(0.25, float(np.abs(b_PC).max())) ** 2 / 4
    for _ in range(500):
        hp_PC = product(p_PC)
        curvature = float((p_PC * hp_PC).sum())
        if curvature <= 0 or inner <= enough:
            break
        x_PC = x_PC + inner / curvature * p_PC
        r_PC = r_PC - inner / curvature * hp_PC
        z_PC = precondition(r_PC)
        before, inner = inner, float((r_PC * z_PC).sum())
        p_PC = z_PC + inner / before * p_PC
    return x_PC


def hessian_inverse(
    objective: Objective, x_NP: Array, t_NC: Array, lam_P1: Array, theta_PC: Array
) -> Solve:
    """Solutions (P, C, K) of H·s = b with the Hessian at θ, formed and factored once."""
    width, outputs = theta_PC.shape
    bend = objective.bend(x_NP @ theta_PC, t_NC)
    apart = objective.loss == "squared_hinge"  # its outputs do not meet in H
    blocks = []
    hessian = np.zeros((0, 0) if apart else (width * outputs, width * outputs))
    # Where nothing is penalised, adding a number to all classes changes no loss: H is singular in
    # that direction, where ∇J is 0, and this term makes it regular there.
    free_P = np.where(lam_P1[:, 0] == 0, len(x_NP) / outputs, 0.0)
    for c in range(outputs):
        unit_C = np.eye(outputs)[c]
        bent_NC = bend(np.broadcast_to(unit_C, t_NC.shape))
        for d in [c] if apart else range(c + 1):
            block_PP = x_NP.T @ (bent_NC[:, [d]] * x_NP)
            if c == d:
                block_PP[np.diag_indices(width)] += lam_P1[:, 0]
            if apart:
                blocks.append(cholesky(block_PP))
                continue
            block_PP[np.diag_indices(width)] += free_P
            hessian[c * width : (c + 1) * width, d * width : (d + 1) * width] = block_PP
    if apart:
        return lambda b: np.stack([one(b[:, c]) for c, one in enumerate(blocks)], axis=1)
    whole = cholesky(hessian)

    def solve(b_PCK: Array) -> Array:
        b = b_PCK.swapaxes(0, 1).reshape(width * outputs, -1)
        return whole(b).reshape(outputs, width, -1).swapaxes(0, 1)

    return solve
