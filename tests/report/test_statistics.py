"""Statistics of a report against values computed by hand, and a published example."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from unlearnbench.report.analysis import statistics

NAN = float("nan")


def test_mean_error_and_interval_by_hand() -> None:
    """Of 1, 2, 3: s = 1, n = 3; t_.975 and t_.8 of two degrees from a printed table."""
    values = np.array([[1.0, 2.0, 3.0], [3.0, NAN, 1.0], [5.0, NAN, NAN], [NAN] * 3])
    assert statistics.counted(values).tolist() == [3, 2, 1, 0]
    assert statistics.mean(values) == pytest.approx([2.0, 2.0, 5.0, NAN], nan_ok=True)
    assert statistics.standard_error(values) == pytest.approx(
        [1 / math.sqrt(3), 1.0, NAN, NAN], nan_ok=True
    )
    half = statistics.t_half(values)
    assert half[:2] == pytest.approx([4.303 / math.sqrt(3), 12.706], rel=1e-4)
    assert np.isnan(half[2:]).all()
    least = statistics.detectable(values)
    assert least[:2] == pytest.approx([(4.303 + 1.061) / math.sqrt(3), 12.706 + 1.376], rel=1e-3)
    assert np.isnan(least[2:]).all()


def test_detectable_is_found_four_times_in_five() -> None:
    """Of samples whose mean is what would be detected at their s, a test at 5 % finds 80 %."""
    random, n = np.random.default_rng(0), 10
    free = n - 1
    shift = (stats.t.ppf(0.975, free) + stats.t.ppf(0.8, free)) / math.sqrt(n)
    found = statistics.t_test(random.normal(shift, 1.0, (4000, n))) < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_p_is_students() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, (20, 7))
    expected = [stats.ttest_1samp(line, 0.0).pvalue for line in values]
    assert statistics.t_test(values) == pytest.approx(expected)
    with_gap = np.array([[0.4, NAN, 0.9, 0.1]])
    assert statistics.t_test(with_gap) == pytest.approx(
        [stats.ttest_1samp([0.4, 0.9, 0.1], 0.0).pvalue]
    )


def test_no_spread_is_no_test_but_of_zeros() -> None:
    values = np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [0.1, NAN, NAN], [0.0, NAN, NAN]])
    p = statistics.t_test(values)
    assert p[1] == 1.0
    assert np.isnan(p[[0, 2, 3]]).all()


def test_bootstrap_of_few_seeds_is_their_range() -> None:
    """The least mean of three draws is the least value, one time in 27, which is above 2.5 %."""
    values = np.array([[1.0, 5.0, 2.0], [4.0, NAN, 2.0], [7.0, NAN, NAN]])
    low, high = statistics.bootstrap(values)
    assert low == pytest.approx([1.0, 2.0, NAN], nan_ok=True)
    assert high == pytest.approx([5.0, 4.0, NAN], nan_ok=True)


def test_bootstrap_holds_the_mean_three_times_in_four_with_three_seeds() -> None:
    """What its docstring says; of Student's interval it is 95 in 100."""
    values = np.random.default_rng(1).normal(0.0, 1.0, (4000, 3))
    low, high = statistics.bootstrap(values)
    assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(0.75, abs=0.03)
    assert (np.abs(statistics.mean(values)) <= statistics.t_half(values)).mean() == pytest.approx(
        0.95, abs=0.015
    )


