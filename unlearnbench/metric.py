"""Metrics: arrays in, floats out. NumPy and SciPy only. Axes: N records, C classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, stdtrit

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


def low_outliers(accuracies_M: Floats) -> NDArray[np.bool_]:
    """Models (M,) whose accuracy is far below that of the others: a training that went wrong.

        0.6745 · (a_m − median) / MAD  <  −3.5   and   a_m < median − 0.05

    MAD is the median absolute deviation; 3.5 is the limit of Iglewicz & Hoaglin, "How to Detect and
    Handle Outliers" (1993). The second condition leaves out differences that are certain but small;
    of fewer than five models none is an outlier.
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


def rte(retrain_seconds: float, unlearn_seconds: float, beside: float = 0.0) -> float:
    """Run-time efficiency: seconds of retraining over those of unlearning; larger is better.

    Above 0, 1 = as long as retraining; Deep Unlearn (arXiv 2410.01276). It compares only times
    taken on one kind of device, under one load.

    Args:
        retrain_seconds: of the retraining.
        unlearn_seconds: of the method's own call.
        beside: what it takes besides: preparing while the original is trained, tuning.
    """
    seconds = unlearn_seconds + beside
    return retrain_seconds / seconds if seconds else float("nan")


# ---------------------------------------------------------------------------------------------
# How near an unlearned model is to the retrained one of its seed. Figures of both may be arrays,
# one entry a seed.


def gap(unlearned: Floats | float, retrained: Floats | float) -> Any:
    """Signed gap a_U − a_R of a figure, such as an accuracy: 0 = as retrained.

    In [−1, 1] for shares; above 0 where the unlearned model has more of it. Neither direction is
    the better one.
    """
    return np.subtract(unlearned, retrained)


def absolute_gap(unlearned: Floats | float, retrained: Floats | float) -> Any:
    """Absolute gap |a_U − a_R| of a figure: 0 = as retrained, lower is better.

    Its mean over seeds is above 0 even between two retrainings: hold it to that of those.
    """
    return np.abs(gap(unlearned, retrained))


