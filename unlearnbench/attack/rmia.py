"""RMIA: is a record more likely under the model than other records are, each against its norm?"""

import numpy as np

from unlearnbench.attack._population import (
    MODES,
    Array,
    Indices,
    Mask,
    by_draw,
    enough,
    known,
    left_out,
    others,
    outcome,
    references,
    seen,
)
from unlearnbench.core.outputs import FORGOTTEN, UNSEEN, Predictions, Scores
from unlearnbench.metric.utility import cross_entropy

LEAST_PROBABILITY = 1e-250
"""Lower bound that keeps ratios of probabilities within the range of float64."""


def rmia(predictions: Predictions, *, mode: str, a: float, gamma: float) -> Scores:
    """Share of the other records whose likelihood ratio a record exceeds, for each model.

        score(x) = Pr_{z≠x} [r(x) ≥ γ r(z)],   r(x) = p(x|θ) / p(x),   p(x|θ) = softmax(f(x))_y
        online: p(x) = ½ (p̄_in + p̄_out);   offline: p(x) = ½ ((1 + a) p̄_out + (1 − a))

    The attack observes one model θ (original, unlearned or retrained) and infers whether a record
    was among the training rows of its original. It does not model unlearning: p̄ are means over the
    reference originals, IN where the record is RETAINED or FORGOTTEN, OUT where UNSEEN. The
    original with the target's training rows is excluded, and one of the other side as well
    (``left_out``). z runs over all records scored on the same model, positive or not, except x. The
    score is a mean over queries; the paper takes a vote for each z. Zarifzadeh et al., Low-Cost
    High-Power Membership Inference Attacks (2312.03262), with the plain softmax at temperature 1.

    Positives are the FORGOTTEN records of audited models, negatives their UNSEEN ones. Originals
    are the ceiling, plain RMIA; retrained models, which saw neither, are the null with AUC ½.

    Args:
        predictions: predictions of shadow models, one audited model for each training set; logits
            (M, Q, N, C).
        mode: ``online`` or ``offline``.
        a: slope of the offline estimate of p̄_in from p̄_out, in [0, 1]; 1 means p̄_in = p̄_out.
        gamma: γ, above 0.

    A record is scored only with at least three originals on each side that ``mode`` needs, so that
    two remain after any exclusion.

    Raises:
        ValueError: an unknown choice, a setting out of range, or logits are not finite.
        Skip: a regression, no reference original, or no record that can be scored.
    """
    known("mode", mode, MODES)
    if not 0 <= a <= 1:
        raise ValueError(f"attack.call.a={a}: must lie in [0, 1]")
    if not gamma > 0:
        raise ValueError(f"attack.call.gamma={gamma}: must be above 0")
    places_M, places_R, draw_M, draw_R = references("rmia", predictions)
    seen_DN, status_MN = seen(predictions), predictions.status_MN[places_M]
    reference_D1 = np.isin(np.arange(len(seen_DN)), draw_R)[:, None]
    in_DN, out_DN = seen_DN & reference_D1, ~seen_DN & reference_D1
    excluded_in_DN, excluded_out_DN = left_out(draw_M, seen_DN, seen_DN)
    forgotten_MN = status_MN == FORGOTTEN
    scored_MN = (forgotten_MN | (status_MN == UNSEEN)) & enough(out_DN)
    if mode == "online":
        scored_MN &= enough(in_DN)
    score_MN = np.zeros(scored_MN.shape)
    places = np.union1d(places_M, places_R)
    queries = predictions.logits_MQNC.shape[1]
    for q in range(queries):
        logits = (predictions.logits_MQNC[m, q] for m in places)
        p = np.stack([np.exp(-cross_entropy(logits_NC, predictions.y_N)) for logits_NC in logits])
        if not np.isfinite(p).all():
            raise ValueError("rmia: logits are not finite")
        p = np.maximum(p, LEAST_PROBABILITY)
        p_MN, p_RN = (p[np.searchsorted(places, some)] for some in (places_M, places_R))
        p_DN = by_draw(p_RN, draw_R, len(seen_DN))
        out_mean_MN = _mean(p_DN, out_DN, excluded_out_DN)[draw_M]
        if mode == "online":
            norm_MN = (_mean(p_DN, in_DN, excluded_in_DN)[draw_M] + out_mean_MN) / 2
        else:
            norm_MN = ((1 + a) * out_mean_MN + (1 - a)) / 2
        score_MN += _beaten(p_MN / norm_MN, scored_MN, gamma) / queries
    return outcome("rmia", predictions, places_M, score_MN, forgotten_MN, scored_MN)


def _mean(p_DN: Array, side_DN: Mask, excluded_DN: Indices) -> Array:
    """Mean (D, N) of a side without the excluded draws; at least ``LEAST_PROBABILITY``."""
    total_DN = others(np.where(side_DN, p_DN, 0.0), excluded_DN)
    mean_DN: Array = total_DN / np.maximum(others(side_DN, excluded_DN), 1)
    return np.maximum(mean_DN, LEAST_PROBABILITY)


def _beaten(ratio_MN: Array, scored_MN: Mask, gamma: float) -> Array:
    """Share (M, N) of the other scored records z of the model with r ≥ γ r_z.

    Computed by rank in the sorted γ r_z: N log N time and N memory for each model.
    """
    share_MN = np.zeros_like(ratio_MN)
    for share_N, ratio_N, scored_N in zip(share_MN, ratio_MN, scored_MN, strict=True):
        ratios = ratio_N[scored_N]
        least = gamma * ratios
        beaten = np.searchsorted(np.sort(least), ratios, side="right")
        share_N[scored_N] = (beaten - (least <= ratios)) / max(len(ratios) - 1, 1)
    return share_MN