def test_bootstrap_of_many_seeds_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, (1, 400))
    low, high = statistics.bootstrap(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (high - low) / 2 == pytest.approx([half], rel=0.1)


def test_noise_floor_is_no_signed_mean() -> None:
    assert statistics.noise_floor(np.array([[3.0, -4.0], [0.5, NAN]])) == pytest.approx(
        [math.sqrt(12.5), 0.5]
    )


def test_holm_by_hand() -> None:
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1, and never below the one before."""
    p = np.array([0.01, 0.04, NAN, 0.03, 0.005])
    expected = [0.03, 0.06, NAN, 0.06, 0.02]
    assert statistics.holm(p) == pytest.approx(expected, nan_ok=True)
    assert statistics.holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])


def test_holm_keeps_the_family_wise_error() -> None:
    random = np.random.default_rng(0)
    wrong = [(statistics.holm(random.random(12)) < 0.05).any() for _ in range(4000)]
    assert np.mean(wrong) <= 0.06


def test_ranks_share_the_better_one_and_put_nothing_last() -> None:
    values = np.array([[0.2, 0.1, 0.2, NAN], [3.0, 2.0, 1.0, 0.0]])
    assert statistics.ranks(values, "min").tolist() == [[2, 1, 2, 4], [4, 3, 2, 1]]
    assert statistics.ranks(values, "average").tolist() == [[2.5, 1, 2.5, 4], [4, 3, 2, 1]]


def test_rank_intervals_by_hand() -> None:
    """One method is always first; two change places with the seed; one is in one block only."""
    steady = [[0.0, 0.0], [0.0, 0.0]]
    first, second = [[1.0, 4.0], [1.0, 4.0]], [[2.0, 3.0], [2.0, 3.0]]
    last = [[9.0, 9.0], [NAN, NAN]]
    values_BKS = np.array([steady, first, second, last]).transpose(1, 0, 2)
    there_BK = np.array([[True, True, True, True], [True, True, True, False]])
    low, high = statistics.rank_intervals(values_BKS, there_BK)
    assert low.tolist() == [1, 2, 2, 4]
    assert high.tolist() == [1, 3, 3, 4]
    alone = statistics.rank_intervals(values_BKS[..., :1], there_BK)
    assert np.isnan(alone).all()


DEMSAR = """
.763 .768 .771 .798  .599 .591 .590 .569  .954 .971 .968 .967  .628 .661 .654 .657
.882 .888 .886 .898  .936 .931 .916 .931  .661 .668 .609 .685  .583 .583 .563 .625
.775 .838 .866 .875  1 1 1 1              .940 .962 .965 .962  .619 .666 .614 .669
.972 .981 .9751 .975  .957 .978 .946 .970
"""
"""AUC of four classifiers on 14 data sets: Demšar (JMLR 2006), Table 6, whose ranks tell the third
and fourth of the last but one apart, which three digits do not."""


def test_friedman_and_nemenyi_as_demsar_has_them() -> None:
    values_BK = -np.array(DEMSAR.split(), float).reshape(14, 4)
    mean_K = statistics.ranks(values_BK, "average").mean(axis=0)
    assert mean_K == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    told = statistics.friedman(values_BK)
    assert told.critical == pytest.approx(1.25, abs=0.005)
    # His χ² of 9.28 is without a correction for ties.
    ties = [np.unique(line, return_counts=True)[1] for line in values_BK]
    share = 1 - sum((t**3 - t).sum() for t in ties) / (14 * 4 * 15)
    assert told.statistic * share == pytest.approx(9.28, abs=0.01)
    assert told.p == pytest.approx(stats.chi2.sf(told.statistic, 3))
    assert told.can_tell


def test_two_blocks_and_18_methods_can_tell_nothing() -> None:
    values_BK = np.arange(36.0).reshape(2, 18)
    told = statistics.friedman(values_BK)
    assert told.critical > 17
    assert not told.can_tell
    assert statistics.friedman(np.arange(40.0).reshape(20, 2)).can_tell


@pytest.mark.parametrize("shape", [(1, 5), (3, 2), (3, 1), (0, 4)])
def test_friedman_of_too_little_is_nothing(shape: tuple[int, int]) -> None:
    told = statistics.friedman(np.arange(math.prod(shape), dtype=float).reshape(shape))
    assert math.isnan(told.statistic)
    assert math.isnan(told.p)
    assert (told.blocks, told.methods) == shape


def test_friedman_of_equals_is_nothing() -> None:
    assert math.isnan(statistics.friedman(np.ones((4, 3))).p)


def test_normal_law() -> None:
    assert statistics.normal(0.95) == pytest.approx(1.959964)
    assert statistics.normal_p(np.array([1.959964, -1.959964, 0.0])) == pytest.approx(
        [0.05, 0.05, 1.0]
    )


def test_every_draw_is_the_same_again() -> None:
    values = np.random.default_rng(3).normal(size=(5, 6))
    for first, second in itertools.pairwise([statistics.bootstrap(values) for _ in range(2)]):
        assert np.array_equal(first, second)


def test_each_law_is_scipys() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(5, 7)).round(1)  # rounded: some are equal
    for line, half, least in zip(
        values, statistics.t_half(values), statistics.detectable(values), strict=True
    ):
        law = stats.t(6, scale=stats.sem(line))
        assert half == pytest.approx(law.interval(0.95)[1])
        assert least == pytest.approx(law.ppf(0.975) + law.ppf(0.8))
    theirs = stats.friedmanchisquare(*values.T)
    ours = statistics.friedman(values)
    assert (ours.statistic, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    for ties in ("min", "average"):
        np.testing.assert_array_equal(
            statistics.ranks(values, ties), stats.rankdata(values, ties, axis=-1)
        )
    assert statistics.normal(0.95) == pytest.approx(stats.norm.ppf(0.975))
    z = np.array([-3.0, 0.0, 0.5])
    np.testing.assert_allclose(statistics.normal_p(z), 2 * stats.norm.sf(abs(z)))


@pytest.mark.parametrize("methods", [2, 3, 10, 40])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_studentized_range_is_scipys(methods: int, level: float) -> None:
    expected = stats.studentized_range.ppf(level, methods, np.inf)
    assert statistics.studentized_range(level, methods) == pytest.approx(expected, abs=1e-8)


def test_the_bootstrap_is_scipys_but_for_its_draws() -> None:
    values = np.random.default_rng(2).normal(size=(1, 10))
    theirs = stats.bootstrap(
        (values[0],), np.mean, n_resamples=20_000, method="percentile", random_state=3
    )
    low, high = statistics.bootstrap(values)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    # An end of 1,000 draws is off by a sixteenth of the interval at most, in all but 1 of 1,000.
    assert low[0] == pytest.approx(theirs.confidence_interval.low, abs=width / 16)
    assert high[0] == pytest.approx(theirs.confidence_interval.high, abs=width / 16)
