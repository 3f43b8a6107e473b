"""KLOM: do models that forgot a record answer on it as models that never saw it do?"""

import numpy as np
from numpy.typing import NDArray

from unlearnbench.attack._population import Array, confidences, known, under_attack
from unlearnbench.attack.weights import measured
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores
from unlearnbench.metric import distance

DIRECTIONS = ("retrain_unlearned", "unlearned_retrain")
PERCENTILES = (50, 95, 99)


def klom(predictions: Predictions, *, direction: str) -> Scores:
    """Divergence between the margins of unlearned and of retrained models on each record.

        KL(retrained ‖ unlearned) of the histograms of m = log p_y − log Σ_{c≠y} p_c

    For each audited record: ``forget``, models that forget it against retrained ones that never saw
    it; ``unseen``, models that never saw it against retrained ones that forget it; ``retain``,
    every second model that retains it against the retrained ones in between. The two sides share no
    seed and no rows by design, so retraining itself is at the distance of two samples of one
    distribution. Histograms as in ``metric.klom``. Georgiev et al., "Attribute-to-delete" (2024,
    arXiv 2410.23232). Differs: there all models have one forget set, here each has its own,
    drawn from the audited records.

    Args:
        predictions: predictions of shadow models; logits (M, Q, N, C), of the first query only.
        direction: ``retrain_unlearned``, or ``unlearned_retrain`` for the reverse divergence.

    Returns:
        ``klom_<direction>_<subset>_p50``, ``_p95`` and ``_p99`` over records, and their number;
        ``retain`` only with 50 models on each side, which needs twice as many models. Two samples
        of one distribution are above 0: compare with ``second_retrain``.

    Raises:
        ValueError: an unknown direction.
        Skip: a regression, or fewer than 50 models on a side.
    """
    known("direction", direction, DIRECTIONS)
    target_M = under_attack(predictions)
    pairs = zip(predictions.kind_M, predictions.audited_M, strict=True)
    reference_K = np.flatnonzero([kind == "retrained" and not under for kind, under in pairs])
    reference_K = reference_K if len(reference_K) else target_M  # the method is retraining
    unlearned, retrained = (_by_status(predictions, places) for places in (target_M, reference_K))
    subsets = {
        "forget": (unlearned[FORGOTTEN], retrained[UNSEEN]),
        "unseen": (unlearned[UNSEEN], retrained[FORGOTTEN]),
        "retain": (unlearned[RETAINED][::2], retrained[RETAINED][1::2]),
    }
    least = min(map(len, subsets["forget"]))
    if least < distance.KLOM_MODELS:
        short = f"{least} models a side, {distance.KLOM_MODELS} are needed"
        raise Skip(f"klom: {short}: attack.shadow_models.models={4 * distance.KLOM_MODELS} or more")
    metrics = {}
    for subset, (unlearned_KN, retrained_KN) in subsets.items():
        size = min(len(unlearned_KN), len(retrained_KN))
        if size < distance.KLOM_MODELS:
            continue
        pair = (retrained_KN[:size], unlearned_KN[:size])
        apart_N = distance.klom(*(pair if direction == DIRECTIONS[0] else reversed(pair)))
        for percent, value in zip(PERCENTILES, np.percentile(apart_N, PERCENTILES), strict=True):
            metrics[f"klom_{direction}_{subset}_p{percent}"] = float(value), len(apart_N)
    return measured(metrics)


def _by_status(predictions: Predictions, places: NDArray[np.intp]) -> dict[int, Array]:
    """Return the margins (K, N) of the models of each status, for each record, in model order.

    Raises:
        Skip: records differ in their number of models.
    """
    phi_MN = next(confidences(predictions, places))
    status_MN = predictions.status_MN[places]
    margins = {}
    for code in (FORGOTTEN, RETAINED, UNSEEN):
        chosen_MN = status_MN == code
        counts_N = chosen_MN.sum(axis=0)
        if counts_N.min() != counts_N.max():
            raise Skip("klom: takes attack.shadow_models.protocol=audit_pool, which is balanced")
        places_KN = np.argsort(~chosen_MN, axis=0, kind="stable")[: counts_N[0]]
        margins[code] = np.take_along_axis(phi_MN, places_KN, axis=0)
    return margins
