"""Metrics of membership inference."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, stdtrit

from unlearnbench.metric.utility import Floats, Labels


def auc(members: Floats, others: Floats) -> float:
    """Probability that the score of a member exceeds that of a non-member; ties count half."""
    if not len(members) or not len(others):
        return float("nan")
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, side="left")
    not_above = np.searchsorted(ordered, members, side="right")
    return float((below + not_above).mean() / (2 * len(others)))


def roc(members: Floats, others: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of the rules "score ≥ t", from (0, 0) to (1, 1).

    The first point has no positives; then one point for each distinct score t, descending.

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

    NaN if there are fewer than 1/fpr non-members, which is too few, or no member.

    Args:
        members: scores.
        others: scores of non-members.
        fpr: above 0, at most 1.
    """
    if not len(members) or len(others) < 1 / fpr:
        return float("nan")
    return _tpr_at(roc(members, others), fpr)


def _tpr_at(curve: tuple[Floats, Floats], fpr: float) -> float:
    false, true = curve
    return float(true[np.searchsorted(false, fpr, side="right") - 1])


def log_roc(members: Floats, others: Floats, points: int) -> NDArray[np.float64]:
    """The ROC at false positive rates with equal steps on a log scale, for plots of its low end.

    Args:
        members: scores.
        others: scores of non-members.
        points: 2 or more.

    Returns:
        Pairs (points, 2) of a rate α from 1/non-members to 1, and the true positive rate of the
        last ROC point whose false positive rate is at most α.
    """
    false, true = roc(members, others)
    alpha = np.geomspace(1 / len(others), 1, points)
    # The first and last α are exact rates; the factor prevents rounding below them.
    place = np.searchsorted(false, alpha * (1 + 1e-12), side="right") - 1
    return np.stack([alpha, true[place]], axis=1)


def balanced_accuracy(members: Floats, others: Floats, threshold: float) -> float:
    """Mean of the shares of both sides that "score > threshold" gets right; NaN if one is empty."""
    if not len(members) or not len(others):
        return float("nan")
    return float(np.mean(members > threshold) + np.mean(others <= threshold)) / 2


def balanced_accuracy_max(members: Floats, others: Floats) -> float:
    """Balanced accuracy of the best threshold, at least ½; NaN if a side is empty.

    Optimistic: the threshold is chosen on the records it is scored on.
    """
    if not len(members) or not len(others):
        return float("nan")
    return _best(roc(members, others))


def _best(curve: tuple[Floats, Floats]) -> float:
    false, true = curve
    return float((1 + true - false).max() / 2)


def threshold_figures(members: Floats, others: Floats) -> dict[str, float]:
    """Figures of thresholds from one ROC, which is slow to compute for millions of scores.

    Returns:
        ``auc``, ``bal_acc_best``, ``tpr_at_1pct`` and ``tpr_at_01pct``, with the values of ``auc``,
        ``balanced_accuracy_max`` and ``tpr_at_fpr``.

    Raises:
        ValueError: a side is empty, or a score is NaN.
    """
    curve, least = roc(members, others), 1 / len(others)
    return {
        "auc": auc(members, others),
        "bal_acc_best": _best(curve),
        "tpr_at_1pct": _tpr_at(curve, 0.01) if least <= 0.01 else float("nan"),
        "tpr_at_01pct": _tpr_at(curve, 0.001) if least <= 0.001 else float("nan"),
    }


def bootstrap_auc(
    scores_by_model: Sequence[tuple[Floats, Floats]], rounds: int, seed: int
) -> tuple[float, float]:
    """95 % confidence interval of the AUC of the pooled scores of all models.

    Each round draws models with replacement, as many as there are, then members and non-members of
    each drawn model; the interval covers the middle 95 % of the rounds. Records of one model are
    not independent, so few models give a wide interval, as required; the interval of a single
    model excludes the variation between models.

    Args:
        scores_by_model: for each target model, the scores of its members and of the others.
        rounds: number of draws.
        seed: seed of the draws.

    Returns:
        Both limits; NaN if a side is empty. Rounds whose models leave a side empty are excluded.

    Raises:
        ValueError: there are no models, or no rounds.
    """
    if not scores_by_model or rounds < 1:
        raise ValueError("bootstrap_auc: needs a model and a round")
    random = np.random.default_rng(seed)
    sides = [[np.asarray(pair[side], np.float64) for pair in scores_by_model] for side in (0, 1)]
    if any(sum(map(len, side)) == 0 for side in sides):
        return float("nan"), float("nan")
    pooled = np.concatenate([score for side in sides for score in side])
    values, place = np.unique(pooled, return_inverse=True)  # ranked once, drawn as weights
    places = np.split(place, [sum(map(len, sides[0]))])
    aucs = []
    for _ in range(rounds):
        models = random.integers(len(scores_by_model), size=len(scores_by_model))
        inside, outside = (
            np.bincount(at[_drawn(random, side, models)], minlength=len(values))
            for at, side in zip(places, sides, strict=True)
        )
        below = np.cumsum(outside) - outside / 2
        pairs = inside.sum() * outside.sum()
        aucs.append((inside * below).sum() / pairs if pairs else float("nan"))
    low, high = np.nanquantile(aucs, [0.025, 0.975]) if np.isfinite(aucs).any() else [np.nan] * 2
    return float(low), float(high)


