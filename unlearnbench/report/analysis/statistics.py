"""Tests and intervals of differences over seeds, and of ranks over blocks.

Axes: L lines of a table, S seeds, B blocks, K methods. NaN marks a missing seed.

Distributions are from ``scipy.special``: ``scipy.stats`` has the tests themselves, but its import
takes longer than all tables of a report. The unit tests compare each test with ``scipy.stats``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8
ROUNDS = 1000
"""Number of bootstrap draws."""

MIDDLE = (1 - LEVEL) / 2, (1 + LEVEL) / 2
"""Quantiles at the bounds of an interval."""


def counted(values_LS: Array) -> NDArray[np.int64]:
    """Number of seeds (L,) with a finite value."""
    n_L: NDArray[np.int64] = np.isfinite(values_LS).sum(axis=1)
    return n_L


def mean(values_LS: Array) -> Array:
    """Mean (L,) over seeds with a finite value; NaN without any."""
    n_L = counted(values_LS)
    mean_L: Array = np.nansum(values_LS, axis=1) / np.where(n_L, n_L, np.nan)
    return mean_L


def standard_error(values_LS: Array) -> Array:
    """Standard error s/√n (L,) of the mean over seeds; NaN below two."""
    n_L = counted(values_LS)
    squares_L = np.nansum((values_LS - mean(values_LS)[:, None]) ** 2, axis=1)
    enough_L = np.where(n_L > 1, n_L, np.nan)
    error_L: Array = np.sqrt(squares_L / (enough_L - 1) / enough_L)
    return error_L


def t_half(values_LS: Array) -> Array:
    """Half (L,) of the 95 % interval t_.975 s/√n of the mean; NaN below two seeds."""
    n_L = counted(values_LS)
    free_L = np.where(n_L > 1, n_L - 1, np.nan)
    half_L: Array = special.stdtrit(free_L, (1 + LEVEL) / 2) * standard_error(values_LS)
    return half_L


def detectable(values_LS: Array) -> Array:
    """Least mean (L,) that a test at 5 % detects with a power of 80 %, (t_.975 + t_.8) s/√n."""
    n_L = counted(values_LS)
    free_L = np.where(n_L > 1, n_L - 1, np.nan)
    at = special.stdtrit(free_L, (1 + LEVEL) / 2) + special.stdtrit(free_L, POWER)
    detectable_L: Array = at * standard_error(values_LS)
    return detectable_L


def t_test(values_LS: Array) -> Array:
    """Two-sided p (L,) of Student's test that the mean is 0.

    NaN below two seeds, and where all seeds have the same nonzero value, because the spread is 0.
    The result is 1 where all values are 0.
    """
    error_L, mean_L = standard_error(values_LS), mean(values_LS)
    n_L = counted(values_LS)
    # For equal values the error is not exactly 0: rounding of their mean remains.
    flat_L = error_L <= 1e-12 * np.abs(mean_L)
    t_L = np.abs(mean_L) / np.where(flat_L, np.nan, error_L)
    p_L = 2 * special.stdtr(np.where(n_L > 1, n_L - 1, np.nan), -t_L)
    result_L: Array = np.where(flat_L & (mean_L == 0) & (n_L > 1), 1.0, p_L)
    return result_L


def bootstrap(values_LS: Array) -> tuple[Array, Array]:
    """Bounds (L,) of the middle 95 % of the mean over seeds drawn with replacement; NaN below two.

    Percentiles of 1,000 draws. The interval is too narrow for few seeds: with three its coverage is
    75 %, not 95 %, whereas Student's interval has its nominal coverage for normal values.
    """
    n_L = counted(values_LS)
    low_L, high_L = np.full(len(n_L), np.nan), np.full(len(n_L), np.nan)
    for n in np.unique(n_L[n_L > 1]):
        chosen_L = n_L == n
        finite_LS = np.isfinite(values_LS[chosen_L])
        complete_Ln = values_LS[chosen_L][finite_LS].reshape(-1, n)
        means_LR = complete_Ln @ drawn(n).T / n
        low_L[chosen_L], high_L[chosen_L] = np.quantile(means_LR, MIDDLE, axis=1)
    return low_L, high_L


def drawn(seeds: int) -> NDArray[np.int64]:
    """Number of times (R, S) each of ``seeds`` seeds is drawn with replacement in each round."""
    weights_RS: NDArray[np.int64] = np.random.default_rng(0).multinomial(
        seeds, np.full(seeds, 1 / seeds), ROUNDS
    )
    return weights_RS


def noise_floor(differences_LS: Array) -> Array:
    """Root mean square (L,) over seeds of second_retrain − retrain.

    It measures the difference of two retrainings that differ only in their seed. The signed mean is
    not suitable: the second retrain of a seed is the first of the next, so all but two values
    cancel.
    """
    return np.sqrt(mean(differences_LS**2))


def holm(p_L: Array) -> Array:
    """p-values (L,) adjusted by Holm for the number of tests; NaN entries are not tests.

        max over j ≤ i of min(1, (m − j + 1) p_(j)),   p_(1) ≤ … ≤ p_(m)

    Holm (Scandinavian Journal of Statistics 1979).
    """
    adjusted_L = np.full(len(p_L), np.nan)
    tests = np.flatnonzero(np.isfinite(p_L))
    order = tests[np.argsort(p_L[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted_L[order] = np.minimum(np.maximum.accumulate(factors * p_L[order]), 1.0)
    return adjusted_L


def ranks(values_BK: Array, ties: Literal["min", "average"]) -> Array:
    """Ranks (…, K) of the values along the last axis, 1 = smallest; NaN ranks last.

    Values equal to twelve decimal places are ties: means of equal accuracies differ by rounding.

    Args:
        values_BK: values of any shape, methods on the last axis.
        ties: ``min``, the better rank for all tied values, or ``average``.
    """
    rounded = np.where(np.isnan(values_BK), np.inf, values_BK.round(12))
    table = pd.DataFrame(rounded.reshape(-1, rounded.shape[-1]))
    return table.rank(axis=1, method=ties).to_numpy().reshape(rounded.shape)


def rank_intervals(values_BKS: Array, has_rank_BK: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Bounds (K,) of the middle 95 % of the mean rank over blocks, seeds drawn with replacement.

    All methods and blocks share the same draw, so that a seed effect common to all of them
    cancels. 1,000 draws; NaN below two seeds.

    Args:
        values_BKS: lower is better; a method without a value ranks last.
        has_rank_BK: whether a method has a rank in a block.
    """
    methods, seeds = values_BKS.shape[1:]
    if seeds < 2:
        return np.full(methods, np.nan), np.full(methods, np.nan)
    weights_RS = drawn(seeds)
    finite_BKS = np.isfinite(values_BKS)
    totals_RBK = np.einsum("rs,bks->rbk", weights_RS, np.where(finite_BKS, values_BKS, 0.0))
    counts_RBK = np.einsum("rs,bks->rbk", weights_RS, finite_BKS)
    means_RBK = totals_RBK / np.where(counts_RBK, counts_RBK, np.nan)
    rank_RBK = np.where(has_rank_BK, ranks(means_RBK, "min"), 0.0)
    mean_RK = rank_RBK.sum(axis=1) / has_rank_BK.sum(axis=0)
    low_K, high_K = np.quantile(mean_RK, MIDDLE, axis=0)
    return low_K, high_K


