"""Metrics against values computed by hand."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import ndtr, softmax
from scipy.stats import ttest_rel

from unlearnbench.metric import distance, membership, utility

LOGITS = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [-1.0, 1.0]], np.float32)
LABELS = np.array([0, 1, 1, 0])


def test_accuracy() -> None:
    assert utility.accuracy(LOGITS, LABELS) == 0.5
    assert np.isnan(utility.accuracy(LOGITS[:0], LABELS[:0]))


def test_cross_entropy_is_stable() -> None:
    found = utility.cross_entropy(LOGITS, LABELS)
    assert found == pytest.approx(np.log1p(np.exp([-1.0, -3.0, 1.0, 2.0])))
    large = utility.cross_entropy(np.array([[1e4, 0.0]], np.float32), np.array([1]))
    assert large == pytest.approx([1e4])


def test_regression_errors() -> None:
    predicted, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0])
    assert utility.rmse(predicted, y) == pytest.approx(np.sqrt(4 / 3))
    assert utility.r2(predicted, y) == pytest.approx(1 - 4 / (26 / 3))
    assert np.isnan(utility.r2(predicted, np.ones(3)))


def test_ret_dev() -> None:
    same = (0.9, 0.8, 0.7)
    assert utility.ret_dev(same, same) == 0
    assert utility.ret_dev((0.9, 0.4, 0.77), same) == pytest.approx(0.5 + 0.1)
    assert np.isnan(utility.ret_dev((0.9, 0.1, 0.7), (0.9, 0.0, 0.7)))  # a forgotten class


@pytest.mark.parametrize(("mia", "expected"), [(0.5, 1.0), (1.0, 0.0), (0.0, 0.0), (0.6, 0.8)])
def test_indisc(mia: float, expected: float) -> None:
    assert utility.indisc(mia) == pytest.approx(expected)


def test_rte() -> None:
    assert utility.rte(10.0, 2.0) == 5.0
    assert utility.rte(3.0, 3.0) == 1.0
    assert np.isnan(utility.rte(3.0, 0.0))


def test_auc_counts_pairs() -> None:
    random = np.random.default_rng(0)
    members, others = random.integers(0, 5, 30) + 1.0, random.integers(0, 5, 40) * 1.0
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert membership.auc(members, others) == pytest.approx(np.mean(pairs))
    assert np.isnan(membership.auc(members, others[:0]))


def tied(seed: int = 0, n: int = 150) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of members and others from a dozen distinct values: many ties, on both sides."""
    random = np.random.default_rng(seed)
    return random.binomial(11, 0.55, n) * 1.0, random.binomial(11, 0.45, n + 30) * 1.0


def rates(members: Any, others: Any) -> list[tuple[float, float]]:
    """(FPR, TPR) of "score ≥ t" for every t that makes a difference, by counting."""
    thresholds = sorted({*members, *others, np.inf}, reverse=True)
    return [
        (sum(o >= t for o in others) / len(others), sum(m >= t for m in members) / len(members))
        for t in thresholds
    ]


def test_auc_of_two_gaussians() -> None:
    """N(d, 1) against N(0, 1): Φ(d/√2). The AUC's standard error is below √(A(1−A)/n)."""
    random, n = np.random.default_rng(0), 20_000
    for d in (0.0, 0.5, 2.0):
        exact = ndtr(d / np.sqrt(2))
        found = membership.auc(random.normal(d, 1, n), random.normal(0, 1, n))
        assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / n)


def test_roc_has_a_point_for_each_distinct_score() -> None:
    members, others = tied()
    fpr, tpr = membership.roc(members, others)
    assert list(zip(fpr, tpr, strict=True)) == rates(members, others)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(membership.auc(members, others))


def test_roc_refuses_what_has_no_curve() -> None:
    with pytest.raises(ValueError, match="no record"):
        membership.roc(np.ones(3), np.ones(0))
    with pytest.raises(ValueError, match="NaN"):
        membership.roc(np.array([np.nan]), np.ones(3))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.37, 1.0])
def test_tpr_at_fpr_against_all_thresholds(alpha: float) -> None:
    for seed in range(10):
        members, others = tied(seed)
        expected = max(true for false, true in rates(members, others) if false <= alpha)
        assert membership.tpr_at_fpr(members, others, alpha) == expected


