"""LiRA: do outputs on a record look like those of models trained with it, or without it?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.attack._population import (
    LEAST_VARIANCE,
    MODES,
    Array,
    Mask,
    confidences,
    enough,
    known,
    log_ratio,
    others,
    outcome,
    references,
)
from unlearnbench.values import FORGOTTEN, UNSEEN, Predictions, Scores


def lira(predictions: Predictions, *, mode: str, variance: str) -> Scores:
    """Likelihood ratio of a model's confidence, by originals with a record and without it.

        φ = log p_y − log Σ_{c≠y} p_c;   online: Λ = log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²)
        offline, one-sided: Λ = (φ − μ_out) / σ_out, the paper's Φ(Λ) where it does not saturate

    The attacker sees one model, original, unlearned or retrained, and asks if a record was among
    the training rows of its original. He knows nothing of unlearning: he has originals of his own,
    and μ is the median, σ the deviation, of *their* φ on this record, IN where it is RETAINED or
    FORGOTTEN, OUT where UNSEEN. The original with the target's training rows is left out. Λ is a
    mean over queries. Carlini et al., Membership Inference Attacks From First Principles
    (2112.03570).

    Positives are the audited models' FORGOTTEN records, negatives their UNSEEN ones. So originals
    are its ceiling, plain LiRA, and retrained models its null: they saw neither, AUC ½.

    Args:
        predictions: of a population, one audited model a training set; logits (M, Q, N, C).
        mode: ``online`` or ``offline``.
        variance: ``per_record``; ``pooled``: of φ minus its record's median, all records as one;
            ``raw``: of φ over all records, IN's for both sides (offline: OUT's).

    A record is left out if fewer than three originals are on a side that ``mode`` needs: two,
    whichever is left out.

    Raises:
        ValueError: an unknown word, or confidences that are not finite.
        Skip: a regression, no original to compare with, or no record that can be scored.
    """
    known("mode", mode, MODES)
    known("variance", variance, ("per_record", "pooled", "raw"))
    places_M, places_R, own_M = references("lira", predictions)
    status_MN = predictions.status_MN[places_M]
    out_RN = predictions.status_MN[places_R] == UNSEEN
    forgotten_MN = status_MN == FORGOTTEN
    scored_MN = (forgotten_MN | (status_MN == UNSEEN)) & enough(out_RN)
    if mode == "online":
        scored_MN &= enough(~out_RN)
    ratios = []
    places = np.union1d(places_M, places_R)
    for phi in confidences(predictions, places):
        phi_MN, phi_RN = (phi[np.searchsorted(places, some)] for some in (places_M, places_R))
        mu_MN, var_MN = _fit(phi_RN, out_RN, own_M, variance)
        if mode == "offline":
            ratios.append((phi_MN - mu_MN) / np.sqrt(var_MN))
            continue
        mu_in_MN, var_in_MN = _fit(phi_RN, ~out_RN, own_M, variance)
        var_MN = var_in_MN if variance == "raw" else var_MN
        ratios.append(log_ratio(phi_MN, mu_in_MN, var_in_MN, mu_MN, var_MN))
    ratio_MN = sum(ratios[1:], ratios[0]) / len(ratios)
    return outcome("lira", predictions, places_M, ratio_MN, forgotten_MN, scored_MN)


def _fit(
    phi_RN: Array, side_RN: Mask, own_M: NDArray[np.intp], variance: str
) -> tuple[Array, Array]:
    """Median (M, N) and variance, (M, N) or (M, 1), of a side without the target's own original.

    All from column sums: with y = φ − mean and a centre c, Σ(y − c) = Σy − kc and
    Σ(y − c)² = Σy² − 2cΣy + kc².
    """
    shift_N = phi_RN.mean(axis=0, where=side_RN | ~side_RN.any(axis=0))
    y_RN = np.where(side_RN, phi_RN - shift_N, 0.0)
    k_MN, sum_MN, squares_MN = (others(one, own_M) for one in (side_RN, y_RN, y_RN**2))
    median_MN = np.where(k_MN > 0, _median(y_RN, side_RN)[own_M], 0.0)
    if variance == "per_record":
        k_MN = np.maximum(k_MN, 1)
        var_MN = squares_MN / k_MN - (sum_MN / k_MN) ** 2
        return median_MN + shift_N, np.maximum(var_MN, LEAST_VARIANCE)
    c_MN = median_MN if variance == "pooled" else shift_N.mean() - shift_N
    used_N = enough(side_RN)
    n_M1 = np.maximum(k_MN.sum(axis=1, where=used_N, keepdims=True), 1)
    mean_M1 = (sum_MN - k_MN * c_MN).sum(axis=1, where=used_N, keepdims=True) / n_M1
    each_MN = squares_MN + c_MN * (k_MN * c_MN - 2 * sum_MN)
    var_M1 = each_MN.sum(axis=1, where=used_N, keepdims=True) / n_M1 - mean_M1**2
    return median_MN + shift_N, np.maximum(var_M1, LEAST_VARIANCE)


def _median(y_RN: Array, side_RN: Mask) -> Array:
    """Medians (R + 1, N) of a side without each model in turn, and of all; inf where none is left.

    Without its r-th value a sorted column's j-th one is s_j for j < r, else s_{j+1}; r ≤ j just
    where the value is ≤ s_j, or where it equals both.
    """
    sorted_NR = np.sort(np.where(side_RN, y_RN, np.inf).T, axis=1)
    k_N, columns_N = side_RN.sum(axis=0), np.arange(len(sorted_NR))
    last = len(side_RN) - 1

    def at(j_N: NDArray[Any]) -> Array:
        values_N: Array = sorted_NR[columns_N, np.clip(j_N, 0, last)]
        return values_N

    whole_N = (at((k_N - 1) // 2) + at(k_N // 2)) / 2
    left_out_RN = np.zeros_like(y_RN)
    for j_N in ((k_N - 2) // 2, (k_N - 1) // 2):
        here_N, next_N = at(j_N), at(j_N + 1)
        left_out_RN += np.where(y_RN <= here_N, next_N, here_N) / 2
    return np.concatenate([np.where(side_RN, left_out_RN, whole_N), whole_N[None]])
