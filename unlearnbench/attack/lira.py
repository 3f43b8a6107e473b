"""LiRA: do outputs on a record look like those of models trained with it, or without it?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.attack._population import (
    LEAST_VARIANCE,
    MODES,
    Array,
    Indices,
    Mask,
    by_draw,
    confidences,
    enough,
    known,
    left_out,
    log_ratio,
    others,
    outcome,
    references,
    seen,
)
from unlearnbench.core.outputs import FORGOTTEN, UNSEEN, Predictions, Scores


def lira(predictions: Predictions, *, mode: str, variance: str) -> Scores:
    """Likelihood ratio of a model's confidence, from originals trained with and without a record.

        φ = log p_y − log Σ_{c≠y} p_c;   online: Λ = log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²)
        offline, one-sided: Λ = (φ − μ_out) / σ_out, the paper's Φ(Λ) where it does not saturate

    The attack observes one model (original, unlearned or retrained) and infers whether a record was
    among the training rows of its original. It does not model unlearning: μ is the median and σ the
    standard deviation of φ on this record over the reference originals, IN where the record is
    RETAINED or FORGOTTEN, OUT where UNSEEN. The original with the target's training rows is
    excluded, and one of the other side as well (``left_out``). Λ is a mean over queries. Carlini et
    al., Membership Inference Attacks From First Principles (2112.03570).

    Positives are the FORGOTTEN records of audited models, negatives their UNSEEN ones. Originals
    are the ceiling, plain LiRA; retrained models, which saw neither, are the null with AUC ½.

    Args:
        predictions: predictions of shadow models, one audited model for each training set; logits
            (M, Q, N, C).
        mode: ``online`` or ``offline``.
        variance: ``per_record``; ``pooled``: of φ minus the median of its record, over all records;
            ``raw``: of φ over all records, that of IN for both sides (offline: that of OUT).

    A record is scored only with at least three originals on each side that ``mode`` needs, so that
    two remain after any exclusion.

    Raises:
        ValueError: an unknown choice, or confidences are not finite.
        Skip: a regression, no reference original, or no record that can be scored.
    """
    known("mode", mode, MODES)
    known("variance", variance, ("per_record", "pooled", "raw"))
    places_M, places_R, draw_M, draw_R = references("lira", predictions)
    seen_DN, status_MN = seen(predictions), predictions.status_MN[places_M]
    reference_D1 = np.isin(np.arange(len(seen_DN)), draw_R)[:, None]
    in_DN, out_DN = seen_DN & reference_D1, ~seen_DN & reference_D1
    excluded_in_DN, excluded_out_DN = left_out(draw_M, seen_DN, seen_DN)
    forgotten_MN = status_MN == FORGOTTEN
    scored_MN = (forgotten_MN | (status_MN == UNSEEN)) & enough(out_DN)
    if mode == "online":
        scored_MN &= enough(in_DN)
    ratios = []
    places = np.union1d(places_M, places_R)
    for phi in confidences(predictions, places):
        phi_MN, phi_RN = (phi[np.searchsorted(places, some)] for some in (places_M, places_R))
        phi_DN = by_draw(phi_RN, draw_R, len(seen_DN))
        mu_DN, var_DN = _fit(phi_DN, out_DN, excluded_out_DN, variance)
        mu_MN, var_MN = mu_DN[draw_M], var_DN[draw_M]
        if mode == "offline":
            ratios.append((phi_MN - mu_MN) / np.sqrt(var_MN))
            continue
        mu_in_DN, var_in_DN = _fit(phi_DN, in_DN, excluded_in_DN, variance)
        mu_in_MN, var_in_MN = mu_in_DN[draw_M], var_in_DN[draw_M]
        var_MN = var_in_MN if variance == "raw" else var_MN
        ratios.append(log_ratio(phi_MN, mu_in_MN, var_in_MN, mu_MN, var_MN))
    ratio_MN = sum(ratios[1:], ratios[0]) / len(ratios)
    return outcome("lira", predictions, places_M, ratio_MN, forgotten_MN, scored_MN)


def _fit(phi_DN: Array, side_DN: Mask, excluded_DN: Indices, variance: str) -> tuple[Array, Array]:
    """Median (D, N) and variance, (D, N) or (D, 1), of a side without the excluded draws.

    All values follow from column sums: with y = φ − mean and a centre c, Σ(y − c) = Σy − kc and
    Σ(y − c)² = Σy² − 2cΣy + kc².
    """
    shift_N = phi_DN.mean(axis=0, where=side_DN | ~side_DN.any(axis=0))
    y_DN = np.where(side_DN, phi_DN - shift_N, 0.0)
    k_DN, sum_DN, squares_DN = (others(array, excluded_DN) for array in (side_DN, y_DN, y_DN**2))
    median_DN = np.take_along_axis(_median(y_DN, side_DN), excluded_DN, axis=0)
    median_DN = np.where(k_DN > 0, median_DN, 0.0)
    if variance == "per_record":
        k_DN = np.maximum(k_DN, 1)
        var_DN = squares_DN / k_DN - (sum_DN / k_DN) ** 2
        return median_DN + shift_N, np.maximum(var_DN, LEAST_VARIANCE)
    c_DN = median_DN if variance == "pooled" else shift_N.mean() - shift_N
    used_N = enough(side_DN)
    n_D1 = np.maximum(k_DN.sum(axis=1, where=used_N, keepdims=True), 1)
    mean_D1 = (sum_DN - k_DN * c_DN).sum(axis=1, where=used_N, keepdims=True) / n_D1
    each_DN = squares_DN + c_DN * (k_DN * c_DN - 2 * sum_DN)
    var_D1 = each_DN.sum(axis=1, where=used_N, keepdims=True) / n_D1 - mean_D1**2
    return median_DN + shift_N, np.maximum(var_D1, LEAST_VARIANCE)


def _median(y_DN: Array, side_DN: Mask) -> Array:
    """Medians (D, N) of a side without each draw in turn; inf where no draw remains.

    Without its r-th value, entry j of a sorted column is s_j for j < r, else s_{j+1}; r ≤ j exactly
    where the value is ≤ s_j, or where it equals both.
    """
    sorted_ND = np.sort(np.where(side_DN, y_DN, np.inf).T, axis=1)
    k_N, columns_N = side_DN.sum(axis=0), np.arange(len(sorted_ND))
    last = len(side_DN) - 1

    def at(j_N: NDArray[Any]) -> Array:
        values_N: Array = sorted_ND[columns_N, np.clip(j_N, 0, last)]
        return values_N

    complete_N = (at((k_N - 1) // 2) + at(k_N // 2)) / 2
    without_DN = np.zeros_like(y_DN)
    for j_N in ((k_N - 2) // 2, (k_N - 1) // 2):
        here_N, next_N = at(j_N), at(j_N + 1)
        without_DN += np.where(y_DN <= here_N, next_N, here_N) / 2
    return np.where(side_DN, without_DN, complete_N)