@dataclass(frozen=True)
class Friedman:
    """Friedman's test of ranks over blocks, and the critical difference of two methods.

    Attributes:
        statistic: statistic of Friedman's test; NaN where it cannot be computed.
        p: its p-value; NaN where it cannot be computed.
        critical: Nemenyi's critical difference of mean ranks at 5 %.
        blocks: number of blocks.
        methods: number of methods.
    """

    statistic: float
    p: float
    critical: float
    blocks: int
    methods: int

    @property
    def can_tell(self) -> bool:
        """Whether any two methods can differ: mean ranks are at most k − 1 apart."""
        return self.critical < self.methods - 1


def friedman(values_BK: Array) -> Friedman:
    """Friedman's test of methods over blocks, and Nemenyi's critical difference.

        χ² = (k − 1) Σ_k (R_k − N (k + 1)/2)² / Σ_bk (r_bk − (k + 1)/2)²
        CD = q_.95(k, ∞) / √2 · √(k (k + 1) / 6N)

    for N blocks, k methods, ranks r in a block (ties share their mean), their sums R_k, and q the
    quantile of the studentized range. Conover (Practical Nonparametric Statistics, §5.8), Demšar
    (JMLR 2006).

    Args:
        values_BK: finite, lower is better.
    """
    blocks, methods = values_BK.shape
    if methods < 2 or blocks < 1:
        return Friedman(float("nan"), float("nan"), float("inf"), blocks, methods)
    q = studentized_range(LEVEL, methods) / np.sqrt(2)
    critical = float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))
    if methods < 3 or blocks < 2 or (np.ptp(values_BK, axis=1) == 0).all():
        return Friedman(float("nan"), float("nan"), critical, blocks, methods)
    apart_BK = ranks(values_BK, "average") - (methods + 1) / 2
    chi2 = (methods - 1) * (apart_BK.sum(axis=0) ** 2).sum() / (apart_BK**2).sum()
    return Friedman(
        float(chi2), float(special.chdtrc(methods - 1, chi2)), critical, blocks, methods
    )


def studentized_range(level: float, methods: int) -> float:
    """Quantile q of the range of ``methods`` independent standard normal values.

        P(range ≤ q) = k ∫ φ(z) (Φ(z) − Φ(z − q))^(k−1) dz

    z is the largest value. Accurate to ten places, by the trapezoidal rule and bisection.
    """
    z = np.linspace(-9.0, 9.0, 1801)
    density = methods * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    low, high = 0.0, 18.0
    for _ in range(60):
        q = (low + high) / 2
        below = density @ (special.ndtr(z) - special.ndtr(z - q)) ** (methods - 1)
        low, high = (q, high) if below < level else (low, q)
    return (low + high) / 2


def normal(level: float) -> float:
    """Half width of the central ``level`` of the normal distribution, in standard deviations."""
    return float(special.ndtri((1 + level) / 2))


def normal_p(z_L: Array) -> Array:
    """Two-sided p (L,) of a normal deviate."""
    p_L: Array = 2 * special.ndtr(-np.abs(z_L))
    return p_L