def _drawn(
    random: np.random.Generator, side: Sequence[Floats], models: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Places in the pooled records: for each drawn model as many as it has, with replacement."""
    sizes = np.array([len(scores) for scores in side])
    starts, each = (np.cumsum(sizes) - sizes)[models], sizes[models]
    drawn = random.random(each.sum()) * np.repeat(each, each)
    places: NDArray[np.int64] = np.repeat(starts, each) + drawn.astype(np.int64)
    return places


def paired_gap(target: Floats, reference: Floats) -> tuple[float, float, float, float]:
    """Mean difference of pairs, its 95 % interval, and the least detectable difference.

    Student's t over pairs, here the AUC of one target model under two methods.

    Args:
        target: values (M,).
        reference: the paired values (M,); pairs with a NaN are excluded.

    Returns:
        Mean; both limits of its interval; and the difference that a test at 5 % detects with a
        power of 80 %, (t_.975 + t_.8) s/√M. The last three are NaN for fewer than two pairs.
    """
    gap = np.asarray(target, np.float64) - np.asarray(reference, np.float64)
    gap = gap[np.isfinite(gap)]
    mean = float(gap.mean()) if len(gap) else float("nan")
    if len(gap) < 2:
        return mean, float("nan"), float("nan"), float("nan")
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    at_5, at_80 = (float(stdtrit(len(gap) - 1, q)) for q in (0.975, 0.8))
    half = float(at_5 * error)
    return mean, mean - half, mean + half, float((at_5 + at_80) * error)


def logit_confidence(logits: Floats, y_N: Labels) -> NDArray[np.float64]:
    """Confidence φ = log p_y − log Σ_{c≠y} p_c of each record, higher = more confident in y.

    Carlini et al. (S&P 2022, arXiv 2112.03570). Finite for finite logits of two or more classes.

    Args:
        logits: (…, N, C), models and queries in front.
        y_N: classes.
    """
    # Explicit, with classes first: SciPy's logsumexp of many small rows takes five times as long.
    z = np.moveaxis(logits, -1, 0).astype(np.float64, order="C")
    own = y_N, ..., np.arange(len(y_N))
    z_y = z[own].reshape(len(y_N), -1).T.reshape(z.shape[1:])
    z[own] = -np.inf
    top = z.max(axis=0)
    z -= top
    phi: NDArray[np.float64] = z_y - top - np.log(np.exp(z, out=z).sum(axis=0))
    return phi


def entropy(logits: Floats) -> NDArray[np.float64]:
    """Entropy −Σ_c p_c log p_c in nats of each record's posteriors; logits (…, N, C)."""
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    nats: NDArray[np.float64] = -(np.exp(log_p) * log_p).sum(axis=-1)
    return nats


def modified_entropy(logits: Floats, y_N: Labels) -> NDArray[np.float64]:
    """Entropy given the label: 0 for certain and correct, large for certain and wrong outputs.

        −(1 − p_y) log p_y − Σ_{c≠y} p_c log(1 − p_c)

    Song & Mittal (USENIX Security 2021, arXiv 2003.10595).

    Args:
        logits: (…, N, C), models and queries in front.
        y_N: classes.
    """
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    classes = np.arange(log_p.shape[-1])
    top = classes == log_p.argmax(axis=-1, keepdims=True)
    # 1 − p can round to 0 only for the largest p; it is computed as the sum of the others.
    rest = logsumexp(np.where(top, -np.inf, log_p), axis=-1, keepdims=True)
    log_not_p = np.where(top, rest, np.log1p(-np.where(top, 0.0, np.exp(log_p))))
    at_y_NC = classes == y_N[:, None]
    terms = np.where(at_y_NC, np.exp(log_not_p) * log_p, np.exp(log_p) * log_not_p)
    nats: NDArray[np.float64] = -terms.sum(axis=-1)
    return nats
