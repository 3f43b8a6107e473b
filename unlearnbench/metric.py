"""Metrics: arrays in, floats out. NumPy and SciPy only. Axes: N records, C classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

Floats = NDArray[np.floating]
Labels = NDArray[Any]
"""Classes (N,), of an integer type."""


def accuracy(logits_NC: Floats, y_N: Labels) -> float:
    """Share of records whose largest logit is their label's, in [0, 1]; NaN for no record."""
    if not len(y_N):
        return float("nan")
    return float(np.mean(logits_NC.argmax(axis=1) == y_N))


def cross_entropy(logits_NC: Floats, y_N: Labels) -> NDArray[np.float64]:
    """Loss (N,) of each record in nats, −log softmax(logits)_y, stable and in float64."""
    z_NC = logits_NC.astype(np.float64)
    z_NC = z_NC - z_NC.max(axis=1, keepdims=True)
    log_sum_N = np.log(np.exp(z_NC).sum(axis=1))
    losses: NDArray[np.float64] = log_sum_N - z_NC[np.arange(len(y_N)), y_N]
    return losses


def rmse(predicted_N: Floats, y_N: Floats) -> float:
    """Root mean squared error, in the units of the target; lower is better."""
    return float(np.sqrt(np.mean((predicted_N.astype(np.float64) - y_N) ** 2)))


def r2(predicted_N: Floats, y_N: Floats) -> float:
    """Share of the target's variance explained, at most 1; NaN where the target is constant."""
    spread = np.sum((y_N - np.mean(y_N, dtype=np.float64)) ** 2)
    error = np.sum((predicted_N.astype(np.float64) - y_N) ** 2)
    return float(1 - error / spread) if spread else float("nan")


def retention(unlearned: float, retrained: float) -> float:
    """Unlearned over retrained accuracy, 1 = as retrained; NaN where the retrained one is 0."""
    return unlearned / retrained if retrained else float("nan")


def ret_dev(unlearned: tuple[float, ...], retrained: tuple[float, ...]) -> float:
    """Retention deviation |RR − 1| + |FR − 1| + |TR − 1|, 0 = as retrained, lower is better.

    Arguments are the accuracies on retain, forget and test rows. Formula as rebuilt from the
    tables of Deep Unlearn (arXiv 2410.01276); its authors' code does not hold it.
    """
    pairs = zip(unlearned, retrained, strict=True)
    return float(sum(abs(retention(u, r) - 1) for u, r in pairs))


def indisc(mia: float) -> float:
    """Indiscernibility 1 − |2·MIA − 1| of an attack accuracy; 1 = the attack guesses."""
    return 1 - abs(2 * mia - 1)


def rte(retrain_seconds: float, unlearn_seconds: float) -> float:
    """Run-time efficiency: seconds of retraining over those of unlearning; larger is better."""
    return retrain_seconds / unlearn_seconds if unlearn_seconds else float("nan")


def auc(members: Floats, others: Floats) -> float:
    """Probability that a member's score exceeds a non-member's, ties counting half."""
    if not len(members) or not len(others):
        return float("nan")
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, side="left")
    not_above = np.searchsorted(ordered, members, side="right")
    return float((below + not_above).mean() / (2 * len(others)))


# ---------------------------------------------------------------------------------------------
# What a threshold on a score can do. Scores are higher for members.


