"""U-LiRA: do outputs on a record tell "trained on and forgotten" from "never seen"?"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unlearnbench.attack._population import (
    LEAST_VARIANCE,
    Array,
    Indices,
    Mask,
    by_draw,
    confidences,
    draws,
    known,
    left_out,
    log_ratio,
    others,
    outcome,
    seen,
    under_attack,
)
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, UNSEEN, Predictions, Scores
from unlearnbench.metric import membership

REFERENCES = ("unlearned_out", "retrain", "original_out")
VARIANCES = ("per_record", "pooled")


def ulira(predictions: Predictions, *, reference: str, variance: str) -> Scores:
    """Likelihood ratio of φ for each record: models that forgot it against models without it.

        φ = log p_y − log Σ_{c≠y} p_c;   Λ = log N(φ; μ_f, σ_f²) − log N(φ; μ_o, σ_o²)
        "was trained on and forgotten" if Λ > 0, that is sigmoid(Λ) > ½

    The score is Λ, a mean over queries. Means and unbiased variances exclude all models whose
    originals share the target's training rows (the target, its original and its retrained pair) and
    as many of the other side (``left_out``). ``ulira_acc`` is the balanced accuracy of the
    decisions on a record, averaged over records, and n is their number; the other metrics take all
    (model, record) pairs as one pool. Hayes et al., Inexact Unlearning Needs More Careful
    Evaluations (2403.01218); Kurmanji et al. (2302.09880).

    Args:
        predictions: predictions of shadow models; logits (M, Q, N, C).
        reference: models without the record: ``unlearned_out``, audited models with it UNSEEN;
            ``retrain``, retrained models that forget it; ``original_out``, originals with it
            UNSEEN.
        variance: ``per_record``, over the models of the record, however few, or ``pooled`` over all
            records.

    Positives are the FORGOTTEN records of the audited models, negatives their UNSEEN ones. A record
    is scored only if at least two models on each side remain for each of its targets. Retrained
    models saw neither: their AUC and accuracy are ½.

    Raises:
        ValueError: an unknown choice, or confidences are not finite.
        Skip: a regression, or no record can be scored because reference models are missing or too
            few.
    """
    known("reference", reference, REFERENCES)
    known("variance", variance, VARIANCES)
    places_M, draw = under_attack(predictions), draws(predictions)
    seen_DN, status_MN = seen(predictions), predictions.status_MN[places_M]
    forgotten_MN = status_MN == FORGOTTEN
    places_R, side_RN = _references(predictions, reference, places_M)
    draw_M, draw_R = draw[places_M], draw[places_R]
    models_f_DN = by_draw(forgotten_MN, draw_M, len(seen_DN))
    models_o_DN = by_draw(side_RN, draw_R, len(seen_DN))
    excluded_f_DN, excluded_o_DN = left_out(draw_M, seen_DN, models_f_DN > 0)
    if reference == "retrain":  # these draws have seen the record, as on the other side
        excluded_o_DN = excluded_f_DN
    k_f_DN, k_o_DN = others(models_f_DN, excluded_f_DN), others(models_o_DN, excluded_o_DN)
    # One rule for all targets of a record: a rule that depends on the target's side would leak it.
    least_N = np.minimum(k_f_DN, k_o_DN)[draw_M].min(axis=0)
    scored_MN = (forgotten_MN | (status_MN == UNSEEN)) & (least_N >= 2)
    ratios = []
    places = np.union1d(places_M, places_R)
    for phi in confidences(predictions, places):
        phi_MN, phi_RN = (phi[np.searchsorted(places, some)] for some in (places_M, places_R))
        forgot = _fit(phi_MN, forgotten_MN, draw_M, excluded_f_DN, k_f_DN, variance)
        never = _fit(phi_RN, side_RN, draw_R, excluded_o_DN, k_o_DN, variance)
        ratios.append(log_ratio(phi_MN, *(fit_DN[draw_M] for fit_DN in (*forgot, *never))))
    ratio_MN = sum(ratios[1:], ratios[0]) / len(ratios)
    return _figures(predictions, places_M, ratio_MN, forgotten_MN, scored_MN)


def _references(
    predictions: Predictions, reference: str, places_M: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Mask]:
    """Return indices (R,) of the reference models, and the mask (R, N) of their records."""
    if reference == "unlearned_out":
        return places_M, predictions.status_MN[places_M] == UNSEEN
    kind = "retrained" if reference == "retrain" else "original"
    places_R = np.flatnonzero([model_kind == kind for model_kind in predictions.kind_M])
    if not len(places_R):
        raise Skip(f"ulira: there is no {reference} model to compare with")
    status = FORGOTTEN if reference == "retrain" else UNSEEN
    return places_R, predictions.status_MN[places_R] == status


def _fit(
    phi_RN: Array,
    side_RN: Mask,
    draw_R: Indices,
    excluded_DN: Indices,
    k_DN: NDArray[np.int64],
    variance: str,
) -> tuple[Array, Array]:
    """Mean (D, N) and variance, (D, N) or (D, 1), of a side without the excluded draws."""
    shift_N = phi_RN.mean(axis=0, where=side_RN | ~side_RN.any(axis=0))
    y_RN = np.where(side_RN, phi_RN - shift_N, 0.0)
    sum_DN, squares_DN = (
        others(by_draw(values_RN, draw_R, len(excluded_DN)), excluded_DN)
        for values_RN in (y_RN, y_RN**2)
    )
    mean_DN, free_DN = sum_DN / np.maximum(k_DN, 1), np.maximum(k_DN - 1, 0)
    about_DN = np.maximum(squares_DN - k_DN * mean_DN**2, 0)
    if variance == "pooled":
        about_DN = about_DN.sum(axis=1, where=free_DN > 0, keepdims=True)
        free_DN = free_DN.sum(axis=1, keepdims=True)
    var_DN = about_DN / np.maximum(free_DN, 1)
    return mean_DN + shift_N, np.maximum(var_DN, LEAST_VARIANCE)


def _figures(
    predictions: Predictions,
    places_M: NDArray[np.intp],
    ratio_MN: Array,
    forgotten_MN: Mask,
    scored_MN: Mask,
) -> Scores:
    """Return the metrics of the pool, and those of the rule Λ > 0."""
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
    half = membership.balanced_accuracy(inside, outside, 0.0)
    metrics = {
        "ulira_acc": (accuracy, int(judged_N.sum())),
        "ulira_bal_acc_half": (half, len(scores.row)),
        **scores.metrics,
    }
    return replace(scores, metrics=metrics)
