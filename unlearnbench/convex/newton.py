"""Newton's method for the objectives of linear models.

Axes: N rows, P features, C outputs, K deletions or other right-hand sides.
"""

from collections.abc import Callable

import numpy as np
from scipy import linalg
from scipy.special import softmax

from unlearnbench.convex.objective import Array, Objective

Solve = Callable[[Array], Array]
"""Map right-hand sides, whose first axis is that of the matrix, to solutions."""

PRECISION = 1e-9
"""Largest entry of ∇J at an optimum, for features up to 1; scales with larger features."""

STEPS, MOST = 200, 500
"""Maximal number of Newton steps, and of conjugate-gradient iterations for one of them."""

SHARE = 1e-3
"""Relative residual of a solution without a factor of the Hessian: a step with the Hessian at a
nearby point is no more accurate."""

BENT_MOST = {"softmax": 0.5, "squared_hinge": 2.0}
"""Bound on the eigenvalues of ∂²ℓ/∂f²: Böhning, 1992, for the softmax."""


def tolerance(x_NP: Array) -> float:
    """Largest entry of ∇J that counts as 0."""
    return PRECISION * max(1.0, float(np.abs(x_NP).max(initial=0)))


def gradient(objective: Objective, x_NP: Array, t_NC: Array, lam_P1: Array, at_PC: Array) -> Array:
    """∇J (P, C)."""
    total: Array = x_NP.T @ objective.slope(x_NP @ at_PC, t_NC) + lam_P1 * at_PC
    return total


