"""U-LiRA: do outputs on a record tell "trained on and forgotten" from "never seen"?"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from unlearnbench import metric
from unlearnbench.attack._population import (
    LEAST_VARIANCE,
    Array,
    Mask,
    confidences,
    draws,
    known,
    log_ratio,
    outcome,
    under_attack,
)
from unlearnbench.values import FORGOTTEN, UNSEEN, Predictions, Scores, Skip

REFERENCES = ("unlearned_out", "retrain", "original_out")
ENOUGH = 16
"""Models a side from which on a record has a variance of its own."""


def ulira(predictions: Predictions, *, reference: str, variance: str) -> Scores:
    """One attacker for each record: its φ in models that forgot it, and in models without it.

        φ = log p_y − log Σ_{c≠y} p_c;   Λ = log N(φ; μ_f, σ_f²) − log N(φ; μ_o, σ_o²)
        p_member = sigmoid(Λ): "was trained on and forgotten" if p_member > ½

    Λ is a mean over queries. Means and unbiased variances leave out all models whose originals
    share the target's training rows: itself, its original and its retrained pair. ``ulira_acc`` is
    the balanced accuracy of a record's decisions, a mean over records (and n counts those);
    the other figures take all (model, record) pairs as one pool, ranked by Λ. Hayes et al.,
    Inexact Unlearning Needs More Careful Evaluations (2403.01218); Kurmanji et al. (2302.09880).

    Args:
        predictions: of a population; logits (M, Q, N, C).
        reference: where the record was never seen: ``unlearned_out``, audited models with it
            UNSEEN; ``retrain``, retrained models that were to forget it; ``original_out``,
            originals with it UNSEEN.
        variance: ``pooled`` over all records, or ``per_record`` where all of a record's targets
            leave 16 models on each side, and pooled elsewhere.

    Positives are the audited models' FORGOTTEN records, negatives their UNSEEN ones. A record is
    left out if one of its targets leaves fewer than two models on a side.

    Raises:
        ValueError: an unknown word, or confidences that are not finite.
        Skip: a regression, or no record that can be scored: there is no reference model, or too
            few of them.
    """
    known("reference", reference, REFERENCES)
    known("variance", variance, ("per_record", "pooled"))
    places_M, draw = under_attack(predictions), draws(predictions)
    status_MN = predictions.status_MN[places_M]
    forgotten_MN = status_MN == FORGOTTEN
    places_R, side_RN = _references(predictions, reference, places_M)
    draw_M, draw_R = draw[places_M], draw[places_R]
    k_f_MN = _left_out(forgotten_MN.astype(np.float64), draw_M, draw_M)
    k_o_MN = _left_out(side_RN.astype(np.float64), draw_R, draw_M)
    # One rule for all targets of a record: one that depends on the target's own side would tell it.
    least_N = np.minimum(k_f_MN, k_o_MN).min(axis=0, initial=np.inf)
    scored_MN = (forgotten_MN | (status_MN == UNSEEN)) & (least_N >= 2)
    own_N = (least_N >= ENOUGH) & (variance == "per_record")
    ratios = []
    places = np.union1d(places_M, places_R)
    for phi in confidences(predictions, places):
        phi_MN, phi_RN = (phi[np.searchsorted(places, some)] for some in (places_M, places_R))
        forgot = _fit(phi_MN, forgotten_MN, draw_M, draw_M, k_f_MN, own_N)
        never = _fit(phi_RN, side_RN, draw_R, draw_M, k_o_MN, own_N)
        ratios.append(log_ratio(phi_MN, *forgot, *never))
    ratio_MN = sum(ratios[1:], ratios[0]) / len(ratios)
    return _figures(predictions, places_M, ratio_MN, forgotten_MN, scored_MN)


def _references(
    predictions: Predictions, reference: str, places_M: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Mask]:
    """Places (R,) of the models to compare with, and which records (R, N) count in them."""
    if reference == "unlearned_out":
        return places_M, predictions.status_MN[places_M] == UNSEEN
    kind = "retrained" if reference == "retrain" else "original"
    places_R = np.flatnonzero([one == kind for one in predictions.kind_M])
    if not len(places_R):
        raise Skip(f"ulira: there is no {reference} model to compare with")
    part = FORGOTTEN if reference == "retrain" else UNSEEN
    return places_R, predictions.status_MN[places_R] == part


def _left_out(values_RN: Array, draw_R: NDArray[np.intp], draw_M: NDArray[np.intp]) -> Array:
    """Sum (M, N) over the models R whose training rows are not the target's."""
    own_DN = np.zeros((max(draw_M.max(), draw_R.max()) + 1, values_RN.shape[1]))
    for draw, values_N in zip(draw_R, values_RN, strict=True):
        own_DN[draw] += values_N
    left_out: Array = values_RN.sum(axis=0) - own_DN[draw_M]
    return left_out


def _fit(
    phi_RN: Array,
    side_RN: Mask,
    draw_R: NDArray[np.intp],
    draw_M: NDArray[np.intp],
    k_MN: Array,
    own_N: Mask,
) -> tuple[Array, Array]:
    """Mean (M, N) of a side without the target, and its variance: own or pooled."""
    shift_N = phi_RN.mean(axis=0, where=side_RN | ~side_RN.any(axis=0))
    y_RN = np.where(side_RN, phi_RN - shift_N, 0.0)
    mean_MN = _left_out(y_RN, draw_R, draw_M) / np.maximum(k_MN, 1)
    about_MN = np.maximum(_left_out(y_RN**2, draw_R, draw_M) - k_MN * mean_MN**2, 0)
    free_MN = np.maximum(k_MN - 1, 0)
    pooled_M = about_MN.sum(axis=1, where=free_MN > 0) / np.maximum(free_MN.sum(axis=1), 1)
    var_MN = np.where(own_N, about_MN / np.maximum(free_MN, 1), pooled_M[:, None])
    return mean_MN + shift_N, np.maximum(var_MN, LEAST_VARIANCE)


def _figures(
    predictions: Predictions,
    places_M: NDArray[np.intp],
    ratio_MN: Array,
    forgotten_MN: Mask,
    scored_MN: Mask,
) -> Scores:
    """The pool's figures, and those of the rule p_member > ½."""
    scores = outcome("ulira", predictions, places_M, ratio_MN, forgotten_MN, scored_MN)
    shares = []
    for side_MN, right_MN in ((forgotten_MN, ratio_MN > 0), (~forgotten_MN, ratio_MN <= 0)):
        each_MN = scored_MN & side_MN
        n_N = each_MN.sum(axis=0)
        shares.append((each_MN & right_MN).sum(axis=0) / np.where(n_N, n_N, np.nan))
    share_N = (shares[0] + shares[1]) / 2
    judged_N = np.isfinite(share_N)
    accuracy = float(share_N[judged_N].mean()) if judged_N.any() else float("nan")
    inside, outside = scores.score[scores.member], scores.score[~scores.member]
    half = metric.balanced_accuracy(inside, outside, 0.0)
    metrics = {
        "ulira_acc": (accuracy, int(judged_N.sum())),
        "ulira_bal_acc_half": (half, len(scores.row)),
        **scores.metrics,
    }
    return replace(scores, metrics=metrics, score=expit(scores.score))
