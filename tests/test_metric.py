"""Metrics against values computed by hand."""

import numpy as np
import pytest

from unlearnbench import metric

LOGITS = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [-1.0, 1.0]], np.float32)
LABELS = np.array([0, 1, 1, 0])


def test_accuracy() -> None:
    assert metric.accuracy(LOGITS, LABELS) == 0.5
    assert np.isnan(metric.accuracy(LOGITS[:0], LABELS[:0]))


def test_cross_entropy_is_stable() -> None:
    found = metric.cross_entropy(LOGITS, LABELS)
    assert found == pytest.approx(np.log1p(np.exp([-1.0, -3.0, 1.0, 2.0])))
    large = metric.cross_entropy(np.array([[1e4, 0.0]], np.float32), np.array([1]))
    assert large == pytest.approx([1e4])


def test_regression_errors() -> None:
    predicted, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0])
    assert metric.rmse(predicted, y) == pytest.approx(np.sqrt(4 / 3))
    assert metric.r2(predicted, y) == pytest.approx(1 - 4 / (26 / 3))
    assert np.isnan(metric.r2(predicted, np.ones(3)))


def test_ret_dev() -> None:
    same = (0.9, 0.8, 0.7)
    assert metric.ret_dev(same, same) == 0
    assert metric.ret_dev((0.9, 0.4, 0.77), same) == pytest.approx(0.5 + 0.1)
    assert np.isnan(metric.ret_dev((0.9, 0.1, 0.7), (0.9, 0.0, 0.7)))  # a forgotten class


@pytest.mark.parametrize(("mia", "expected"), [(0.5, 1.0), (1.0, 0.0), (0.0, 0.0), (0.6, 0.8)])
def test_indisc(mia: float, expected: float) -> None:
    assert metric.indisc(mia) == pytest.approx(expected)


def test_rte() -> None:
    assert metric.rte(10.0, 2.0) == 5.0
    assert metric.rte(3.0, 3.0) == 1.0
    assert np.isnan(metric.rte(3.0, 0.0))


def test_auc_counts_pairs() -> None:
    random = np.random.default_rng(0)
    members, others = random.integers(0, 5, 30) + 1.0, random.integers(0, 5, 40) * 1.0
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert metric.auc(members, others) == pytest.approx(np.mean(pairs))
    assert np.isnan(metric.auc(members, others[:0]))
