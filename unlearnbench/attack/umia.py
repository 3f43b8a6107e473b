"""U-MIA, the population attack: can losses tell forget rows from rows never seen?"""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGET, TEST, VAL, Predictions, Scores
from unlearnbench.metric.membership import (
    auc,
    entropy,
    logit_confidence,
    modified_entropy,
    tpr_at_fpr,
)
from unlearnbench.metric.utility import cross_entropy, indisc


def umia(predictions: Predictions, *, splits: int, held_out: float, seed: int) -> Scores:
    """Accuracy of a linear classifier on losses, forget rows against test and validation rows.

        ℓ_i = −log softmax(f(x_i))_{y_i};   MIA = mean over splits of the accuracy of a logistic
        regression ℓ → member, fitted on the rest;   Indisc = 1 − |2·MIA − 1|

    Both sides are shuffled and cut to the size of the smaller one, so that chance level is .5. The
    AUC is that of the score −ℓ on all records. Deep Unlearn (arXiv 2410.01276), U-MIA. Additional
    metrics are the AUCs of thresholds on other statistics, see ``_statistics``, and the TPR at an
    FPR of 1 % of the confidence.

    Args:
        predictions: predictions of one model.
        splits: number of random train-test splits of the classifier.
        held_out: share of the records that each split is scored on.
        seed: seed of the shuffling and the splits.

    Raises:
        ValueError: losses are not finite.
        Skip: a regression, or too few forgotten records to fit and score, or too few in both pools;
            if only one pool is too small, its metrics are missing.
    """
    if not np.issubdtype(predictions.y_N.dtype, np.integer):
        raise Skip("umia needs classes; this is a regression")
    losses_N = cross_entropy(predictions.logits_MQNC[0, 0], predictions.y_N)
    if not np.isfinite(losses_N).all():
        raise ValueError("umia: losses are not finite")
    statistics = _statistics(predictions.logits_MQNC[0, 0], predictions.y_N)
    forgotten_N = predictions.split_N == FORGET
    metrics, records, few = {}, [], []
    for pool, code in (("test", TEST), ("val", VAL)):
        others_N = predictions.split_N == code
        members, others = losses_N[forgotten_N], losses_N[others_N]
        n = min(len(members), len(others))
        if n < 2 / held_out:
            few.append(n)
            continue
        mia = _accuracy(members, others, n, splits, held_out, seed)
        metrics[f"mia_{pool}"] = mia, 2 * n
        metrics[f"indisc_{pool}"] = indisc(mia), 2 * n
        metrics[f"mia_{pool}_auc"] = auc(-members, -others), len(members) + len(others)
        for name, value in _thresholds(statistics, forgotten_N, others_N).items():
            metrics[f"mia_{pool}_{name}"] = value, len(members) + len(others)
        records.append((pool, np.flatnonzero(forgotten_N | others_N)))
    if not records:
        message = f"umia: {max(few)} records a side are too few"
        raise Skip(f"{message} to hold out {held_out:.0%} of them")
    attacked = np.concatenate([index for _, index in records])
    return Scores(
        metrics=metrics,
        pool=[pool for pool, index in records for _ in index],
        row=predictions.rows_N[attacked],
        member=forgotten_N[attacked],
        score=-losses_N[attacked],
    )


def _statistics(
    logits_NC: NDArray[np.float32], y_N: NDArray[np.generic]
) -> dict[str, NDArray[np.float64]]:
    """Scores of each record, higher for a member: a fitted record is confident and correct."""
    return {
        "confidence": logit_confidence(logits_NC, y_N),
        "entropy": -entropy(logits_NC),
        "modified_entropy": -modified_entropy(logits_NC, y_N),
    }


def _thresholds(
    statistics: dict[str, NDArray[np.float64]],
    forgotten_N: NDArray[np.bool_],
    others_N: NDArray[np.bool_],
) -> dict[str, float]:
    pairs = {
        name: (score_N[forgotten_N], score_N[others_N]) for name, score_N in statistics.items()
    }
    aucs = {f"{name}_auc": auc(*pair) for name, pair in pairs.items()}
    # From φ, not ℓ: float64 losses of confident records, which form the tail, are all 0.
    return {**aucs, "tpr_at_1pct": tpr_at_fpr(*pairs["confidence"], 0.01)}


def _accuracy(
    members: NDArray[np.float64],
    others: NDArray[np.float64],
    n: int,
    splits: int,
    held_out: float,
    seed: int,
) -> float:
    random = np.random.default_rng(seed)
    chosen = [random.permutation(losses)[:n] for losses in (members, others)]
    feature, label = np.concatenate(chosen)[:, None], np.repeat([1, 0], n)
    rounds = StratifiedShuffleSplit(n_splits=splits, test_size=held_out, random_state=seed)
    return float(cross_val_score(LogisticRegression(), feature, label, cv=rounds).mean())
