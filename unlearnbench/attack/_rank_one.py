"""A deleted record off the change of a linear model, where a record's gradient has rank one.

Axes: K deletions, M public records, P features with the constant last, F without it, C outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from unlearnbench.attack import _inversion
from unlearnbench.attack._judged import Guess, cosine, farthest
from unlearnbench.convex.deletion import Deletions
from unlearnbench.convex.objective import Array, Objective, batched, outputs
from unlearnbench.protocol._audit import Audit

SURE = 0.15
"""s₂/s₁ below which the largest entry of a softmax's residual is taken for the label."""


def guess(deletions: Audit, *, label: str, space: str, restarts: int, steps: int) -> Guess:
    """The records by ``reconstruct``, from φ̂ by inversion where there is an embedding.

    Args:
        deletions: what the attacker sees, and the truth.
        label: as for ``reconstruct``.
        space: as for ``max_diff``.
        restarts: descents of an inversion from the nearest public records, beside that from the
            public mean.
        steps: of each descent, at most.
    """
    goal, found, told = deletions.objective, deletions.found, {}
    public_MD = _embedded(deletions, deletions.public_MF)
    x_MP, t_MC = goal.features(public_MD), goal.targets(deletions.public_y_M, deletions.n_classes)
    own, change_KF = reconstruct(goal, found, x_MP, t_MC, label=label), None
    x_KF = own.x_KF
    if deletions.embedding is None:  # who multiplies by no Hessian: of a step down a gradient
        change_KF = read(goal, found, x_MP, found.delta_KPC, label=label).x_KF
    else:
        truth_KD = _embedded(deletions, deletions.x_KF)
        told["hrec_embedding_cos"] = float(cosine(x_KF, truth_KD).mean())
        x_KF = _inverted(deletions, x_KF, public_MD, restarts, steps)
    return Guess(
        x_KF=x_KF,
        y_K=own.y_K,
        quality_K=own.quality_K,
        nearest_K=max_diff(goal, found, x_MP, space=space),
        change_KF=change_KF,
        moved_K=np.abs(found.delta_KPC).max(axis=(1, 2)) > 0,
        residual=max(found.residual, float(found.residual_K.max())),
        told=told,
    )


def _embedded(deletions: Audit, x_NF: Array) -> Array:
    if deletions.embedding is None:
        return x_NF
    parts = torch.from_numpy(x_NF).split(1000)
    embedded: Array = torch.cat([deletions.embedding(part) for part in parts]).numpy()
    return embedded


def _inverted(
    deletions: Audit, embedded_KD: Array, public_MD: Array, restarts: int, steps: int
) -> Array:
    """Inputs in the box with these features, all at once, in float32; 0 where there is no trace."""
    public_MF, found_KD, given_MD = (
        torch.from_numpy(one).float() for one in (deletions.public_MF, embedded_KD, public_MD)
    )
    begin_KSF = _inversion.starts(found_KD, public_MF, given_MD, restarts=restarts)
    low, high = float(deletions.low_F.min()), float(deletions.high_F.max())
    single = deletions.embedding.to(torch.float32)
    x_KF, _ = _inversion.invert(single, found_KD, begin_KSF, low=low, high=high, steps=steps)
    return np.asarray(x_KF.double().numpy() * embedded_KD.any(axis=1, keepdims=True))


@dataclass(frozen=True)
class Reconstruction:
    """What the attacker says about each deletion.

    Attributes:
        x_KF: the record, or its embedding; 0 where the deletion has left no trace. Without an
            intercept its length is that of the fit to the public mean and means nothing.
        y_K: its class, or its target (NaN without an intercept) of a model with one output.
        quality_K: s₂/s₁ in [0, 1], small where the estimate has rank one, as it should; 1 where
            there is no trace, and 0 always for a squared loss and for one output.
    """

    x_KF: Array
    y_K: NDArray[np.generic]
    quality_K: Array


def gradient(objective: Objective, found: Deletions, x_MP: Array, t_MC: Array) -> Array:
    """The deleted record's own gradient x̃ ∂ℓ/∂fᵀ (K, P, C), estimated.

        ĝ = ((n−1)/m) Σ_j ∇²ℓ(θ₊; z_j) v + Λv − λ'θ₊,   v = θ₋ − θ₊

    The sum is over public records, as one Hessian-vector product, and Λ is that of n − 1 rows. The
    last term is a mean-form trainer's: there, the deletion changes Λ too. For a squared loss ĝ is
    −Ĉ₋(B₊ − B₋), and exact but for the public covariance.

    Args:
        objective: what both models minimise.
        found: both models.
        x_MP: public features, as ``objective.features`` gives them.
        t_MC: public targets; read by a squared hinge only.

    Raises:
        ValueError: parameters that are not finite, or no public record.
    """
    if not len(x_MP):
        raise ValueError("hrec: there is no public record")
    if not (np.isfinite(found.theta_PC).all() and np.isfinite(found.delta_KPC).all()):
        raise ValueError("hrec: the attack needs finite parameters")
    rows = found.n - 1
    lam_P1 = objective.penalty(rows, x_MP.shape[1])
    curved_KPC = objective.hessian_product(found.theta_PC, x_MP, t_MC, found.delta_KPC)
    estimate: Array = rows / len(x_MP) * curved_KPC + lam_P1 * found.delta_KPC
    lost_P1 = objective.penalty(found.n, x_MP.shape[1]) - lam_P1
    return estimate - lost_P1 * found.theta_PC


