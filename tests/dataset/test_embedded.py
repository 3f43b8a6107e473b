import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine

from unlearnbench.dataset import holdout

TABLES = {"breast_cancer": (569, 30, 2), "wine": (178, 13, 3), "diabetes": (442, 10, 0)}


@pytest.mark.parametrize("name", TABLES)
def test_a_table(load, name):
    n, features, n_classes = TABLES[name]
    data = load(name)
    assert data.x.shape == (n, features)
    assert data.kind == "tabular"
    assert data.n_classes == n_classes
    assert len(data.test_rows) == int(0.2 * n)
    train = data.x[data.train_rows]
    torch.testing.assert_close(train.mean(0), torch.zeros(features), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(features))
    if n_classes:
        assert data.y.dtype == torch.int64
        assert len(data.y[data.train_rows].unique()) == n_classes
    else:
        assert data.y.dtype == torch.float32
        assert data.y[data.train_rows].std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_labels_stay_with_their_rows(load):
    x, y = load_wine(return_X_y=True)
    data = load("wine")
    assert data.y.tolist() == y.tolist()
    assert data.x[:, 12].argmax() == x[:, 12].argmax()


def test_digits(load):
    data = load("digits")
    assert data.x.shape == (1797, 8, 8, 1)
    assert data.shape == (1, 8, 8)
    assert data.x.max() == 16
    assert data.augment is None
    pixels, y = load_digits(return_X_y=True)
    assert data.train_rows.tolist() == holdout.parts(len(y))[0].tolist()
    np.testing.assert_array_equal(data.x.numpy().reshape(-1, 64), pixels)
    assert data.y.tolist() == y.tolist()


def test_digits_are_normalised_over_the_training_part(load):
    data = load("digits")
    x = data.inputs(data.train_rows)
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-4


@pytest.mark.parametrize("name", ["digits", *TABLES])
def test_other_data_are_refused(load, name):
    with pytest.raises(ValueError, match=f"^dataset={name}: scikit-learn's copy has checksum"):
        load(name, {"fingerprint": "0" * 64})


def test_an_unknown_table_is_refused(load):
    with pytest.raises(ValueError, match=r"^dataset\.call\.name=iris: must be one of breast_c"):
        load("wine", {"call.name": "iris"})
