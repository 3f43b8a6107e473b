import numpy as np
import pytest
import torch

from unlearnbench.dataset import holdout, tabular

TRAIN = np.arange(30)


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(7, 3, (40, 5))


def test_training_rows_get_zero_mean_and_unit_variance(values):
    scaled = tabular.standardise(values, TRAIN)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[:30].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:30].std(0), 1, rtol=1e-6)
    assert abs(scaled[30:].mean(0)).max() > 1e-3


def test_test_rows_change_nothing(values):
    before = tabular.standardise(values, TRAIN)
    values[30:] = 1000
    np.testing.assert_array_equal(tabular.standardise(values, TRAIN)[:30], before[:30])


def test_a_constant_column_is_only_centred(values):
    values[:30, 2] = 4
    values[30:, 2] = 5
    scaled = tabular.standardise(values, TRAIN)[:, 2]
    assert scaled.tolist() == [0] * 30 + [1] * 10


def test_classes_stay_and_targets_are_standardised(values):
    x = tabular.standardise(values, TRAIN)
    classes = tabular.dataset(
        x, np.arange(40) % 2 == 0, parts=holdout.official(30, 40), n_classes=2
    )
    assert classes.y.dtype == torch.int64
    assert classes.y[:3].tolist() == [1, 0, 1]
    regression = tabular.dataset(x, np.arange(40) * 10, parts=holdout.official(30, 40), n_classes=0)
    assert regression.y.dtype == torch.float32
    assert regression.y[:30].mean().item() == pytest.approx(0, abs=1e-6)
    assert regression.y[:30].std(correction=0).item() == pytest.approx(1)
    assert regression.y[39] > regression.y[29] > 1


def test_a_fifth_is_held_out_in_the_published_way():
    train_rows, test_rows = holdout.parts(23_708)  # UTKFace: Deep Unlearn's figures
    assert len(test_rows) == 4_741
    permuted = np.random.default_rng(123).permutation(23_708)
    np.testing.assert_array_equal(test_rows, permuted[:4_741])
    np.testing.assert_array_equal(train_rows, permuted[4_741:])


def test_the_order_does_not_depend_on_numpys_version():
    train_rows, test_rows = holdout.parts(10)
    assert train_rows.tolist() == [0, 2, 1, 5, 6, 8, 3, 9]
    assert test_rows.tolist() == [7, 4]
