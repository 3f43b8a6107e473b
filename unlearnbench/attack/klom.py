"""KLOM: do models that forgot a record answer on it as models that never saw it do?"""

import numpy as np
from numpy.typing import NDArray

from unlearnbench import metric
from unlearnbench.attack._population import Array, confidences, known, under_attack
from unlearnbench.attack.weights import measured
from unlearnbench.values import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores, Skip

DIRECTIONS = ("retrain_unlearned", "unlearned_retrain")
PARTS = {"forget": FORGOTTEN, "retain": RETAINED, "unseen": UNSEEN}
PERCENTILES = (50, 95, 99)


def klom(predictions: Predictions, *, direction: str) -> Scores:
    """Divergence of margins between a record's models under the method and its retrained ones.

        KL(retrained ‖ unlearned) of the histograms of m = log p_y − log Σ_{c≠y} p_c

    Of each audited record three times: over the models that were to forget it, those that kept it
    and those that never saw it; retrained models with the same request stand on the other side.
    Histograms as in ``metric.klom``. Georgiev et al., "Attribute-to-delete" (2024, arXiv
    2410.23232). Differs: there all models have one forget set, here each has its own, drawn from
    the audited records; there both sides are trained independently, here a model and a retrained
    one share rows and seed, so that what stays near its own retraining can lie below the noise
    floor of ``second_retrain``.

    Args:
        predictions: of a population; logits (M, Q, N, C), of which the first view is read.
        direction: ``retrain_unlearned``, or ``unlearned_retrain`` for the other divergence.

    Returns:
        ``klom_<direction>_<part>_p50``, ``_p95`` and ``_p99`` over records, and n of them. Two
        samples of one law are above 0: hold it to ``second_retrain``. Retraining compared with
        itself is 0.

    Raises:
        ValueError: an unknown direction.
        Skip: a regression, or fewer than 50 models a side.
    """
    known("direction", direction, DIRECTIONS)
    ours_M = under_attack(predictions)
    beside = zip(predictions.kind_M, predictions.audited_M, strict=True)
    theirs_K = np.flatnonzero([kind == "retrained" and not under for kind, under in beside])
    theirs_K = theirs_K if len(theirs_K) else ours_M  # it is retraining that is under attack
    margins = [next(confidences(predictions, places)) for places in (ours_M, theirs_K)]
    statuses = [predictions.status_MN[places] for places in (ours_M, theirs_K)]
    told = {}
    for part, code in PARTS.items():
        unlearned, retrained = (
            _chosen(phi_MN, status_MN == code)
            for phi_MN, status_MN in zip(margins, statuses, strict=True)
        )
        pair = (retrained, unlearned) if direction == DIRECTIONS[0] else (unlearned, retrained)
        apart_N = metric.klom(*pair)
        for percent, value in zip(PERCENTILES, np.percentile(apart_N, PERCENTILES), strict=True):
            told[f"klom_{direction}_{part}_p{percent}"] = float(value), len(apart_N)
    return measured(told)


def _chosen(phi_MN: Array, chosen_MN: NDArray[np.bool_]) -> Array:
    """The margins (K, N) of each record's own models.

    Raises:
        Skip: they are too few, or not as many for each record.
    """
    counts = chosen_MN.sum(axis=0)
    if counts.min() < metric.KLOM_MODELS:
        told = f"{counts.min()} models a side, {metric.KLOM_MODELS} are needed"
        raise Skip(f"klom: {told}: attack.shadows.models={4 * metric.KLOM_MODELS} or more")
    if counts.min() != counts.max():
        raise Skip("klom: takes attack.shadows.protocol=audit_pool, which is balanced")
    places_KN = np.argsort(~chosen_MN, axis=0, kind="stable")[: counts.min()]
    return np.take_along_axis(phi_MN, places_KN, axis=0)
