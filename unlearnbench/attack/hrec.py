"""HRec: the one deleted record, from the parameters before and after, with public data only.

Axes: K deletions, M public records, P features with the constant last, F without it, C outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from unlearnbench import picture
from unlearnbench.attack import _inversion
from unlearnbench.convex import Audit, Deletions
from unlearnbench.objective import Array, Objective, batched, outputs
from unlearnbench.values import Scores

LABELS = ("auto", "largest", "least", "intercept")
SHOWN = 10
SURE = 0.15
"""s₂/s₁ below which the largest entry of a softmax's residual is taken for the label."""


def hrec(deletions: Audit, *, label: str, space: str, restarts: int, steps: int) -> Scores:
    """Every deleted record of an audit, reconstructed; beside it what public records alone say.

        x̂ by ``reconstruct``, from φ̂ by inversion where there is an embedding
        Avg: the mean of the public records;   MaxDiff: by ``max_diff``

    Figures are means over deletions of the cosine with the truth, plain and after the public mean
    is taken off both, with medians, and the share of right labels (of a regression the median
    error of the target, without its sign); medians of the length of x̂ over that of the truth, of
    s₂/s₁, and of the truth's rank among public records. ``change_cos`` reads the change of the
    parameters as if it were the gradient; ``deletion_trace`` is the share of deletions that changed
    any. Null: the truths exchanged among deletions. A score is the cosine of one deletion, its pool
    who made the guess.

    Args:
        deletions: what the attacker sees, and the truth.
        label: as for ``reconstruct``.
        space: as for ``max_diff``.
        restarts: descents of an inversion from the nearest public records, beside that from the
            public mean.
        steps: of each descent, at most.

    Raises:
        ValueError: an unknown word, a negative number, or parameters that are not finite.
    """
    for name, value in (("restarts", restarts), ("steps", steps)):
        if value < 0:
            raise ValueError(f"attack.call.{name}={value}: must not be negative")
    goal, found = deletions.objective, deletions.found
    public_MD = _embedded(deletions, deletions.public_MF)
    x_MP, t_MC = goal.features(public_MD), goal.targets(deletions.public_y_M, deletions.n_classes)
    guess = reconstruct(goal, found, x_MP, t_MC, label=label)
    nearest_K = max_diff(goal, found, x_MP, space=space)
    mean_F, told = deletions.public_MF.mean(axis=0), {}
    x_KF = guess.x_KF
    if deletions.embedding is not None:
        truth_KD = _embedded(deletions, deletions.x_KF)
        told["hrec_embedding_cos"] = float(cosine(x_KF, truth_KD).mean())
        x_KF = _inverted(deletions, x_KF, public_MD, restarts, steps)
    guesses = {
        "hrec": (x_KF, guess.y_K),
        "avg": (np.broadcast_to(mean_F, x_KF.shape), _usual(deletions, len(x_KF))),
        "max_diff": (deletions.public_MF[nearest_K], deletions.public_y_M[nearest_K]),
    }
    cosines = {}
    for who, (inputs_KF, y_K) in guesses.items():
        own = figures(inputs_KF, deletions.x_KF, deletions.public_MF)
        cosines[who] = own["cos"]
        told |= {f"{who}_{name}": value for name, value in _summary(own).items()}
        told |= _labels(who, y_K, deletions)
    if deletions.embedding is None:  # who multiplies by no Hessian: of a step down a gradient
        plain = read(goal, found, x_MP, found.delta_KPC, label=label)
        told["change_cos"] = float(cosine(plain.x_KF, deletions.x_KF).mean())
    moved_K = np.abs(found.delta_KPC).max(axis=(1, 2)) > 0
    told["deletion_trace"] = float(moved_K.mean())
    told["hrec_quality"] = float(np.median(guess.quality_K))
    told["hrec_null_cos"] = float("nan")
    if len(x_KF) > 1:
        told["hrec_null_cos"] = float(cosine(x_KF, np.roll(deletions.x_KF, 1, axis=0)).mean())
    told["deletion_residual"] = max(found.residual, float(found.residual_K.max()))
    return Scores(
        metrics={name: (value, len(x_KF)) for name, value in told.items()},
        pool=[who for who in cosines for _ in x_KF],
        row=np.tile(deletions.row_K, len(cosines)),
        member=np.ones(len(cosines) * len(x_KF), bool),
        score=np.concatenate(list(cosines.values())),
        picture=_shown(deletions, [inputs for inputs, _ in guesses.values()]),
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


def _usual(deletions: Audit, count: int) -> NDArray[np.generic]:
    """The label most public records have, or their mean target."""
    y_M = deletions.public_y_M
    one = np.bincount(y_M).argmax() if deletions.n_classes else y_M.mean()
    return np.full(count, one)


def _summary(own: dict[str, Array]) -> dict[str, float]:
    spread = {"cos_median": 0.5, "cos_p10": 0.1}
    return {
        "cos": float(own["cos"].mean()),
        **{name: float(np.quantile(own["cos"], part)) for name, part in spread.items()},
        "cos_centered": float(own["cos_centered"].mean()),
        "scale": float(np.median(own["scale"])),
        "rank": float(np.median(own["rank"])),
    }


def _labels(who: str, y_K: NDArray[np.generic], deletions: Audit) -> dict[str, float]:
    if deletions.n_classes:
        return {f"{who}_label_acc": float((y_K == deletions.y_K).mean())}
    return {f"{who}_target_error": float(np.median(np.abs(y_K - deletions.y_K)))}


def _shown(deletions: Audit, guesses: list[Array]) -> picture.Picture | None:
    """The first deleted record of each class, and what each guess makes of it; of images only."""
    if len(deletions.shape) != 3:
        return None
    places = np.arange(min(SHOWN, len(deletions.y_K)))
    if deletions.n_classes:
        places = np.unique(deletions.y_K, return_index=True)[1][:SHOWN]
    images = np.stack([one[places] for one in (deletions.x_KF, *guesses)], axis=1)
    bright = (images - deletions.low_F) / (deletions.high_F - deletions.low_F)
    titles = ("truth", "HRec", "Avg", "MaxDiff")
    return picture.grid(bright.reshape(*images.shape[:2], *deletions.shape), titles)


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
        ValueError: an unknown word, parameters that are not finite, or no public record.
    """
    if label not in LABELS:
        raise ValueError(f"attack.call.label={label}: must be one of {', '.join(LABELS)}")
    if label == "intercept" and objective.intercept == "none":
        raise ValueError("attack.call.label=intercept: the model has none")
    return read(objective, found, x_MP, gradient(objective, found, x_MP, t_MC), label=label)


def read(
    objective: Objective, found: Deletions, x_MP: Array, g_KPC: Array, *, label: str
) -> Reconstruction:
    """Record and label off estimated gradients; arguments as for ``reconstruct``."""
    u, s, v = np.linalg.svd(g_KPC, full_matrices=False)
    u_KP, v_KC, trace_K = u[:, :, 0], v[:, 0], s[:, 0] > 0
    second_K = s[:, 1] if s.shape[1] > 1 else np.zeros(len(s))
    quality_K = np.where(trace_K, second_K / np.where(trace_K, s[:, 0], 1), 1.0)
    if objective.intercept == "none":
        scale_K1 = (u_KP @ x_MP.mean(axis=0))[:, None]
        x_KF = u_KP * scale_K1 * trace_K[:, None]
    else:
        last_K1 = u_KP[:, -1:]
        scale_K1 = 1 / np.where(np.abs(last_K1) < 1e-150, 1e-150, last_K1)
        x_KF = u_KP[:, :-1] * scale_K1 * trace_K[:, None]
    residual_KC = s[:, :1] * v_KC * np.sign(scale_K1)
    if residual_KC.shape[1] == 1:
        y_K: NDArray[np.generic] = np.full(len(x_KF), np.nan)
        if objective.intercept != "none":
            y_K = (objective.features(x_KF) @ found.theta_PC)[:, 0] - g_KPC[:, -1, 0]
        return Reconstruction(x_KF, y_K, quality_K)
    if label == "intercept":
        return Reconstruction(x_KF, g_KPC[:, -1].argmin(axis=1), quality_K)
    # Of two classes the residuals are as large as each other.
    auto_K = (quality_K < SURE) & (objective.loss == "softmax" and v_KC.shape[1] > 2)
    by_size_K = auto_K if label == "auto" else np.full(len(x_KF), label == "largest")
    largest_K, least_K = np.abs(v_KC).argmax(axis=1), residual_KC.argmin(axis=1)
    return Reconstruction(x_KF, np.where(by_size_K, largest_K, least_K), quality_K)


def max_diff(
    objective: Objective, found: Deletions, x_MP: Array, *, space: str
) -> NDArray[np.intp]:
    """Baseline: the public record (K,) whose prediction the deletion changes most, in L2 norm.

    Args:
        objective: what both models minimise.
        found: both models.
        x_MP: public features.
        space: ``probabilities``, for a softmax, else the outputs themselves; or ``logits``.

    Raises:
        ValueError: an unknown word.
    """
    if space not in ("probabilities", "logits"):
        raise ValueError(f"attack.call.space={space}: must be one of probabilities, logits")

    def predicted(f: Array) -> Array:
        bounded = space == "probabilities" and objective.loss == "softmax"
        return np.asarray(softmax(f, axis=-1)) if bounded else f

    before_M1C = predicted(x_MP @ found.theta_PC)[:, None]
    chosen = []
    for delta in batched(found.delta_KPC, x_MP, before_M1C):
        after_MKC = predicted(outputs(x_MP, found.theta_PC + delta))
        chosen.append(((after_MKC - before_M1C) ** 2).sum(axis=2).argmax(axis=0))
    return np.concatenate(chosen)


def figures(guess_KF: Array, x_KF: Array, public_MF: Array) -> dict[str, Array]:
    """How close guesses are to the truth, one number a deletion.

    ``cos``: cosine similarity; ``cos_centered``: of both less the public mean, which a cosine of
    non-negative images is high without; ``scale``: length of the guess over that of the truth;
    ``rank``: place of the truth, 1 the best, among the public records by cosine with the guess,
    ties counting half.
    """
    mean_F = public_MF.mean(axis=0)
    cos_K = cosine(guess_KF, x_KF)
    near_MK = unit(public_MF) @ unit(guess_KF).T
    return {
        "cos": cos_K,
        "cos_centered": cosine(guess_KF - mean_F, x_KF - mean_F),
        "scale": np.linalg.norm(guess_KF, axis=1) / np.linalg.norm(x_KF, axis=1),
        "rank": 1.0 + (near_MK > cos_K).sum(axis=0) + (near_MK == cos_K).sum(axis=0) / 2,
    }


def cosine(a_KF: Array, b_KF: Array) -> Array:
    """Cosine similarity (K,) row by row; 0 where a row is 0."""
    together: Array = (unit(a_KF) * unit(b_KF)).sum(axis=1)
    return together


def unit(x_KF: Array) -> Array:
    """Rows of length 1, and rows of zeros as they are."""
    length_K1 = np.linalg.norm(x_KF, axis=1, keepdims=True)
    rows: Array = x_KF / np.where(length_K1 > 0, length_K1, 1)
    return rows
