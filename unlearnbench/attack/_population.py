"""What the attacks on a shadow population share.

Axes: M models under attack, R models to compare with, N records, C classes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench import metric
from unlearnbench.values import UNSEEN, Predictions, Scores, Skip

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MODES = ("online", "offline")
"""With reference models on both sides of a record, or on the OUT side only."""

LEAST_VARIANCE = 1e-8
"""Keeps models that all agree finite: float32 logits tell no smaller differences apart than 1e-4
in this statistic."""


def known(keyword: str, word: str, words: tuple[str, ...]) -> None:
    """Raise ValueError unless it is one of the words."""
    if word not in words:
        raise ValueError(f"attack.call.{keyword}={word}: must be one of {', '.join(words)}")


def under_attack(predictions: Predictions) -> NDArray[np.intp]:
    """Places of the audited models; raises Skip for a regression or where there is none."""
    if not np.issubdtype(predictions.y_N.dtype, np.integer):
        raise Skip("the attack needs classes; this is a regression")
    if not any(predictions.audited_M):
        raise Skip("there is no model under attack")
    return np.flatnonzero(predictions.audited_M)


def draws(predictions: Predictions) -> NDArray[np.intp]:
    """A number (M,) for the training rows of each model's original, the same for the same rows."""
    seen = {row.tobytes(): 0 for row in predictions.status_MN != UNSEEN}
    number = {row: i for i, row in enumerate(seen)}
    return np.array([number[row.tobytes()] for row in predictions.status_MN != UNSEEN], np.intp)


def references(
    name: str, predictions: Predictions
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Places (M,) of the audited models and (R,) of the originals, and each target's own (M,).

    Its own is the original with the target's training rows, as a number below R; R if there is
    none. Of originals with the same training rows the first is taken: leaving one out would leave
    the other in.

    Raises:
        Skip: a regression, no model under attack, or no original.
    """
    places_M, draw = under_attack(predictions), draws(predictions)
    originals = np.flatnonzero([kind == "original" for kind in predictions.kind_M])
    if not len(originals):
        raise Skip(f"{name}: there is no original to compare with")
    places_R = originals[np.sort(np.unique(draw[originals], return_index=True)[1])]
    own_MR = draw[places_M][:, None] == draw[places_R]
    own_M = np.where(own_MR.any(axis=1), own_MR.argmax(axis=1), len(places_R))
    return places_M, places_R, own_M


def confidences(predictions: Predictions, places_M: NDArray[np.intp]) -> Iterator[Array]:
    """φ (M, N) of some models, query by query; raises ValueError where it is not finite."""
    for q in range(predictions.logits_MQNC.shape[1]):
        logits = (predictions.logits_MQNC[m, q] for m in places_M)
        phi_MN = np.stack([metric.logit_confidence(one, predictions.y_N) for one in logits])
        if not np.isfinite(phi_MN).all():
            raise ValueError("the attack needs finite confidences")
        yield phi_MN


def others(values_RN: NDArray[Any], own_M: NDArray[np.intp]) -> NDArray[Any]:
    """Sum (M, N) over the originals but the target's own.

    Summed from both ends: a column sum less one value would lose others that are much smaller.
    """
    models, n = values_RN.shape
    total = np.zeros((models + 1, n), np.result_type(values_RN, 1))
    after_N = np.zeros_like(total[0])
    for r in range(models):
        total[r + 1] = total[r] + values_RN[r]
    for r in reversed(range(models)):
        total[r] += after_N
        after_N += values_RN[r]
    left_out: NDArray[Any] = total[own_M]
    return left_out


def enough(side_RN: Mask) -> Mask:
    """Records (N,) with two originals or more on a side, whichever is left out.

    One rule for all targets of a record: one that depends on the target's own side would tell it.
    """
    kept_N: Mask = side_RN.sum(axis=0) >= 3
    return kept_N


def log_ratio(phi: Array, mu_1: Array, var_1: Array, mu_0: Array, var_0: Array) -> Array:
    """Of two Gaussians: log N(φ; μ₁, σ₁²) − log N(φ; μ₀, σ₀²)."""
    return (
        (phi - mu_0) ** 2 / var_0 - (phi - mu_1) ** 2 / var_1 + np.log(var_0) - np.log(var_1)
    ) / 2


def outcome(
    name: str,
    predictions: Predictions,
    places_M: NDArray[np.intp],
    score_MN: Array,
    member_MN: Mask,
    scored_MN: Mask,
) -> Scores:
    """The figures of all scored (model, record) pairs as one pool, and the pairs.

    Raises:
        Skip: there is no member or no non-member that was scored.
    """
    # Sorted, for looking up millions of scores in order is several times faster.
    inside = np.sort(score_MN[scored_MN & member_MN])
    outside = np.sort(score_MN[scored_MN & ~member_MN])
    if not len(inside) or not len(outside):
        raise Skip(f"{name}: no record has two other models on each side, and both to score")
    figures = metric.threshold_figures(inside, outside)
    model_n, record_n = np.nonzero(scored_MN)
    # Models of one original are one target when intervals are drawn: its first one names them.
    _, first, draw_M = np.unique(
        draws(predictions)[places_M], return_index=True, return_inverse=True
    )
    titles = np.array([f"model {m:02d}" for m in places_M[first][draw_M]], dtype=object)
    return Scores(
        metrics={f"{name}_{key}": (value, len(model_n)) for key, value in figures.items()},
        pool=titles[model_n].tolist(),
        row=predictions.rows_N[record_n],
        member=member_MN[scored_MN],
        score=score_MN[scored_MN],
    )