def cholesky(matrix_PP: Array) -> Solve:
    """Solver for a positive (semi-)definite matrix; adds jitter to the diagonal if needed."""
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
    """Minimise J by Newton steps, halved until J decreases, until ∇J has no entry above ``enough``.

    Conjugate gradients compute the steps. Preconditioner: b·XᵀX + Λ with b the bound on the
    curvature of the loss, factored once.
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
        largest = float(np.abs(g_PC).max())
        if largest <= enough:
            break
        product = _product(x_NP, objective.bend(f_NC[:, None], t_NC[:, None]), lam_P1)
        # Closer to the optimum the Newton step is solved more accurately.
        share = min(0.25, largest) / 2
        step_PC = conjugate_gradients(product, precondition, -g_PC[:, None], share)[:, 0]
        fall = float((g_PC * step_PC).sum())
        along_NC = x_NP @ step_PC
        for size in 0.5 ** np.arange(40):
            new = height(f_NC + size * along_NC, theta_PC + size * step_PC)
            # Near the optimum J is constant up to rounding: the tolerance accepts valid steps.
            if new <= value + 1e-4 * size * fall + 1e-13 * abs(value):
                break
        theta_PC = theta_PC + size * step_PC
        f_NC, value = f_NC + size * along_NC, new
    return theta_PC


def _product(x_NP: Array, bend: Callable[[Array], Array], lam_P1: Array) -> Solve:
    def product(v_PKC: Array) -> Array:
        bent_NKC = bend((x_NP @ v_PKC.reshape(len(v_PKC), -1)).reshape(-1, *v_PKC.shape[1:]))
        total: Array = (x_NP.T @ bent_NKC.reshape(len(x_NP), -1)).reshape(v_PKC.shape)
        return total + lam_P1[:, :, None] * v_PKC

    return product


def conjugate_gradients(product: Solve, precondition: Solve, b_PKC: Array, share: float) -> Array:
    """Approximate H⁻¹b (P, K, C) for K right-hand sides, with one product with H per iteration.

    Each system is solved until its residual, in the norm of the preconditioner, is ``share`` of its
    initial value.

    Args:
        product: Hv of K directions, in the shape of b.
        precondition: M⁻¹ of the columns (P, K·C).
        b_PKC: the right-hand sides.
        share: relative residual, between 0 and 1.
    """

    def toward(r_PKC: Array) -> Array:
        return precondition(r_PKC.reshape(len(r_PKC), -1)).reshape(r_PKC.shape)

    solution_PKC = np.zeros_like(b_PKC)
    x, r, p = solution_PKC, b_PKC, toward(b_PKC)
    inner_K = _inner(r, p)
    enough_K, going_K = share**2 * inner_K, np.arange(b_PKC.shape[1])
    on_K = inner_K > 0
    for _ in range(MOST):
        if not on_K.all():
            solution_PKC[:, going_K[~on_K]] = x[:, ~on_K]
            x, r, p = (array[:, on_K] for array in (x, r, p))
            inner_K, enough_K, going_K = inner_K[on_K], enough_K[on_K], going_K[on_K]
        if not len(going_K):
            break
        hp = product(p)
        curvature_K = _inner(p, hp)
        length_K1 = np.divide(inner_K, curvature_K, where=curvature_K > 0, out=0 * inner_K)[:, None]
        x, r = x + length_K1 * p, r - length_K1 * hp
        z, before_K = toward(r), inner_K
        inner_K = _inner(r, z)
        p = z + (inner_K / before_K)[:, None] * p
        on_K = (inner_K > enough_K) & (curvature_K > 0)
    solution_PKC[:, going_K] = x
    return solution_PKC


def _inner(a_PKC: Array, b_PKC: Array) -> Array:
    return np.asarray(np.einsum("pkc,pkc->k", a_PKC, b_PKC))


def hessian_inverse(
    objective: Objective, x_NP: Array, t_NC: Array, lam_P1: Array, theta_PC: Array
) -> Solve:
    """Solver for H·s = b (P, C, K) with the Hessian at θ, formed and factored once."""
    width, outputs = theta_PC.shape
    bend = objective.bend(x_NP @ theta_PC, t_NC)
    apart = objective.loss == "squared_hinge"  # H is block diagonal in its outputs
    blocks = []
    hessian = np.zeros((0, 0) if apart else (width * outputs, width * outputs))
    # Without a penalty, adding a constant to all classes does not change the loss: H is singular in
    # this direction, where ∇J is 0, and this term makes it regular.
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
        return lambda b: np.stack([block(b[:, c]) for c, block in enumerate(blocks)], axis=1)
    solve_hessian = cholesky(hessian)

    def solve(b_PCK: Array) -> Array:
        b = b_PCK.swapaxes(0, 1).reshape(width * outputs, -1)
        return solve_hessian(b).reshape(outputs, width, -1).swapaxes(0, 1)

    return solve


def hessian_inverse_by_products(
    objective: Objective, x_NP: Array, t_NC: Array, lam_P1: Array, theta_PC: Array
) -> Solve:
    """Approximate solver for a softmax, without an array of the size (P·C)² of the Hessian.

    Conjugate gradients on all right-hand sides at once. Preconditioner: Xᵀ diag(w) X + Λ for each
    output, factored once, where w_i = (1 − ‖p_i‖²) / (C − 1) is the mean of the eigenvalues of
    diag(p_i) − p_i p_iᵀ except the one that is 0. A bound on them would be far too large for rows
    with confident predictions.
    """
    f_NC = x_NP @ theta_PC
    bend = objective.bend(f_NC[:, None], t_NC[:, None])
    product = _product(x_NP, bend, lam_P1)
    outputs = theta_PC.shape[1]
    p_NC = softmax(f_NC, axis=1)
    root_N1 = np.sqrt((1 - (p_NC**2).sum(axis=1, keepdims=True)).clip(0) / max(outputs - 1, 1))
    heavy_NP = root_N1 * x_NP
    bound_PP = heavy_NP.T @ heavy_NP
    bound_PP[np.diag_indices_from(bound_PP)] += lam_P1[:, 0]
    precondition = cholesky(bound_PP)

    def solve(b_PCK: Array) -> Array:
        b_PKC = np.ascontiguousarray(b_PCK.swapaxes(1, 2))
        return conjugate_gradients(product, precondition, b_PKC, SHARE).swapaxes(1, 2)

    return solve
