"""Double output: does the change of an output on a record tell that the record was deleted?

Axes: N records, n records under attack, C classes, k largest classes, F values of a feature.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from unlearnbench.attack._population import Array, Mask, known
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores
from unlearnbench.metric import membership

FEATURES = ("direct_concat", "sorted_concat", "direct_diff", "sorted_diff", "l2_distance")
OF_ANY_CLASSES = ("sorted_concat", "sorted_diff", "l2_distance")
"""Features that do not depend on the number of classes."""

CLASSIFIERS = {
    # The scaler is fitted once, on the shadow records: a refit on a query would hide the query.
    "lr": make_pipeline(StandardScaler(), LogisticRegression(max_iter=400)),
    "dt": DecisionTreeClassifier(max_leaf_nodes=10, random_state=0),
    "rf": RandomForestClassifier(n_estimators=500, min_samples_leaf=30, random_state=0),
    "mlp": MLPClassifier((100,), learning_rate_init=0.01, early_stopping=True, random_state=0),
}
"""Settings of the paper's code; all other settings are scikit-learn's defaults."""

POSITIVE = {"in_out": FORGOTTEN, "in_in": RETAINED, "multi_version": FORGOTTEN}
"""Record set → status of its members in the request."""


def double_output(
    predictions: Predictions, shadow: Predictions, *, classifier: str, feature: str, records: str
) -> Scores:
    """Train one membership classifier on shadow outputs before and after a request, p and q.

        direct_concat  [p, q]              direct_diff  p − q
        sorted_concat  [p∘π, q∘π]          sorted_diff  (p − q)∘π      l2_distance  ‖p − q‖₂

        DegCount = mean_i 1[u_i > c_i];    DegRate = mean_i (u_i − c_i)

    p and q are posteriors, means over queries; π sorts p ascending, ties by class index. u_i and
    c_i are the probabilities that this attack and the classical one, which reads only p, assign to
    the true status of record i. Chen et al., When Machine Unlearning Jeopardizes Privacy
    (CCS 2021, 2005.02205).

    If shadow and target differ in their number of classes, sorted features and the classical p use
    the k largest entries of p, with k the smaller number; the AUC of direct features is NaN.

    Args:
        predictions: target outputs, before (M = 0) and after (M = 1) a request, of the queried
            records; the forgotten records of one request are in random order.
        shadow: the same outputs of the attacker's shadow models.
        classifier: ``lr``, ``dt``, ``rf`` or ``mlp``.
        feature: the feature of the scores and the headline metrics.
        records: positives, with UNSEEN records as negatives: ``in_out``, the FORGOTTEN records;
            ``in_in``, the first RETAINED record of each request; ``multi_version``, its first
            FORGOTTEN record. Each request gives equally many of both, the first ones.

    Raises:
        ValueError: an unknown choice, a direct feature with shadows of other classes, or
            predictions that are not finite or not of two outputs.
        Skip: a regression, a side without records, or too few records for the classifier.
    """
    known("classifier", classifier, tuple(CLASSIFIERS))
    known("feature", feature, FEATURES)
    known("records", records, tuple(POSITIVE))
    learnt, target = _records("shadow", shadow, records), _records("target", predictions, records)
    if classifier == "mlp" and len(learnt.member_n) <= 10:
        n = len(learnt.member_n)
        raise Skip(f"double_output: {n} shadow records are too few for mlp to hold out a tenth")
    counts = learnt.p_nC.shape[1], target.p_nC.shape[1]
    if counts[0] != counts[1] and feature not in OF_ANY_CLASSES:
        raise ValueError(
            f"attack.call.feature={feature}: shadow and target have {counts[0]} and {counts[1]}"
            f" classes; must be one of {', '.join(OF_ANY_CLASSES)}"
        )
    shadow_features, target_features = (
        _features(side, min(counts), counts[0] == counts[1]) for side in (learnt, target)
    )
    scores = {
        name: _probability(classifier, x_nF, learnt.member_n, target_features[name])
        for name, x_nF in shadow_features.items()
    }
    figures = _figures(scores, feature, target.member_n)
    return Scores(
        metrics={name: (value, len(target.member_n)) for name, value in figures.items()},
        pool=[f"model {model:02d}" for model in target.model_n],
        row=target.row_n,
        member=target.member_n,
        score=scores[feature],
    )


@dataclass(frozen=True)
class _Records:
    """Records under attack of the shadow or of the target side."""

    p_nC: Array
    q_nC: Array
    member_n: Mask
    row_n: NDArray[np.int64]
    model_n: NDArray[np.int64]


def _records(side: str, predictions: Predictions, records: str) -> _Records:
    """Select the records of a record set, in their order."""
    if not np.issubdtype(predictions.y_N.dtype, np.integer):
        raise Skip(f"double_output needs classes; the {side} is a regression")
    model_N, request_N = predictions.model_N, predictions.request_N
    if len(predictions.logits_MQNC) != 2 or model_N is None or request_N is None:
        raise ValueError(
            f"double_output: {side} predictions must be of two outputs, before and after,"
            " and say of which model and request"
        )
    status_N, first = predictions.status_MN[1], len(model_N) if records == "in_out" else 1
    _, pair_N = np.unique(np.stack([model_N, request_N]), axis=1, return_inverse=True)
    members, others = [], []
    for pair in range(pair_N.max(initial=-1) + 1):
        inside, outside = (
            np.flatnonzero((pair_N.ravel() == pair) & (status_N == status))
            for status in (POSITIVE[records], UNSEEN)
        )
        n = min(len(inside), len(outside), first)
        members.append(inside[:n])
        others.append(outside[:n])
    chosen = np.sort(np.concatenate([*members, *others])) if members else np.zeros(0, np.intp)
    if not len(chosen):
        raise Skip(f"double_output: no {side} request has records of both kinds")
    logits = predictions.logits_MQNC[:, :, chosen].astype(np.float64)
    p_nC, q_nC = softmax(logits, axis=-1).mean(axis=1)
    if not (np.isfinite(p_nC).all() and np.isfinite(q_nC).all()):
        raise ValueError(f"double_output: {side} posteriors are not finite")
    return _Records(
        p_nC,
        q_nC,
        status_N[chosen] == POSITIVE[records],
        predictions.rows_N[chosen],
        model_N[chosen],
    )


def _features(records: _Records, k: int, same_classes: bool) -> dict[str, Array]:
    """Compute the features (n, F) available on both sides, and those of the classical attack."""
    p_nC, q_nC = records.p_nC, records.q_nC
    order_nk = np.argsort(p_nC, axis=1, kind="stable")[:, -k:]
    p_nk, q_nk = (
        np.take_along_axis(posterior_nC, order_nk, axis=1) for posterior_nC in (p_nC, q_nC)
    )
    direct = {"direct_concat": np.hstack([p_nC, q_nC]), "direct_diff": p_nC - q_nC}
    return {
        **(direct if same_classes else {}),
        "sorted_concat": np.hstack([p_nk, q_nk]),
        "sorted_diff": p_nk - q_nk,
        "l2_distance": np.linalg.norm(p_nC - q_nC, axis=1, keepdims=True),
        "classical": p_nC if same_classes else p_nk,
    }


def _probability(classifier: str, shadow_nF: Array, member_n: Mask, target_nF: Array) -> Array:
    """Probability of membership (n,) of the target records."""
    # Sorted: the fitted model does not depend on the order of the records.
    order_n = np.lexsort((member_n, *shadow_nF.T))
    model = clone(CLASSIFIERS[classifier])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the paper's limit of 400 iterations
        model.fit(shadow_nF[order_n], member_n[order_n].astype(np.int64))
    # One prediction for each distinct row: a matrix product may round equal rows differently.
    distinct, place_n = np.unique(target_nF, axis=0, return_inverse=True)
    score_n: Array = model.predict_proba(distinct)[place_n.ravel(), 1].astype(np.float64)
    return score_n


def _figures(scores: dict[str, Array], feature: str, member_n: Mask) -> dict[str, float]:
    sides = {name: (score_n[member_n], score_n[~member_n]) for name, score_n in scores.items()}
    right = {
        name: np.where(member_n, scores[name], 1 - scores[name]) for name in (feature, "classical")
    }
    gain_n = right[feature] - right["classical"]
    figures = {
        "double_output_auc": membership.auc(*sides[feature]),
        "double_output_acc": membership.balanced_accuracy(*sides[feature], 0.5),
        "double_output_tpr_at_1pct": membership.tpr_at_fpr(*sides[feature], 0.01),
        "double_output_tpr_at_01pct": membership.tpr_at_fpr(*sides[feature], 0.001),
        "classical_auc": membership.auc(*sides["classical"]),
        "classical_acc": membership.balanced_accuracy(*sides["classical"], 0.5),
        "deg_count": float((gain_n > 0).mean()),
        "deg_rate": float(gain_n.mean()),
    }
    for name in FEATURES:
        auc = membership.auc(*sides[name]) if name in sides else float("nan")
        figures[f"double_output_auc_{name}"] = auc
    return figures
