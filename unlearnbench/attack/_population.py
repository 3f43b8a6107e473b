"""Functions shared by the attacks on shadow models.

Axes: M models under attack, R reference models, D draws of training rows, N records, C classes.
The originals of all models of one draw have the same training rows.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import UNSEEN, Predictions, Scores
from unlearnbench.metric import membership

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]

MODES = ("online", "offline")
"""Reference models on both sides of a record, or on the OUT side only."""

LEAST_VARIANCE = 1e-8
"""Lower bound of a variance, so that identical models give finite scores: float32 logits resolve
differences of about 1e-4 in φ."""


def known(keyword: str, word: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless ``word`` is one of the choices."""
    if word not in choices:
        raise ValueError(f"attack.call.{keyword}={word}: must be one of {', '.join(choices)}")


def under_attack(predictions: Predictions) -> NDArray[np.intp]:
    """Return the indices of audited models; raises Skip for a regression or if there is none."""
    if not np.issubdtype(predictions.y_N.dtype, np.integer):
        raise Skip("the attack needs classes; this is a regression")
    if not any(predictions.audited_M):
        raise Skip("there is no model under attack")
    return np.flatnonzero(predictions.audited_M)


def draws(predictions: Predictions) -> NDArray[np.intp]:
    """Return the draw index (M,) of each model: equal where originals have equal training rows."""
    seen = {row.tobytes(): 0 for row in predictions.status_MN != UNSEEN}
    number = {row: i for i, row in enumerate(seen)}
    return np.array([number[row.tobytes()] for row in predictions.status_MN != UNSEEN], np.intp)


def references(
    name: str, predictions: Predictions
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return indices (M,) of the audited models and (R,) of the originals, and the draws of both.

    Only the first of several originals with the same training rows is used: excluding one of them
    would otherwise not exclude its training rows.

    Raises:
        Skip: a regression, no model under attack, or no original.
    """
    places_M, draw = under_attack(predictions), draws(predictions)
    originals = np.flatnonzero([kind == "original" for kind in predictions.kind_M])
    if not len(originals):
        raise Skip(f"{name}: there is no original to compare with")
    places_R = originals[np.sort(np.unique(draw[originals], return_index=True)[1])]
    return places_M, places_R, draw[places_M], draw[places_R]


def seen(predictions: Predictions) -> Mask:
    """Return whether the originals of each draw were trained on each record (D, N)."""
    _, first_D = np.unique(draws(predictions), return_index=True)
    seen_DN: Mask = predictions.status_MN[first_D] != UNSEEN
    return seen_DN


def left_out(draw_M: Indices, seen_DN: Mask, in_DN: Mask) -> tuple[Indices, Indices]:
    """Return the draws that each target excludes from the IN and the OUT reference models.

    A target excludes its own draw, and one draw of a target on the other side of the record: the
    i-th target of one side excludes the i-th of the other side, modulo their number. Otherwise the
    fit of the target's own side uses one draw less than the fit of the other side, the score
    depends on the side of the record, and the AUC of the null is below ½.

    Args:
        draw_M: draws of the targets.
        seen_DN: the result of ``seen``.
        in_DN: the draws that a target on the OUT side may exclude; all have seen the record.

    Returns:
        For each draw and record (D, N), the draw excluded from the models that have seen the
        record, and the draw excluded from those that have not, with or without reference models.
    """
    places_D1 = np.arange(len(seen_DN))[:, None]
    target_D1 = np.isin(places_D1, draw_M)
    rank_DN = np.where(
        seen_DN, (seen_DN & target_D1).cumsum(axis=0), (~seen_DN & target_D1).cumsum(axis=0)
    )
    excluded = []
    for own_DN, side_DN in ((seen_DN, in_DN & target_D1), (~seen_DN, ~seen_DN & target_D1)):
        order_DN = np.argsort(~side_DN, axis=0, kind="stable")  # the draws of this side come first
        place_DN = (rank_DN - 1) % np.maximum(side_DN.sum(axis=0), 1)
        paired_DN = np.take_along_axis(order_DN, place_DN, axis=0)
        excluded.append(np.where(own_DN, places_D1, paired_DN))
    return excluded[0], excluded[1]


def by_draw(values_RN: NDArray[Any], draw_R: NDArray[np.intp], draws: int) -> NDArray[Any]:
    """Sums (D, N) over the models of each draw; 0 for a draw without models."""
    sums_DN = np.zeros((draws, values_RN.shape[1]), np.result_type(values_RN, 1))
    for draw, values_N in zip(draw_R, values_RN, strict=True):
        sums_DN[draw] += values_N
    return sums_DN


def confidences(predictions: Predictions, places_M: NDArray[np.intp]) -> Iterator[Array]:
    """Yield φ (M, N) of the models for each query; raises ValueError if it is not finite."""
    for q in range(predictions.logits_MQNC.shape[1]):
        logits = (predictions.logits_MQNC[m, q] for m in places_M)
        phi_MN = np.stack(
            [membership.logit_confidence(logits_NC, predictions.y_N) for logits_NC in logits]
        )
        if not np.isfinite(phi_MN).all():
            raise ValueError("the attack needs finite confidences")
        yield phi_MN


def others(values_DN: NDArray[Any], excluded_DN: Indices) -> NDArray[Any]:
    """Sum (D, N) over all draws except the excluded one of each draw and record.

    The sum adds prefix and suffix sums: subtracting one value from a column sum would lose the
    digits of much smaller values.
    """
    total = np.zeros(values_DN.shape, np.result_type(values_DN, 1))
    np.cumsum(values_DN[:-1], axis=0, out=total[1:])
    after_DN = np.zeros_like(total)
    np.cumsum(values_DN[:0:-1], axis=0, out=after_DN[-2::-1])
    total += after_DN
    sum_DN: NDArray[Any] = np.take_along_axis(total, excluded_DN, axis=0)
    return sum_DN


def enough(side_DN: Mask) -> Mask:
    """Return the records (N,) with at least two originals on a side after any exclusion.

    The rule is the same for all targets of a record: a rule that depends on the side of the target
    would leak that side.
    """
    enough_N: Mask = side_DN.sum(axis=0) >= 3
    return enough_N


def log_ratio(phi: Array, mu_1: Array, var_1: Array, mu_0: Array, var_0: Array) -> Array:
    """Log-likelihood ratio log N(φ; μ₁, σ₁²) − log N(φ; μ₀, σ₀²) of two Gaussians."""
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
    """Return the metrics of all scored (model, record) pairs as one pool, and the pairs.

    Raises:
        Skip: no member or no non-member is scored.
    """
    # Sorting makes the later lookup of millions of scores several times faster.
    inside = np.sort(score_MN[scored_MN & member_MN])
    outside = np.sort(score_MN[scored_MN & ~member_MN])
    if not len(inside) or not len(outside):
        raise Skip(f"{name}: no record has two other models on each side, and both to score")
    figures = membership.threshold_figures(inside, outside)
    model_n, record_n = np.nonzero(scored_MN)
    # Confidence intervals treat the models of one original as one target, named by the first.
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
