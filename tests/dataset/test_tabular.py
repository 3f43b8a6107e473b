import numpy as np
import pytest
import torch

from unlearnbench.dataset import holdout, tabular


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(7, 3, (40, 5))


def test_training_rows_get_zero_mean_and_unit_variance(values):
    scaled = tabular.standardise(values, 30)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[:30].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:30].std(0), 1, rtol=1e-6)
    assert abs(scaled[30:].mean(0)).max() > 1e-3


def test_test_rows_change_nothing(values):
    before = tabular.standardise(values, 30)
    values[30:] = 1000
    np.testing.assert_array_equal(tabular.standardise(values, 30)[:30], before[:30])


def test_a_constant_column_is_only_centred(values):
    values[:30, 2] = 4
    values[30:, 2] = 5
    scaled = tabular.standardise(values, 30)[:, 2]
    assert scaled.tolist() == [0] * 30 + [1] * 10


def test_classes_stay_and_targets_are_standardised(values):
    x = tabular.standardise(values, 30)
    classes = tabular.dataset(x, np.arange(40) % 2 == 0, n_train=30, n_classes=2)
    assert classes.y.dtype == torch.int64
    assert classes.y[:3].tolist() == [1, 0, 1]
    regression = tabular.dataset(x, np.arange(40) * 10, n_train=30, n_classes=0)
    assert regression.y.dtype == torch.float32
    assert regression.y[:30].mean().item() == pytest.approx(0, abs=1e-6)
    assert regression.y[:30].std(correction=0).item() == pytest.approx(1)
    assert regression.y[39] > regression.y[29] > 1


def test_a_fifth_is_held_out_in_the_published_way():
    rows, n_train = holdout.order(23_708)  # UTKFace: Deep Unlearn's figures
    assert len(rows) - n_train == 4_741
    permuted = np.random.default_rng(123).permutation(23_708)
    np.testing.assert_array_equal(rows[n_train:], permuted[:4_741])
    np.testing.assert_array_equal(rows[:n_train], permuted[4_741:])


def test_the_order_does_not_depend_on_numpys_version():
    rows, n_train = holdout.order(10)
    assert n_train == 8
    assert rows.tolist() == [0, 2, 1, 5, 6, 8, 3, 9, 7, 4]