def reconstruct(
    objective: Objective, found: Deletions, x_MP: Array, t_MC: Array, *, label: str
) -> Reconstruction:
    """The record as the direction of its gradient, the label as what the gradient does to outputs.

        ĝ ≈ σuvᵀ;   x̂ = u / u_last;   residual r̂ = σv · sign(u_last), of class c f_c − t_c

    The constant in x̃ gives sign and length. Without it x̂ is the multiple of u closest to the
    public mean. One output: t̂ = θ₊ᵀx̂̃ − ĝ_last. Bertran et al., Reconstruction Attacks on
    Machine Unlearning: Simple Models are Vulnerable (2405.20272); without the paper's text at
    hand, from the optimality conditions.

    Args:
        objective: what both models minimise.
        found: both models.
        x_MP: public features, as ``objective.features`` gives them.
        t_MC: public targets; read by a squared hinge only.
        label: ``largest`` |v| (rule A; not valid for a squared loss); ``least`` r̂ (B);
            ``intercept``: least entry of ĝ's last row (C); ``auto``: A for a softmax of more than
            two classes whose s₂/s₁ is below 0.15, else B.

    Raises:
        ValueError: no intercept to read, parameters that are not finite, or no public record.
    """
    if label == "intercept" and objective.intercept == "none":
        raise ValueError("attack.call.label=intercept: the model has none")
    return read(objective, found, x_MP, gradient(objective, found, x_MP, t_MC), label=label)


def read(
    objective: Objective, found: Deletions, x_MP: Array, g_KPC: Array, *, label: str
) -> Reconstruction:
    """Record and label off estimated gradients; arguments as for ``reconstruct``."""
    parts = u_KP, s_K1, v_KC, quality_K = factors(g_KPC)
    if objective.intercept == "none":
        scale_K1 = (u_KP @ x_MP.mean(axis=0))[:, None]
        x_KF = u_KP * scale_K1 * (s_K1 > 0)
    else:
        last_K1 = u_KP[:, -1:]
        scale_K1 = 1 / np.where(np.abs(last_K1) < 1e-150, 1e-150, last_K1)
        x_KF = u_KP[:, :-1] * scale_K1 * (s_K1 > 0)
    if v_KC.shape[1] == 1:
        y_K: NDArray[np.generic] = np.full(len(x_KF), np.nan)
        if objective.intercept != "none":
            y_K = (objective.features(x_KF) @ found.theta_PC)[:, 0] - g_KPC[:, -1, 0]
    else:
        # Of two classes the residuals are as large as each other.
        sharp = objective.loss == "softmax" and v_KC.shape[1] > 2
        y_K = classes(g_KPC, parts, np.sign(scale_K1), label=label, sharp=sharp)
    return Reconstruction(x_KF, y_K, quality_K)


Factors = tuple[Array, Array, Array, Array]


def factors(g_KPC: Array) -> Factors:
    """Of the largest singular value u (K, P), σ (K, 1) and v (K, C); and s₂/s₁ (K,)."""
    u, s, v = np.linalg.svd(g_KPC, full_matrices=False)
    second_K = s[:, 1] if s.shape[1] > 1 else np.zeros(len(s))
    quality_K = np.where(s[:, 0] > 0, second_K / np.where(s[:, 0] > 0, s[:, 0], 1), 1.0)
    return u[:, :, 0], s[:, :1], v[:, 0], quality_K


def classes(
    g_KPC: Array, parts: Factors, sign_K1: Array, *, label: str, sharp: bool
) -> NDArray[np.generic]:
    """The class (K,) of each record off the gradient of a layer, by one of the rules A, B and C.

    Args:
        g_KPC: that gradient, the row of the constant last.
        parts: its ``factors``.
        sign_K1: that by which u points along the layer's input.
        label: the rule, as for ``reconstruct``.
        sharp: whether ``auto`` may take the largest entry.
    """
    if label == "intercept":
        return np.asarray(g_KPC[:, -1].argmin(axis=1))
    _, s_K1, v_KC, quality_K = parts
    auto_K = (quality_K < SURE) & sharp
    by_size_K = auto_K if label == "auto" else np.full(len(v_KC), label == "largest")
    largest_K, least_K = np.abs(v_KC).argmax(axis=1), (s_K1 * v_KC * sign_K1).argmin(axis=1)
    return np.asarray(np.where(by_size_K, largest_K, least_K))


def max_diff(
    objective: Objective, found: Deletions, x_MP: Array, *, space: str
) -> NDArray[np.intp]:
    """Baseline: the public record (K,) whose prediction the deletion changes most, in L2 norm.

    Args:
        objective: what both models minimise.
        found: both models.
        x_MP: public features.
        space: ``probabilities``, for a softmax, else the outputs themselves; or ``logits``.
    """
    bounded = space == "probabilities" and objective.loss == "softmax"
    before_MC = x_MP @ found.theta_PC
    chosen = []
    for delta in batched(found.delta_KPC, x_MP, before_MC):
        after_MKC = outputs(x_MP, found.theta_PC + delta)
        chosen.append(farthest(before_MC[:, None], after_MKC, bounded=bounded))
    return np.concatenate(chosen)