def test_tpr_at_fpr_counts_to_the_record() -> None:
    """Of 100 non-members one may be taken for a member, not two; of 99 none, so nobody can say."""
    others = np.arange(100.0)
    assert membership.tpr_at_fpr(np.array([99.5, 98.5, 98.0, 97.5]), others, 0.01) == 0.5
    assert np.isnan(membership.tpr_at_fpr(np.array([99.5]), others[:99], 0.01))
    assert np.isnan(membership.tpr_at_fpr(others[:0], others, 0.01))


@pytest.mark.parametrize("ties", [True, False])
def test_log_roc_is_the_rate_at_each_of_its_points(ties: bool) -> None:
    for seed, points in ((0, 2), (1, 7), (2, 100)):
        random = np.random.default_rng(seed)
        members, others = tied(seed) if ties else (random.normal(1, 1, 90), random.normal(0, 1, 49))
        curve = membership.log_roc(members, others, points)
        assert curve.shape == (points, 2)
        alpha, tpr = curve.T
        np.testing.assert_allclose(np.diff(np.log(alpha)), np.log(len(others)) / (points - 1))
        # 1/n comes out of a logarithm, where it may round below itself.
        alpha = alpha * (1 + 1e-12)
        expected = [max(t for f, t in rates(members, others) if f <= a) for a in alpha]
        assert tpr.tolist() == expected
        assert tpr.tolist() == [membership.tpr_at_fpr(members, others, a) for a in alpha]
        assert (curve[0, 0], curve[-1].tolist()) == (pytest.approx(1 / len(others)), [1, 1])


def test_balanced_accuracy_against_all_thresholds() -> None:
    for seed in range(10):
        members, others = tied(seed)
        by_hand = [
            (sum(m > t for m in members) / len(members) + sum(o <= t for o in others) / len(others))
            / 2
            for t in (-1.0, *np.arange(12.0))
        ]
        found = [membership.balanced_accuracy(members, others, t) for t in (-1.0, *np.arange(12.0))]
        assert found == pytest.approx(by_hand)
        assert membership.balanced_accuracy_max(members, others) == pytest.approx(max(by_hand))


def test_balanced_accuracy_limits() -> None:
    low, high = np.zeros(3), np.ones(5)
    assert membership.balanced_accuracy(high, low, 0.5) == 1
    assert membership.balanced_accuracy(high, low, 1.0) == 0.5  # the rule is strict
    assert membership.balanced_accuracy_max(high, low) == 1
    assert membership.balanced_accuracy_max(low, high) == 0.5
    assert np.isnan(membership.balanced_accuracy(high, low[:0], 0.5))
    assert np.isnan(membership.balanced_accuracy_max(high[:0], low))


def drawn(shape: tuple[int, ...] = (3, 2, 40, 7)) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    return random.normal(0, 3, shape).astype(np.float32), random.integers(0, shape[-1], shape[-2])


def test_confidence_is_the_log_odds_of_the_label() -> None:
    logits, y = drawn()
    p = softmax(logits.astype(np.float64), axis=-1)[..., np.arange(40), y]
    assert membership.logit_confidence(logits, y) == pytest.approx(np.log(p / (1 - p)), rel=1e-9)
    losses = utility.cross_entropy(logits[0, 0], y)
    assert membership.logit_confidence(logits, y)[0, 0] == pytest.approx(-np.log(np.expm1(losses)))


def test_confidence_tells_the_sure_apart_where_losses_cannot() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [100.0, 0.0, 0.0]], np.float32)
    assert (utility.cross_entropy(logits, np.array([0, 0])) == 0).all()
    assert membership.logit_confidence(logits, np.array([0, 0])) == pytest.approx(
        [1e4, 100 - np.log(2)]
    )
    assert membership.logit_confidence(logits, np.array([2, 1])) == pytest.approx([-2e4, -100])


def test_entropies_against_their_formulas() -> None:
    logits, y = drawn()
    p = softmax(logits.astype(np.float64), axis=-1)
    assert membership.entropy(logits) == pytest.approx(-(p * np.log(p)).sum(-1))
    at_y = np.arange(7) == y[:, None]
    terms = np.where(at_y, (1 - p) * np.log(p), p * np.log(1 - p))
    assert membership.modified_entropy(logits, y) == pytest.approx(-terms.sum(-1), rel=1e-9)