def tug_of_war(
    unlearned: Sequence[Floats | float], retrained: Sequence[Floats | float]
) -> NDArray[np.float64]:
    """Tug of war ToW = Π over X ∈ {R, F, T} of (1 − |a_U(X) − a_R(X)|).

    In [0, 1], 1 = as retrained, higher is better. Defined where RetDev is not, with a_R(F) = 0.
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


def js_divergence(logits_NC: Floats, others_NC: Floats) -> NDArray[np.float64]:
    """Jensen–Shannon divergence (N,) of two models' posteriors on each record, in bits.

        ½ KL(p ‖ m) + ½ KL(q ‖ m),   m = (p + q) / 2

    In [0, 1], symmetric; 0 = the same posteriors, 1 = no class in common. Lin (IEEE Transactions
    on Information Theory 1991).
    """
    log_p, log_q = (log_softmax(z.astype(np.float64), axis=-1) for z in (logits_NC, others_NC))
    log_m = np.logaddexp(log_p, log_q) - np.log(2)
    sides = (np.exp(log) * (log - log_m) for log in (log_p, log_q))
    nats = np.sum([side.sum(axis=-1) for side in sides], axis=0) / 2
    found: NDArray[np.float64] = np.clip(nats / np.log(2), 0.0, 1.0)  # but for rounding inside
    return found


def zrf(logits_NC: Floats, others_NC: Floats) -> float:
    """Zero retrain forgetting 1 − mean JS(p_U, p) over the forget set, in [0, 1].

    1 = the unlearned model answers as the other one. That is a net of fresh random weights in
    Chundawat et al. (AAAI 2023, arXiv 2205.08096), where higher is called better; but retraining
    does not answer at random either, so hold it to the retrained model's own ZRF. NaN for no
    record.
    """
    if not len(logits_NC):
        return float("nan")
    return float(1 - js_divergence(logits_NC, others_NC).mean())


KLOM_MODELS, KLOM_BINS, KLOM_MARGIN = 50, 20, 100.0
"""Models a side below which KLOM is NaN; bins; the largest margin either way."""


def klom(from_MN: Floats, to_KN: Floats) -> NDArray[np.float64]:
    """KL divergence of margins (N,) in nats, KL(from ‖ to) over models, record by record.

        Σ_b P_b log(P_b / Q_b),   P_b = (1 + models of ``from`` in bin b) / (M + 20)

    From 0 up, 0 = alike; lower is better. Margins are log p_y − log Σ_{c≠y} p_c, clipped to ±100,
    in 20 equal bins over the range of both sides' margins of that record, its right end in the
    last one; one is added to each bin. It is no distance: KL(retrained ‖ unlearned) and
    KL(unlearned ‖ retrained) differ, so whoever calls this names the direction. Two samples of one
    law are above 0 too. After Georgiev et al., "Attribute-to-delete" (2024, arXiv 2410.23232).

    Args:
        from_MN: margins of M independently trained models on N records.
        to_KN: those of K others.

    Returns:
        NaN with fewer than 50 models on a side; 0 where all margins are the same.
    """
    sides = [np.clip(one.astype(np.float64), -KLOM_MARGIN, KLOM_MARGIN) for one in (from_MN, to_KN)]
    if min(map(len, sides)) < KLOM_MODELS:
        return np.full(from_MN.shape[1], np.nan)
    low_N = np.minimum(*(side.min(axis=0) for side in sides))
    width_N = np.maximum(*(side.max(axis=0) for side in sides)) - low_N
    records = np.arange(len(low_N))
    log_share = []
    for side in sides:
        place = KLOM_BINS * (side - low_N) / np.where(width_N > 0, width_N, 1)
        bin_MN = np.minimum(place.astype(np.int64), KLOM_BINS - 1)
        found = np.bincount(
            (records * KLOM_BINS + bin_MN).ravel(), minlength=len(low_N) * KLOM_BINS
        )
        log_share.append(np.log(found.reshape(-1, KLOM_BINS) + 1.0) - np.log(len(side) + KLOM_BINS))
    log_p, log_q = log_share
    apart = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    found_N: NDArray[np.float64] = np.where(width_N > 0, apart, 0.0)
    return found_N


def weight_distance(
    unlearned: Mapping[str, Floats], retrained: Mapping[str, Floats]
) -> dict[str, tuple[float, float]]:
    """Distance ‖θ_U − θ_R‖₂ of the parameters, of each layer and of all, and its share of ‖θ_R‖₂.

    From 0 up, 0 = the same weights; the share is NaN where θ_R is 0. Two retrainings from other
    initial weights are far apart, though nobody could tell their answers apart: hold it to theirs.

    Args:
        unlearned: arrays by name, ``layer.weight`` and ``layer.bias`` of one layer.
        retrained: the same of the retrained model, of the same shapes.

    Returns:
        (distance, share of the norm) by layer, and under ``""`` of all parameters.

    Raises:
        ValueError: the two have other names.
    """
    if unlearned.keys() != retrained.keys():
        wrong = min(unlearned.keys() ^ retrained.keys())
        raise ValueError(f"weight_distance: {wrong} is in one model alone")
    squares: dict[str, list[float]] = {}
    for name, theta_U in unlearned.items():
        theta_R = retrained[name].astype(np.float64)
        both = np.sum((theta_U - theta_R) ** 2), np.sum(theta_R**2)
        for layer in (name.rpartition(".")[0] or name, ""):
            so_far = squares.setdefault(layer, [0.0, 0.0])
            so_far[0] += float(both[0])
            so_far[1] += float(both[1])
    return {
        layer: (float(np.sqrt(d)), float(np.sqrt(d / norm)) if norm else float("nan"))
        for layer, (d, norm) in squares.items()
    }


def relearn_time(losses: Sequence[float], target: float) -> float:
    """Steps of finetuning on the forget set after which its loss is at most ``target``.

        k + (L_k − target) / (L_k − L_{k+1})      where L_{k+1} is the first at or below it

    From 0 up; 0 = it is there already. Fewer steps than the retrained model takes say that the
    model still knew. NaN if it is never reached, and where a loss on the way is not finite.
    Golatkar et al., "Eternal Sunshine" (CVPR 2020, arXiv 1911.04933), who count whole epochs.

    Args:
        losses: mean loss on the forget set after 0, 1, 2 … steps.
        target: that of the original, or a little above.
    """
    for step, loss in enumerate(losses):
        if not np.isfinite(loss):
            break
        if loss <= target:
            if step == 0:
                return 0.0
            before = losses[step - 1]
            return float(step - 1 + (before - target) / (before - loss))
    return float("nan")


# ---------------------------------------------------------------------------------------------
# What tells members from others.


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


# ---------------------------------------------------------------------------------------------
# How alike two images are.


def ssim(one: Floats, other: Floats) -> NDArray[np.float64]:
    """Structural similarity of images of pixels in [0, 1]: 1 = the same, 0 or less = unlike.

        mean over windows of  (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / (μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)

    Windows of 7×7 pixels of even weight, those that lie wholly inside; C₁ = .01², C₂ = .03². Wang
    et al., "Image Quality Assessment" (IEEE Transactions on Image Processing 2004).

    Args:
        one: images (…, H, W), at least 7×7; each channel is one.
        other: those they are compared with, of the same shape or broadcast to it.
    """
    x, y = (
        sliding_window_view(image.astype(np.float64), (7, 7), axis=(-2, -1))
        for image in np.broadcast_arrays(one, other)
    )
    mean_x, mean_y = (side.mean(axis=(-2, -1)) for side in (x, y))
    var_x, var_y = (side.var(axis=(-2, -1)) for side in (x, y))
    covariance = (x * y).mean(axis=(-2, -1)) - mean_x * mean_y
    C1, C2 = 0.01**2, 0.03**2
    alike = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    scale = (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
    found: NDArray[np.float64] = (alike / scale).mean(axis=(-2, -1))
    return found


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


# ---------------------------------------------------------------------------------------------
# What a search for hyper-parameters makes small.


def tuning_values(
    unlearned: tuple[float, float, float], wished: tuple[float, float, float], mia: float
) -> tuple[float, float, float, float]:
    """The four objectives of a search, each 0 at best.

        J = (|RA_U − RA|/3, |FA_U − FA|/3, |VA_U − VA|/3, Disc),   Disc = |2·MIA − 1|

    Deep Unlearn (arXiv 2410.01276), whose RA, FA, VA are the retrained model's.

    Args:
        unlearned: accuracies on retain, forget and validation rows.
        wished: those that it should have.
        mia: accuracy of the attack that tells forget rows from validation rows.
    """
    retain, forget, val = (abs(u - w) / 3 for u, w in zip(unlearned, wished, strict=True))
    return retain, forget, val, 1 - indisc(mia)


def tuning_score(values: Sequence[float]) -> float:
    """Euclidean norm of the objectives: what they are ranked by."""
    return float(np.linalg.norm(values))
