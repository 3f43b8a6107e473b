"""Metrics of membership inference."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, stdtrit

from unlearnbench.metric.utility import Floats, Labels


def auc(members: Floats, others: Floats) -> float:
    """Probability that a member's score exceeds a non-member's, ties counting half."""
    if not len(members) or not len(others):
        return float("nan")
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, side="left")
    not_above = np.searchsorted(ordered, members, side="right")
    return float((below + not_above).mean() / (2 * len(others)))


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
    return _tpr_at(roc(members, others), fpr)


def _tpr_at(curve: tuple[Floats, Floats], fpr: float) -> float:
    false, true = curve
    return float(true[np.searchsorted(false, fpr, side="right") - 1])


def log_roc(members: Floats, others: Floats, points: int) -> NDArray[np.float64]:
    """The ROC at false positive rates even on a log scale, for a plot of its low end.

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
    # The ends are exact rates, which rounding must not put below themselves.
    place = np.searchsorted(false, alpha * (1 + 1e-12), side="right") - 1
    return np.stack([alpha, true[place]], axis=1)


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
    return _best(roc(members, others))


def _best(curve: tuple[Floats, Floats]) -> float:
    false, true = curve
    return float((1 + true - false).max() / 2)


def threshold_figures(members: Floats, others: Floats) -> dict[str, float]:
    """What thresholds can do, from one ROC: that of millions of scores takes a while.

    Returns:
        ``auc``, ``bal_acc_best``, ``tpr_at_1pct`` and ``tpr_at_01pct``, as ``auc``,
        ``balanced_accuracy_max`` and ``tpr_at_fpr`` give them.

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
        Both ends; NaN where a side is empty. Rounds that draw only models without one are left out.

    Raises:
        ValueError: there is no model, or no round.
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
    found = []
    for _ in range(rounds):
        models = random.integers(len(scores_by_model), size=len(scores_by_model))
        inside, outside = (
            np.bincount(at[_drawn(random, side, models)], minlength=len(values))
            for at, side in zip(places, sides, strict=True)
        )
        below = np.cumsum(outside) - outside / 2
        pairs = inside.sum() * outside.sum()
        found.append((inside * below).sum() / pairs if pairs else float("nan"))
    low, high = np.nanquantile(found, [0.025, 0.975]) if np.isfinite(found).any() else [np.nan] * 2
    return float(low), float(high)


def _drawn(
    random: np.random.Generator, side: Sequence[Floats], models: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Places in one side's pooled records: as many as each drawn model has, with replacement."""
    sizes = np.array([len(scores) for scores in side])
    starts, each = (np.cumsum(sizes) - sizes)[models], sizes[models]
    drawn = random.random(each.sum()) * np.repeat(each, each)
    places: NDArray[np.int64] = np.repeat(starts, each) + drawn.astype(np.int64)
    return places


def paired_gap(ours: Floats, theirs: Floats) -> tuple[float, float, float, float]:
    """Mean difference of pairs, its 95 % interval, and the least that would have been seen.

    Student's t over pairs, here the AUC of one target model under two methods.

    Args:
        ours: values (M,).
        theirs: the values (M,) they are paired with; pairs with a NaN are left out.

    Returns:
        Mean; both ends of its interval; and the difference that a test at 5 % would find with a
        power of 80 %, (t_.975 + t_.8) s/√M. The last three are NaN below two pairs.
    """
    gap = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    gap = gap[np.isfinite(gap)]
    mean = float(gap.mean()) if len(gap) else float("nan")
    if len(gap) < 2:
        return mean, float("nan"), float("nan"), float("nan")
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    at_5, at_80 = (float(stdtrit(len(gap) - 1, q)) for q in (0.975, 0.8))
    half = float(at_5 * error)
    return mean, mean - half, mean + half, float((at_5 + at_80) * error)


def logit_confidence(logits: Floats, y_N: Labels) -> NDArray[np.float64]:
    """Confidence φ = log p_y − log Σ_{c≠y} p_c of each record, higher = surer of the label.

    Carlini et al. (S&P 2022, arXiv 2112.03570). Finite for finite logits of two or more classes.

    Args:
        logits: (…, N, C), models and queries in front.
        y_N: classes.
    """
    # By hand and classes first: SciPy's own logsumexp of many small rows takes five times as long.
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
