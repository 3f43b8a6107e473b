"""Reconstruct a deleted record from the change of a linear model; its gradient has rank one.

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
"""Largest s₂/s₁ at which rule A (the largest residual of a softmax) reads the label."""


def guess(deletions: Audit, *, label: str, space: str, restarts: int, steps: int) -> Guess:
    """Reconstruct records with ``reconstruct``, then invert the embedding if there is one.

    Args:
        deletions: the data of the attacker, and the deleted records.
        label: as for ``reconstruct``.
        space: as for ``max_diff``.
        restarts: number of descents from the nearest public records, in addition to the descent
            from the public mean.
        steps: maximal number of steps of each descent.
    """
    goal, models, metrics = deletions.objective, deletions.found, {}
    public_MD = _embedded(deletions, deletions.public_MF)
    x_MP, t_MC = goal.features(public_MD), goal.targets(deletions.public_y_M, deletions.n_classes)
    own, change_KF = reconstruct(goal, models, x_MP, t_MC, label=label), None
    x_KF = own.x_KF
    if deletions.embedding is None:  # without the Hessian: δ as one gradient step
        change_KF = read(goal, models, x_MP, models.delta_KPC, label=label).x_KF
    else:
        truth_KD = _embedded(deletions, deletions.x_KF)
        metrics["hrec_embedding_cos"] = float(cosine(x_KF, truth_KD).mean())
        x_KF = _inverted(deletions, x_KF, public_MD, restarts, steps)
    return Guess(
        x_KF=x_KF,
        y_K=own.y_K,
        quality_K=own.quality_K,
        nearest_K=max_diff(goal, models, x_MP, space=space),
        change_KF=change_KF,
        moved_K=np.abs(models.delta_KPC).max(axis=(1, 2)) > 0,
        residual=max(models.residual, float(models.residual_K.max())),
        told=metrics,
    )


def _embedded(deletions: Audit, x_NF: Array) -> Array:
    if deletions.embedding is None:
        return x_NF
    chunks = torch.from_numpy(x_NF).split(1000)
    embedded: Array = torch.cat([deletions.embedding(chunk) for chunk in chunks]).numpy()
    return embedded


def _inverted(
    deletions: Audit, embedded_KD: Array, public_MD: Array, restarts: int, steps: int
) -> Array:
    """Inputs in the box with these features, in one float32 run; 0 where no parameter changed."""
    public_MF, goal_KD, features_MD = (
        torch.from_numpy(array).float() for array in (deletions.public_MF, embedded_KD, public_MD)
    )
    begin_KSF = _inversion.starts(goal_KD, public_MF, features_MD, restarts=restarts)
    low, high = float(deletions.low_F.min()), float(deletions.high_F.max())
    single = deletions.embedding.to(torch.float32)
    x_KF, _ = _inversion.invert(single, goal_KD, begin_KSF, low=low, high=high, steps=steps)
    return np.asarray(x_KF.double().numpy() * embedded_KD.any(axis=1, keepdims=True))


@dataclass(frozen=True)
class Reconstruction:
    """Record and label of each deletion.

    Attributes:
        x_KF: the record, or its embedding; 0 where the deletion changes no parameter. Without an
            intercept its norm is that of the fit to the public mean and carries no information.
        y_K: its class, or for a model with one output its target (NaN without an intercept).
        quality_K: s₂/s₁ in [0, 1], 0 for an estimate of rank one; 1 where no parameter changes,
            and always 0 for a squared loss and for one output.
    """

    x_KF: Array
    y_K: NDArray[np.generic]
    quality_K: Array


def gradient(objective: Objective, models: Deletions, x_MP: Array, t_MC: Array) -> Array:
    """Estimate the gradient x̃ ∂ℓ/∂fᵀ (K, P, C) of each deleted record.

        ĝ = ((n−1)/m) Σ_j ∇²ℓ(θ₊; z_j) v + Λv − λ'θ₊,   v = θ₋ − θ₊

    The sum is over public records, as one Hessian-vector product; Λ is that of n − 1 rows. The
    last term applies to a mean-form objective, whose Λ depends on the number of rows. For a squared
    loss ĝ = −Ĉ₋(B₊ − B₋), which is exact except for the public covariance.

    Args:
        objective: the objective that both models minimise.
        models: parameters of both models.
        x_MP: public features, as returned by ``objective.features``.
        t_MC: public targets; used only by a squared hinge.

    Raises:
        ValueError: parameters are not finite, or there is no public record.
    """
    if not len(x_MP):
        raise ValueError("hrec: there is no public record")
    if not (np.isfinite(models.theta_PC).all() and np.isfinite(models.delta_KPC).all()):
        raise ValueError("hrec: the attack needs finite parameters")
    rows = models.n - 1
    lam_P1 = objective.penalty(rows, x_MP.shape[1])
    curved_KPC = objective.hessian_product(models.theta_PC, x_MP, t_MC, models.delta_KPC)
    estimate: Array = rows / len(x_MP) * curved_KPC + lam_P1 * models.delta_KPC
    lost_P1 = objective.penalty(models.n, x_MP.shape[1]) - lam_P1
    return estimate - lost_P1 * models.theta_PC


def reconstruct(
    objective: Objective, models: Deletions, x_MP: Array, t_MC: Array, *, label: str
) -> Reconstruction:
    """Read the record from the left and the label from the right singular vector of its gradient.

        ĝ ≈ σuvᵀ;   x̂ = u / u_last;   residual r̂ = σv · sign(u_last), of class c f_c − t_c

    The constant in x̃ determines sign and norm. Without it x̂ is the multiple of u closest to the
    public mean. One output: t̂ = θ₊ᵀx̂̃ − ĝ_last. Bertran et al., Reconstruction Attacks on
    Machine Unlearning: Simple Models are Vulnerable (2405.20272); derived from the optimality
    conditions, not checked against the text of the paper.

    Args:
        objective: the objective that both models minimise.
        models: parameters of both models.
        x_MP: public features, as returned by ``objective.features``.
        t_MC: public targets; used only by a squared hinge.
        label: ``largest`` |v| (rule A; not valid for a squared loss); ``least`` r̂ (B);
            ``intercept``: smallest entry of the last row of ĝ (C); ``auto``: A for a softmax of
            more than two classes whose s₂/s₁ is below 0.15, else B.

    Raises:
        ValueError: ``label`` needs a missing intercept, parameters are not finite, or there is no
            public record.
    """
    if label == "intercept" and objective.intercept == "none":
        raise ValueError("attack.call.label=intercept: the model has none")
    return read(objective, models, x_MP, gradient(objective, models, x_MP, t_MC), label=label)


def read(
    objective: Objective, models: Deletions, x_MP: Array, g_KPC: Array, *, label: str
) -> Reconstruction:
    """Read record and label from estimated gradients; arguments as for ``reconstruct``."""
    decomposition = u_KP, s_K1, v_KC, quality_K = factors(g_KPC)
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
            y_K = (objective.features(x_KF) @ models.theta_PC)[:, 0] - g_KPC[:, -1, 0]
    else:
        # With two classes both residuals have the same absolute value.
        sharp = objective.loss == "softmax" and v_KC.shape[1] > 2
        y_K = classes(g_KPC, decomposition, np.sign(scale_K1), label=label, sharp=sharp)
    return Reconstruction(x_KF, y_K, quality_K)


Factors = tuple[Array, Array, Array, Array]


def factors(g_KPC: Array) -> Factors:
    """Return u (K, P), σ (K, 1) and v (K, C) of the largest singular value, and s₂/s₁ (K,)."""
    u, s, v = np.linalg.svd(g_KPC, full_matrices=False)
    second_K = s[:, 1] if s.shape[1] > 1 else np.zeros(len(s))
    quality_K = np.where(s[:, 0] > 0, second_K / np.where(s[:, 0] > 0, s[:, 0], 1), 1.0)
    return u[:, :, 0], s[:, :1], v[:, 0], quality_K


def classes(
    g_KPC: Array, decomposition: Factors, sign_K1: Array, *, label: str, sharp: bool
) -> NDArray[np.generic]:
    """Read the class (K,) of each record from the gradient of a layer, by rule A, B or C.

    Args:
        g_KPC: gradient of the layer, with the row of the constant last.
        decomposition: the ``factors`` of this gradient.
        sign_K1: the sign for which u has the direction of the layer's input.
        label: the rule, as for ``reconstruct``.
        sharp: whether ``auto`` may use rule A.
    """
    if label == "intercept":
        return np.asarray(g_KPC[:, -1].argmin(axis=1))
    _, s_K1, v_KC, quality_K = decomposition
    auto_K = (quality_K < SURE) & sharp
    by_size_K = auto_K if label == "auto" else np.full(len(v_KC), label == "largest")
    largest_K, least_K = np.abs(v_KC).argmax(axis=1), (s_K1 * v_KC * sign_K1).argmin(axis=1)
    return np.asarray(np.where(by_size_K, largest_K, least_K))


def max_diff(
    objective: Objective, models: Deletions, x_MP: Array, *, space: str
) -> NDArray[np.intp]:
    """Return the public record (K,) whose prediction changes most, in L2 norm; a baseline.

    Args:
        objective: the objective that both models minimise.
        models: parameters of both models.
        x_MP: public features.
        space: ``probabilities`` (softmax of the outputs if the loss is a softmax, else the
            outputs), or ``logits``.
    """
    bounded = space == "probabilities" and objective.loss == "softmax"
    before_MC = x_MP @ models.theta_PC
    chosen = []
    for delta in batched(models.delta_KPC, x_MP, before_MC):
        after_MKC = outputs(x_MP, models.theta_PC + delta)
        chosen.append(farthest(before_MC[:, None], after_MKC, bounded=bounded))
    return np.concatenate(chosen)
