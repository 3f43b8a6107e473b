"""What the attacks on a shadow population share.

Axes: M models under attack, R models to compare with, D draws of training rows, N records, C
classes. Models of one draw have originals with the same training rows.
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
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Places (M,) of the audited models and (R,) of the originals, and the draws of either.

    Of originals with the same training rows the first is taken: leaving one out would leave the
    other in.

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
    """Whether the originals of each draw (D, N) were trained on a record."""
    _, first_D = np.unique(draws(predictions), return_index=True)
    seen_DN: Mask = predictions.status_MN[first_D] != UNSEEN
    return seen_DN


def left_out(draw_M: Indices, seen_DN: Mask, in_DN: Mask) -> tuple[Indices, Indices]:
    """Which draw a target of each draw leaves out of what its record is compared with: IN, OUT.

    A target leaves out its own draw, and one draw of a target on the other side of the record. It
    is the i-th target on its side, and leaves out the i-th on the other, counted round. Without
    that the fit of the target's own side would rest on one draw less than that of the other side,
    the score would show on which side the record was, and the null would lie below ½.

    Args:
        draw_M: of the targets.
        seen_DN: as ``seen``.
        in_DN: the draws that a target on the OUT side may leave out; all have seen the record.

    Returns:
        For each draw (D, N) the draw that is left out of models that have seen the record, and the
        one left out of models that have not. It is there whether or not it has models to compare
        with.
    """
    places_D1 = np.arange(len(seen_DN))[:, None]
    target_D1 = np.isin(places_D1, draw_M)
    rank_DN = np.where(
        seen_DN, (seen_DN & target_D1).cumsum(axis=0), (~seen_DN & target_D1).cumsum(axis=0)
    )
    left = []
    for own_DN, side_DN in ((seen_DN, in_DN & target_D1), (~seen_DN, ~seen_DN & target_D1)):
        order_DN = np.argsort(~side_DN, axis=0, kind="stable")  # the side's draws come first
        place_DN = (rank_DN - 1) % np.maximum(side_DN.sum(axis=0), 1)
        paired_DN = np.take_along_axis(order_DN, place_DN, axis=0)
        left.append(np.where(own_DN, places_D1, paired_DN))
    return left[0], left[1]


def by_draw(values_RN: NDArray[Any], draw_R: NDArray[np.intp], draws: int) -> NDArray[Any]:
    """Sums (D, N) over the models of each draw; 0 where there is none."""
    sums_DN = np.zeros((draws, values_RN.shape[1]), np.result_type(values_RN, 1))
    for draw, values_N in zip(draw_R, values_RN, strict=True):
        sums_DN[draw] += values_N
    return sums_DN


def confidences(predictions: Predictions, places_M: NDArray[np.intp]) -> Iterator[Array]:
    """φ (M, N) of some models, query by query; raises ValueError where it is not finite."""
    for q in range(predictions.logits_MQNC.shape[1]):
        logits = (predictions.logits_MQNC[m, q] for m in places_M)
        phi_MN = np.stack([membership.logit_confidence(one, predictions.y_N) for one in logits])
        if not np.isfinite(phi_MN).all():
            raise ValueError("the attack needs finite confidences")
        yield phi_MN


def others(values_DN: NDArray[Any], left_DN: Indices) -> NDArray[Any]:
    """Sum (D, N) over all draws but the one that each leaves out of a record's.

    Summed from both ends: a column sum less one value would lose others that are much smaller.
    """
    total = np.zeros(values_DN.shape, np.result_type(values_DN, 1))
    np.cumsum(values_DN[:-1], axis=0, out=total[1:])
    after_DN = np.zeros_like(total)
    np.cumsum(values_DN[:0:-1], axis=0, out=after_DN[-2::-1])
    total += after_DN
    kept_DN: NDArray[Any] = np.take_along_axis(total, left_DN, axis=0)
    return kept_DN


def enough(side_DN: Mask) -> Mask:
    """Records (N,) with two originals or more on a side, whichever is left out.

    One rule for all targets of a record: one that depends on the target's own side would tell it.
    """
    kept_N: Mask = side_DN.sum(axis=0) >= 3
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
    figures = membership.threshold_figures(inside, outside)
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
