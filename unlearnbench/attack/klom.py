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
    """Divergence of margins between a record's models under the method and retrained ones.

        KL(retrained ‖ unlearned) of the histograms of m = log p_y − log Σ_{c≠y} p_c

    Of each audited record: ``forget``, over models that were to forget it, against retrained ones
    that never saw it; ``unseen``, over models that never saw it, against retrained ones of which
    it was deleted; ``retain``, over every other model that kept it, against the retrained ones of
    the rest. So no two models on the two sides share a seed or rows by design, and retraining
    itself is no nearer than two samples of one law. Histograms as in ``metric.klom``. Georgiev et
    al., "Attribute-to-delete" (2024, arXiv 2410.23232). Differs: there all models have one forget
    set, here each has its own, drawn from the audited records.

    Args:
        predictions: of a population; logits (M, Q, N, C), of which the first view is read.
        direction: ``retrain_unlearned``, or ``unlearned_retrain`` for the other divergence.

    Returns:
        ``klom_<direction>_<part>_p50``, ``_p95`` and ``_p99`` over records, and n of them;
        ``retain`` where 50 models a side are left, which takes a population twice as large. Two
        samples of one law are above 0: hold it to ``second_retrain``.

    Raises:
        ValueError: an unknown direction.
        Skip: a regression, or fewer than 50 models a side.
    """
    known("direction", direction, DIRECTIONS)
    ours_M = under_attack(predictions)
    beside = zip(predictions.kind_M, predictions.audited_M, strict=True)
    theirs_K = np.flatnonzero([kind == "retrained" and not under for kind, under in beside])
    theirs_K = theirs_K if len(theirs_K) else ours_M  # it is retraining that is under attack
    unlearned, retrained = (_by_status(predictions, places) for places in (ours_M, theirs_K))
    parts = {
        "forget": (unlearned[FORGOTTEN], retrained[UNSEEN]),
        "unseen": (unlearned[UNSEEN], retrained[FORGOTTEN]),
        "retain": (unlearned[RETAINED][::2], retrained[RETAINED][1::2]),
    }
    least = min(map(len, parts["forget"]))
    if least < distance.KLOM_MODELS:
        short = f"{least} models a side, {distance.KLOM_MODELS} are needed"
        raise Skip(f"klom: {short}: attack.shadow_models.models={4 * distance.KLOM_MODELS} or more")
    told = {}
    for part, (ours_KN, theirs_KN) in parts.items():
        size = min(len(ours_KN), len(theirs_KN))
        if size < distance.KLOM_MODELS:
            continue
        pair = (theirs_KN[:size], ours_KN[:size])
        apart_N = distance.klom(*(pair if direction == DIRECTIONS[0] else reversed(pair)))
        for percent, value in zip(PERCENTILES, np.percentile(apart_N, PERCENTILES), strict=True):
            told[f"klom_{direction}_{part}_p{percent}"] = float(value), len(apart_N)
    return measured(told)


def _by_status(predictions: Predictions, places: NDArray[np.intp]) -> dict[int, Array]:
    """The margins (K, N) of each record's own models of each kind, in the models' order.

    Raises:
        Skip: they are not as many for each record.
    """
    phi_MN = next(confidences(predictions, places))
    status_MN = predictions.status_MN[places]
    found = {}
    for code in (FORGOTTEN, RETAINED, UNSEEN):
        chosen_MN = status_MN == code
        counts_N = chosen_MN.sum(axis=0)
        if counts_N.min() != counts_N.max():
            raise Skip("klom: takes attack.shadow_models.protocol=audit_pool, which is balanced")
        places_KN = np.argsort(~chosen_MN, axis=0, kind="stable")[: counts_N[0]]
        found[code] = np.take_along_axis(phi_MN, places_KN, axis=0)
    return found