def roc(members: Floats, others: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of the rules "score ≥ t", from (0, 0) to (1, 1).

    One point for each distinct score t, from the highest down, after the one of no positives.

    Raises:
        ValueError: a side is empty, or a score is NaN.
    """
    if not len(members) or not len(others):
        raise ValueError("roc: a side has no record")
    thresholds = np.unique(np.concatenate([members, others]).astype(np.float64))[::-1]
    if np.isnan(thresholds).any():
        raise ValueError("roc: a score is NaN")
    fpr, tpr = (
        np.concatenate(
            [[0.0], (len(side) - np.searchsorted(np.sort(side), thresholds)) / len(side)]
        )
        for side in (others, members)
    )
    return fpr, tpr


def tpr_at_fpr(members: Floats, others: Floats, fpr: float) -> float:
    """True positive rate of the last ROC point whose false positive rate is at most ``fpr``.

    NaN where non-members are fewer than 1/fpr, too few to tell, or there is no member.

    Args:
        members: scores.
        others: scores of non-members.
        fpr: above 0, at most 1.
    """
    if not len(members) or len(others) < 1 / fpr:
        return float("nan")
    false, true = roc(members, others)
    return float(true[np.searchsorted(false, fpr, side="right") - 1])


def balanced_accuracy(members: Floats, others: Floats, threshold: float) -> float:
    """Mean of the two sides' shares that the rule "score > threshold" gets right; NaN if none."""
    if not len(members) or not len(others):
        return float("nan")
    return float(np.mean(members > threshold) + np.mean(others <= threshold)) / 2


def balanced_accuracy_max(members: Floats, others: Floats) -> float:
    """Balanced accuracy of the best threshold, at least ½; NaN where a side is empty.

    Optimistic: the threshold is chosen on the records it is scored on.
    """
    if not len(members) or not len(others):
        return float("nan")
    fpr, tpr = roc(members, others)
    return float((1 + tpr - fpr).max() / 2)


def bootstrap_auc(
    scores_by_model: Sequence[tuple[Floats, Floats]], rounds: int, seed: int
) -> tuple[float, float]:
    """Interval that holds the AUC of all models' pooled scores with 95 % confidence.

    Each round draws as many models as there are, with replacement, then within each drawn model
    its members and its non-members; the interval is that of the middle 95 % of the rounds. Records
    of one model are not independent, so few models give a wide interval, as they should; a
    single one leaves out how models differ.

    Args:
        scores_by_model: for each target model, the scores of its members and of the others.
        rounds: how many draws.
        seed: of the draws.

    Returns:
        Both ends; NaN where a side is empty.

    Raises:
        ValueError: there is no model, or no round.
    """
    if not scores_by_model or rounds < 1:
        raise ValueError("bootstrap_auc: needs a model and a round")
    random = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        models = random.integers(len(scores_by_model), size=len(scores_by_model))
        drawn = [
            [random.choice(side, len(side)) for side in scores_by_model[model]] for model in models
        ]
        members, others = (np.concatenate(sides) for sides in zip(*drawn, strict=True))
        found.append(auc(members, others))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


# ---------------------------------------------------------------------------------------------
# What an output says of its record: logits (…, N, C) to one number a record (…, N), in float64.
# No posterior is formed where it would round to 0 or 1.


def logit_confidence(logits: Floats, y_N: Labels) -> NDArray[np.float64]:
    """Confidence φ = log p_y − log Σ_{c≠y} p_c of each record, higher = surer of the label.

    Carlini et al. (S&P 2022, arXiv 2112.03570). Finite for finite logits of two or more classes.

    Args:
        logits: (…, N, C), models and queries in front.
        y_N: classes.
    """
    z = logits.astype(np.float64)
    at_y_NC = np.arange(z.shape[-1]) == y_N[:, None]
    others = logsumexp(np.where(at_y_NC, -np.inf, z), axis=-1)
    phi: NDArray[np.float64] = z[..., np.arange(len(y_N)), y_N] - others
    return phi


def entropy(logits: Floats) -> NDArray[np.float64]:
    """Entropy −Σ_c p_c log p_c in nats of each record's posteriors; logits (…, N, C)."""
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    found: NDArray[np.float64] = -(np.exp(log_p) * log_p).sum(axis=-1)
    return found


def modified_entropy(logits: Floats, y_N: Labels) -> NDArray[np.float64]:
    """Entropy that knows the label: 0 where certain and right, large where certain and wrong.

        −(1 − p_y) log p_y − Σ_{c≠y} p_c log(1 − p_c)

    Song & Mittal (USENIX Security 2021, arXiv 2003.10595).

    Args:
        logits: (…, N, C), models and queries in front.
        y_N: classes.
    """
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    classes = np.arange(log_p.shape[-1])
    top = classes == log_p.argmax(axis=-1, keepdims=True)
    # 1 − p rounds to 0 for the largest p alone; there it is the sum of the others.
    rest = logsumexp(np.where(top, -np.inf, log_p), axis=-1, keepdims=True)
    log_not_p = np.where(top, rest, np.log1p(-np.where(top, 0.0, np.exp(log_p))))
    at_y_NC = classes == y_N[:, None]
    terms = np.where(at_y_NC, np.exp(log_not_p) * log_p, np.exp(log_p) * log_not_p)
    found: NDArray[np.float64] = -terms.sum(axis=-1)
    return found