def test_entropies_at_their_ends() -> None:
    certain = np.array([[1e4, -1e4, -1e4], [1e4, -1e4, -1e4]], np.float32)
    assert membership.entropy(certain) == pytest.approx([0, 0])
    right, wrong = membership.modified_entropy(certain, np.array([0, 1]))
    assert right == 0
    assert wrong == pytest.approx(4e4 - np.log(2), rel=1e-9)  # −log p_y − log(1 − p_0)
    flat = np.zeros((2, 5), np.float32)
    assert membership.entropy(flat) == pytest.approx(np.log(5))
    uniform = -0.8 * (np.log(0.2) + np.log(0.8))  # −(1 − p) log p and 4 times −p log(1 − p)
    assert membership.modified_entropy(flat, np.array([0, 3])) == pytest.approx(uniform)


def test_modified_entropy_of_two_classes_is_of_the_label_alone() -> None:
    logits, y = drawn((1, 1, 40, 2))
    p = softmax(logits.astype(np.float64), axis=-1)[0, 0, np.arange(40), y]
    found = membership.modified_entropy(logits, y)[0, 0]
    assert found == pytest.approx(-2 * (1 - p) * np.log(p), rel=1e-9)


def test_a_record_does_not_depend_on_its_batch() -> None:
    logits, y = drawn()
    together = (
        membership.logit_confidence(logits, y),
        membership.entropy(logits),
        membership.modified_entropy(logits, y),
    )
    for n in range(40):
        x, label = logits[1, 1, n : n + 1], y[n : n + 1]
        alone = (
            membership.logit_confidence(x, label),
            membership.entropy(x),
            membership.modified_entropy(x, label),
        )
        assert [values[1, 1, n] for values in together] == [value[0] for value in alone]


def audits(n_models: int, spread: float, seed: int, n: int = 30) -> list[Any]:
    """Models that leak differently: members N(d_m, 1), d_m ~ N(1, spread), others N(0, 1)."""
    random = np.random.default_rng(seed)
    shifts = random.normal(1.0, spread, n_models)
    return [(random.normal(shift, 1, n), random.normal(0, 1, n)) for shift in shifts]


def test_bootstrap_covers() -> None:
    """Members of all models together are N(1, 1 + spread²): the AUC is Φ(1/√(2 + spread²))."""
    exact = ndtr(1 / np.sqrt(2 + 0.5**2))
    intervals = [
        membership.bootstrap_auc(audits(16, 0.5, s), rounds=100, seed=s) for s in range(60)
    ]
    covered = np.mean([low <= exact <= high for low, high in intervals])
    assert covered >= 0.83  # 0.95 less four standard errors; resampling records alone fails


def test_bootstrap_resamples_models_first() -> None:
    """As scores of one model they give a narrower interval than as those of models that differ."""
    scores = audits(8, 1.0, 0, n=200)
    low, high = membership.bootstrap_auc(scores, rounds=200, seed=0)
    as_one = [tuple(np.concatenate(side) for side in zip(*scores, strict=True))]
    one_low, one_high = membership.bootstrap_auc(as_one, rounds=200, seed=0)  # type: ignore[arg-type]
    assert high - low > 3 * (one_high - one_low)
    members, others = as_one[0]
    assert low < membership.auc(members, others) < high


def test_bootstrap_follows_its_seed() -> None:
    scores = audits(4, 0.5, 0)
    first = membership.bootstrap_auc(scores, rounds=50, seed=3)
    assert first == membership.bootstrap_auc(scores, rounds=50, seed=3)
    assert first != membership.bootstrap_auc(scores, rounds=50, seed=4)


def test_bootstrap_of_too_little() -> None:
    assert np.isnan(membership.bootstrap_auc([(np.ones(3), np.ones(0))], rounds=5, seed=0)).all()
    with pytest.raises(ValueError, match="needs a model"):
        membership.bootstrap_auc([], rounds=5, seed=0)


