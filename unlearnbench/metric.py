"""Metrics: arrays in, floats out. NumPy only. Axes: N records, C classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
