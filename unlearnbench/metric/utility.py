"""Metrics of utility and cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

Labels = NDArray[Any]
"""Classes (N,), of an integer type."""


def accuracy(logits_NC: Floats, y_N: Labels) -> float:
    """Share of records whose largest logit is that of the label, in [0, 1]; NaN for no record."""
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


def low_outliers(accuracies_M: Floats) -> NDArray[np.bool_]:
    """Models (M,) whose accuracy is far below that of the others: failed trainings.

        0.6745 · (a_m − median) / MAD  <  −3.5   and   a_m < median − 0.05

    MAD is the median absolute deviation; 3.5 is the limit of Iglewicz & Hoaglin, "How to Detect and
    Handle Outliers" (1993). The second condition excludes significant but small differences; among
    fewer than five models none is an outlier.
    """
    if len(accuracies_M) < 5:
        return np.zeros(len(accuracies_M), bool)
    below_M = np.median(accuracies_M) - accuracies_M
    deviation = np.median(np.abs(below_M))
    low_M: NDArray[np.bool_] = (0.6745 * below_M > 3.5 * deviation) & (below_M > 0.05)
    return low_M


def rmse(predicted_N: Floats, y_N: Floats) -> float:
    """Root mean squared error, in the units of the target; lower is better."""
    return float(np.sqrt(np.mean((predicted_N.astype(np.float64) - y_N) ** 2)))


def r2(predicted_N: Floats, y_N: Floats) -> float:
    """Share of the target's variance explained, at most 1; NaN for a constant target."""
    spread = np.sum((y_N - np.mean(y_N, dtype=np.float64)) ** 2)
    error = np.sum((predicted_N.astype(np.float64) - y_N) ** 2)
    return float(1 - error / spread) if spread else float("nan")


def retention(unlearned: float, retrained: float) -> float:
    """Unlearned over retrained accuracy, 1 = as retrained; NaN if the retrained accuracy is 0."""
    return unlearned / retrained if retrained else float("nan")


def ret_dev(unlearned: tuple[float, ...], retrained: tuple[float, ...]) -> float:
    """Retention deviation |RR − 1| + |FR − 1| + |TR − 1|, 0 = as retrained, lower is better.

    Arguments are the accuracies on retain, forget and test rows. The formula is reconstructed from
    the tables of Deep Unlearn (arXiv 2410.01276); it is not in its authors' code.
    """
    pairs = zip(unlearned, retrained, strict=True)
    return float(sum(abs(retention(u, r) - 1) for u, r in pairs))


def indisc(mia: float) -> float:
    """Indiscernibility 1 − |2·MIA − 1| of an attack accuracy; 1 = the attack guesses."""
    return 1 - abs(2 * mia - 1)


def rte(retrain_seconds: float, unlearn_seconds: float, extra_seconds: float = 0.0) -> float:
    """Run-time efficiency: seconds of retraining over those of unlearning; larger is better.

    Above 0, 1 = as long as retraining; Deep Unlearn (arXiv 2410.01276). Valid only for times
    measured on one kind of device, under one load.

    Args:
        retrain_seconds: seconds of the retraining.
        unlearn_seconds: seconds of the method's own call.
        extra_seconds: further seconds: the ``prepare`` step, or the search for settings.
    """
    seconds = unlearn_seconds + extra_seconds
    return retrain_seconds / seconds if seconds else float("nan")


def gap(unlearned: Floats | float, retrained: Floats | float) -> Any:
    """Signed gap a_U − a_R of a figure, such as an accuracy: 0 = as retrained.

    In [−1, 1] for shares; above 0 if the figure of the unlearned model is larger. Neither direction
    is better.
    """
    return np.subtract(unlearned, retrained)


def absolute_gap(unlearned: Floats | float, retrained: Floats | float) -> Any:
    """Absolute gap |a_U − a_R| of a figure: 0 = as retrained, lower is better.

    Its mean over seeds is above 0 even between two retrainings: compare with their gap.
    """
    return np.abs(gap(unlearned, retrained))


def tug_of_war(
    unlearned: Sequence[Floats | float], retrained: Sequence[Floats | float]
) -> NDArray[np.float64]:
    """Tug of war ToW = Π over X ∈ {R, F, T} of (1 − |a_U(X) − a_R(X)|).

    In [0, 1], 1 = as retrained, higher is better. Unlike RetDev, defined for a_R(F) = 0.
    Zhao et al., "What makes unlearning hard" (NeurIPS 2024, arXiv 2406.01257).

    Args:
        unlearned: accuracies on retain, forget and test rows.
        retrained: the same of the retrained model.
    """
    terms = [1 - absolute_gap(u, r) for u, r in zip(unlearned, retrained, strict=True)]
    product: NDArray[np.float64] = np.prod(terms, axis=0)
    return product


def tug_of_war_mia(
    unlearned: Sequence[Floats | float], retrained: Sequence[Floats | float]
) -> NDArray[np.float64]:
    """ToW-MIA: tug of war with an attack's accuracy on the forget set in place of a(F).

        (1 − |a_U(R) − a_R(R)|) (1 − |mia_U − mia_R|) (1 − |a_U(T) − a_R(T)|)

    In [0, 1], 1 = as retrained, higher is better. Zhao et al. (NeurIPS 2024, arXiv 2406.01257).

    Args:
        unlearned: accuracy on retain rows, accuracy of the attack, accuracy on test rows.
        retrained: the same of the retrained model.
    """
    return tug_of_war(unlearned, retrained)