def by_loop(scores: list[Any], rounds: int, seed: int) -> NDArray[np.float64]:
    """The AUC of each round: models, then records of either side within each, as it is said."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        sides: tuple[list[Any], list[Any]] = [], []
        for m in random.integers(len(scores), size=len(scores)):
            for side, pooled in zip(scores[m], sides, strict=True):
                pooled.append(random.choice(side, len(side)))
        found.append(membership.auc(*(np.concatenate(pooled) for pooled in sides)))
    return np.array(found)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("n_models", [1, 6])
def test_bootstrap_draws_as_a_plain_loop_does(n_models: int, ties: bool) -> None:
    """Ends from 1,500 rounds have a standard error of .07 of the rounds' deviation."""
    scores = audits(n_models, 0.5, 1, n=25)
    scores[0] = scores[0][0][:11], scores[0][1][:40]  # sides and models of other sizes
    if ties:
        scores = [tuple(np.round(side) for side in pair) for pair in scores]
    rounds = by_loop(scores, 1500, seed=0)
    ends = membership.bootstrap_auc(scores, rounds=1500, seed=1)
    np.testing.assert_allclose(ends, np.quantile(rounds, [0.025, 0.975]), atol=0.35 * rounds.std())


def test_bootstrap_of_what_cannot_vary() -> None:
    """Ties count half, a model that has only one side counts on it, and order does not matter."""
    same = [(np.ones(5), np.ones(7))] * 3
    assert membership.bootstrap_auc(same, rounds=50, seed=0) == (0.5, 0.5)
    apart = [(np.array([2.0, 3.0]), np.zeros(4)), (np.full(3, 5.0), np.zeros(0))]
    assert membership.bootstrap_auc(apart, rounds=50, seed=0) == (1, 1)
    shuffled = [(m[::-1], o[::-1]) for m, o in apart]
    assert membership.bootstrap_auc(shuffled, rounds=50, seed=0) == (1, 1)
    half = [(np.array([1.0]), np.array([0.0, 1.0, 1.0, 2.0]))]
    low, high = membership.bootstrap_auc(half, rounds=2000, seed=0)
    assert (low, high) == (
        0.125,
        0.875,
    )  # of four others ¼ below and ½ the same, mean ½, by eighths


def test_paired_gap_is_students_interval() -> None:
    random = np.random.default_rng(0)
    for n in (2, 3, 8, 40):
        ours, theirs = random.normal(0.7, 0.1, n), random.normal(0.6, 0.1, n)
        mean, low, high, _ = membership.paired_gap(ours, theirs)
        assert mean == pytest.approx((ours - theirs).mean())
        interval = ttest_rel(ours, theirs).confidence_interval(0.95)
        assert (low, high) == pytest.approx((interval.low, interval.high))


def test_paired_gap_leaves_out_pairs_with_a_nan() -> None:
    ours, theirs = np.array([0.5, 0.7, np.nan, 0.9, 0.8]), np.array([0.4, 0.5, 0.5, 0.6, np.nan])
    told = membership.paired_gap(ours, theirs)
    assert told == membership.paired_gap(ours[[0, 1, 3]], theirs[[0, 1, 3]])
    assert np.isfinite(told).all()
    assert np.isnan(membership.paired_gap(ours[:1], theirs[:1])[1:]).all()
    assert membership.paired_gap(ours[:1], theirs[:1])[0] == ours[0] - theirs[0]
    assert np.isnan(membership.paired_gap(ours[:0], theirs[:0])).all()
    assert membership.paired_gap(ours[:2], ours[:2]) == (0, 0, 0, 0)


