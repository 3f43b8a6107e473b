"""Metrics and scores of reconstructed records, for linear models and for other nets.

Axes: K deletions, M public records, F inputs, C outputs.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from unlearnbench.convex.objective import Array
from unlearnbench.core import picture
from unlearnbench.core.outputs import Scores
from unlearnbench.protocol._audit import Audit, NetAudit

SHOWN = 10


@dataclass(frozen=True)
class Guess:
    """Reconstruction of each deleted record by an attacker with access to both models.

    Attributes:
        x_KF: reconstructed records.
        y_K: their classes, or targets.
        quality_K: s₂/s₁ of the gradient that the label is read from, in [0, 1]; 0 for a gradient
            of rank one.
        nearest_K: index of the public record whose prediction changes most.
        change_KF: records reconstructed from the change of the parameters in place of the
            gradient; None if not computed.
        moved_K: whether the deletion changes any parameter.
        residual: largest entry of ∇J of any model.
        told: additional metrics of the attack.
    """

    x_KF: Array
    y_K: NDArray[np.generic]
    quality_K: Array
    nearest_K: NDArray[np.intp]
    change_KF: Array | None
    moved_K: NDArray[np.bool_]
    residual: float
    told: dict[str, float] = field(default_factory=dict)


def judged(deletions: Audit | NetAudit, guess: Guess) -> Scores:
    """Return the metrics and scores of ``hrec``."""
    x_KF, metrics = guess.x_KF, dict(guess.told)
    mean_F = deletions.public_MF.mean(axis=0)
    nearest_K = guess.nearest_K
    guesses = {
        "hrec": (x_KF, guess.y_K),
        "avg": (np.broadcast_to(mean_F, x_KF.shape), _usual(deletions, len(x_KF))),
        "max_diff": (deletions.public_MF[nearest_K], deletions.public_y_M[nearest_K]),
    }
    cosines = {}
    for guess_name, (inputs_KF, y_K) in guesses.items():
        own = figures(inputs_KF, deletions.x_KF, deletions.public_MF)
        cosines[guess_name] = own["cos"]
        metrics |= {f"{guess_name}_{name}": value for name, value in _summary(own).items()}
        metrics |= _labels(guess_name, y_K, deletions)
    if guess.change_KF is not None:
        metrics["change_cos"] = float(cosine(guess.change_KF, deletions.x_KF).mean())
    metrics["deletion_trace"] = float(guess.moved_K.mean())
    metrics["hrec_quality"] = float(np.median(guess.quality_K))
    metrics["hrec_null_cos"] = float("nan")
    if len(x_KF) > 1:
        metrics["hrec_null_cos"] = float(cosine(x_KF, np.roll(deletions.x_KF, 1, axis=0)).mean())
    metrics["deletion_residual"] = guess.residual
    return Scores(
        metrics={name: (value, len(x_KF)) for name, value in metrics.items()},
        pool=[guess_name for guess_name in cosines for _ in x_KF],
        row=np.tile(deletions.row_K, len(cosines)),
        member=np.ones(len(cosines) * len(x_KF), bool),
        score=np.concatenate(list(cosines.values())),
        picture=_shown(deletions, [inputs for inputs, _ in guesses.values()]),
    )


def _usual(deletions: Audit | NetAudit, count: int) -> NDArray[np.generic]:
    """Repeat the most frequent label of the public records, or their mean target."""
    y_M = deletions.public_y_M
    label = np.bincount(y_M).argmax() if deletions.n_classes else y_M.mean()
    return np.full(count, label)


def _summary(own: dict[str, Array]) -> dict[str, float]:
    spread = {"cos_median": 0.5, "cos_p10": 0.1}
    return {
        "cos": float(own["cos"].mean()),
        **{name: float(np.quantile(own["cos"], level)) for name, level in spread.items()},
        "cos_centered": float(own["cos_centered"].mean()),
        "scale": float(np.median(own["scale"])),
        "rank": float(np.median(own["rank"])),
    }


def _labels(
    guess_name: str, y_K: NDArray[np.generic], deletions: Audit | NetAudit
) -> dict[str, float]:
    if deletions.n_classes:
        return {f"{guess_name}_label_acc": float((y_K == deletions.y_K).mean())}
    return {f"{guess_name}_target_error": float(np.median(np.abs(y_K - deletions.y_K)))}


def _shown(deletions: Audit | NetAudit, guesses: list[Array]) -> picture.Picture | None:
    """Picture of the first deleted record of each class and its reconstructions; images only."""
    if len(deletions.shape) != 3:
        return None
    places = np.arange(min(SHOWN, len(deletions.y_K)))
    if deletions.n_classes:
        places = np.unique(deletions.y_K, return_index=True)[1][:SHOWN]
    images = np.stack([inputs_KF[places] for inputs_KF in (deletions.x_KF, *guesses)], axis=1)
    bright = (images - deletions.low_F) / (deletions.high_F - deletions.low_F)
    titles = ("truth", "HRec", "Avg", "MaxDiff")
    return picture.grid(bright.reshape(*images.shape[:2], *deletions.shape), titles)


def figures(guess_KF: Array, x_KF: Array, public_MF: Array) -> dict[str, Array]:
    """Compare reconstructions with the deleted records, one number (K,) per deletion.

    ``cos``: cosine similarity; ``cos_centered``: cosine after subtracting the public mean from both
    (the plain cosine of non-negative images is always high); ``scale``: norm of the reconstruction
    over that of the record; ``rank``: rank of the record, 1 is best, among the public records by
    cosine with the reconstruction, ties counting half.
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


def farthest(before_MKC: Array, after_MKC: Array, *, bounded: bool) -> NDArray[np.intp]:
    """Return the public record (K,) whose prediction changes most, in L2 norm.

    Args:
        before_MKC: outputs before, or (M, 1, C).
        after_MKC: outputs after each deletion.
        bounded: whether to compare the softmax of the outputs.
    """
    if bounded:
        before_MKC, after_MKC = (softmax(f, axis=-1) for f in (before_MKC, after_MKC))
    chosen: NDArray[np.intp] = ((after_MKC - before_MKC) ** 2).sum(axis=2).argmax(axis=0)
    return chosen


def cosine(a_KF: Array, b_KF: Array) -> Array:
    """Cosine similarity (K,) of paired rows; 0 where a row is 0."""
    together: Array = (unit(a_KF) * unit(b_KF)).sum(axis=1)
    return together


def unit(x_KF: Array) -> Array:
    """Scale rows to unit norm; rows of zeros stay unchanged."""
    length_K1 = np.linalg.norm(x_KF, axis=1, keepdims=True)
    rows: Array = x_KF / np.where(length_K1 > 0, length_K1, 1)
    return rows