@pytest.mark.parametrize("pairs", [8, 30])
def test_the_detectable_difference_is_detected_in_four_of_five_tests(pairs: int) -> None:
    """With the true deviation known: told from a sample it is itself uncertain."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (4000, pairs))
    exact = (noise[0] - noise[0].mean()) / noise[0].std(ddof=1)
    *_, detectable = membership.paired_gap(exact, np.zeros(pairs))
    ends = np.array(
        [membership.paired_gap(one + detectable, np.zeros(pairs))[1:3] for one in noise]
    )
    assert np.mean(ends[:, 0] > 0) == pytest.approx(0.8, abs=0.04)
    none = np.array([membership.paired_gap(one, np.zeros(pairs))[1:3] for one in noise])
    assert np.mean((none[:, 0] > 0) | (none[:, 1] < 0)) == pytest.approx(0.05, abs=0.012)


def test_ssim_of_flat_images_is_that_of_their_means() -> None:
    one, other = np.full((8, 9), 0.2), np.full((8, 9), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert distance.ssim(one, other) == pytest.approx(expected)
    assert distance.ssim(one, one) == pytest.approx(1)


def test_ssim_of_one_window_by_hand() -> None:
    """Half dark, half light, against its negative: the covariance is minus the variance."""
    x = np.zeros((7, 7))
    x[:, :3] = 1
    m, v = 3 / 7, 3 / 7 * 4 / 7
    luminance = (2 * m * (1 - m) + 1e-4) / (m**2 + (1 - m) ** 2 + 1e-4)
    assert distance.ssim(x, 1 - x) == pytest.approx(luminance * (-2 * v + 9e-4) / (2 * v + 9e-4))


def test_ssim_is_symmetric_and_broadcast_over_leading_axes() -> None:
    random = np.random.default_rng(0)
    x, y = random.random((3, 2, 10, 9)), random.random((2, 10, 9))
    found = distance.ssim(x, y)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found, distance.ssim(y, x))
    assert found[1, 1] == pytest.approx(distance.ssim(x[1, 1], y[1]))
    assert (np.abs(found) <= 1).all()


def test_gaps_are_signed_and_absolute() -> None:
    assert utility.gap(0.7, 0.9) == pytest.approx(-0.2)
    assert utility.absolute_gap(0.7, 0.9) == pytest.approx(0.2)
    seeds = np.array([0.5, 0.9])
    assert utility.gap(seeds, np.array([0.6, 0.8])) == pytest.approx([-0.1, 0.1])


def test_rte_with_what_was_done_before() -> None:
    assert utility.rte(10.0, 2.0, 3.0) == 2.0
    assert np.isnan(utility.rte(10.0, 0.0, 0.0))


def test_tug_of_war() -> None:
    """(1 − .1)(1 − .5)(1 − .2) = .36, whichever side is higher; 1 = as retrained."""
    retrained = (0.9, 0.5, 0.6)
    assert utility.tug_of_war((0.8, 1.0, 0.8), retrained) == pytest.approx(0.36)
    assert utility.tug_of_war((1.0, 0.0, 0.4), retrained) == pytest.approx(0.36)
    assert utility.tug_of_war(retrained, retrained) == 1
    assert utility.tug_of_war((0.9, 0.3, 0.6), (0.9, 0.0, 0.6)) == pytest.approx(0.7)  # no RetDev
    assert utility.tug_of_war_mia((0.8, 0.75, 0.6), (0.9, 0.5, 0.6)) == pytest.approx(0.675)
    over_seeds = utility.tug_of_war([np.array([0.8, 0.9])] * 3, [np.array([0.9, 0.9])] * 3)
    assert over_seeds == pytest.approx([0.729, 1.0])


def test_js_divergence_by_hand() -> None:
    """Of (½, ½) and (1, 0), m = (¾, ¼): ½ (½ log ½/¾ + ½ log ½/¼) + ½ log 1/¾ = .3113 bits."""
    even, sure = np.zeros((1, 2)), np.array([[800.0, 0.0]])
    assert distance.js_divergence(even, sure) == pytest.approx([0.311278], abs=1e-6)
    assert distance.js_divergence(sure, even) == pytest.approx([0.311278], abs=1e-6)
    assert distance.js_divergence(sure, -sure) == pytest.approx([1.0])
    assert distance.js_divergence(sure + 7, sure) == pytest.approx([0.0])


def test_js_divergence_is_scipys() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(0, 4, (2, 50, 7)).astype(np.float32)
    expected = jensenshannon(softmax(one, 1), softmax(other, 1), base=2, axis=1) ** 2
    found = distance.js_divergence(one, other)
    assert found == pytest.approx(expected, abs=1e-6)
    assert ((found >= 0) & (found <= 1)).all()


def test_zrf() -> None:
    even, sure = np.zeros((2, 2)), np.array([[800.0, 0.0], [0.0, 0.0]])
    assert distance.zrf(even, sure) == pytest.approx(1 - 0.311278 / 2)
    assert distance.zrf(sure, sure) == 1
    assert np.isnan(distance.zrf(even[:0], sure[:0]))


def test_klom_by_hand() -> None:
    """50 models at 0 and 50 at 1: bins 0 and 19, one added to each of 20, of 70 in all."""
    low, high = np.zeros((50, 1)), np.ones((50, 1))
    assert distance.klom(low, high) == pytest.approx([50 / 70 * np.log(51)])
    assert distance.klom(low, low) == [0]


def test_klom_has_a_direction() -> None:
    """From a half at each end to a tenth at one: the two directions differ."""
    ends, end = np.zeros((60, 1)), np.zeros((60, 1))
    ends[:30], end[:6] = 1, 1
    p, q = (np.array([60 - k + 1, k + 1] + [1] * 18) / 80 for k in (30, 6))
    there, back = (p * np.log(p / q)).sum(), (q * np.log(q / p)).sum()
    assert distance.klom(ends, end) == pytest.approx([there])
    assert distance.klom(end, ends) == pytest.approx([back])
    assert abs(there - back) > 0.01


def test_klom_clips_keeps_the_right_end_and_takes_each_record_for_itself() -> None:
    near, far = np.zeros((50, 2)), np.zeros((50, 2))
    far[:, 0] = 100
    found = distance.klom(near, far)
    assert found == pytest.approx([50 / 70 * np.log(51), 0.0])
    spread, infinite = far.copy(), far.copy()
    spread[:25, 0] = infinite[:25, 0] = 90
    infinite[25:, 0] = 1e9
    assert distance.klom(near, infinite) == pytest.approx(distance.klom(near, spread))
    assert distance.klom(near, spread)[0] != pytest.approx(found[0])
    assert distance.klom(1000 + near, 1000 + near[:, ::-1]) == pytest.approx([0.0, 0.0])


def test_klom_needs_fifty_models_a_side() -> None:
    enough, few = np.zeros((50, 3)), np.zeros((49, 3))
    assert np.isnan(distance.klom(enough, few)).all()
    assert np.isnan(distance.klom(few, enough)).all()
    assert distance.klom(enough, enough).tolist() == [0, 0, 0]


def test_weight_distance_by_layer() -> None:
    """Layer a: 3 and 4 off a norm of 10; layer b: as it was; together 5 of √(100 + 44)."""
    retrained = {"a.weight": np.array([[6.0]]), "a.bias": np.array([8.0]), "b": np.full(11, 2.0)}
    unlearned = {"a.weight": np.array([[9.0]]), "a.bias": np.array([4.0]), "b": np.full(11, 2.0)}
    assert distance.weight_distance(unlearned, retrained) == {
        "a": (5.0, 0.5),
        "b": (0.0, 0.0),
        "": (5.0, pytest.approx(5 / 12)),
    }
    assert np.isnan(distance.weight_distance({"a": np.ones(1)}, {"a": np.zeros(1)})["a"][1])
    with pytest.raises(ValueError, match="a is in one"):
        distance.weight_distance({"a": np.ones(1)}, {})


def test_relearn_time_is_between_steps() -> None:
    """From 4 to 1 in a step, 2 is two thirds of the way."""
    assert distance.relearn_time([5.0, 4.0, 1.0, 0.5], 2.0) == pytest.approx(1 + 2 / 3)
    assert distance.relearn_time([5.0, 4.0, 1.0], 1.0) == 2
    assert distance.relearn_time([0.3, 9.0], 0.3) == 0
    assert np.isnan(distance.relearn_time([5.0, 4.0], 2.0))
    assert np.isnan(distance.relearn_time([5.0, np.inf, 1.0], 2.0))


@pytest.mark.tried("one of 64 trainings at 37 % where the others are at 97 %", "is an outlier")
def test_a_training_that_went_wrong_is_an_outlier() -> None:
    accuracies_M = np.random.default_rng(0).normal(0.97, 0.01, 64)
    assert not utility.low_outliers(accuracies_M).any()
    accuracies_M[43] = 0.374
    assert np.flatnonzero(utility.low_outliers(accuracies_M)).tolist() == [43]
    # Certain but small, or high: none. Equal accuracies have no deviation.
    assert not utility.low_outliers(np.array([0.9, 0.9, 0.9, 0.9, 0.88])).any()
    assert not utility.low_outliers(np.array([0.5, 0.5, 0.5, 0.5, 0.99])).any()
    assert utility.low_outliers(np.array([0.9, 0.9, 0.9, 0.9, 0.5])).tolist() == [False] * 4 + [
        True
    ]
