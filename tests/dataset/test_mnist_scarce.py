"""MNIST with few images of a class: which rows are left."""

import numpy as np
import pytest
import torch
from dataset.test_mnist import make

from unlearnbench.dataset.mnist import mnist
from unlearnbench.dataset.mnist_scarce import mnist_scarce

HOW = {"size": 28, "channels": 3, "mean": [0.5], "std": [0.5], "augment": "none"}


def test_the_first_rows_of_the_class_and_all_others_are_left(tmp_path):
    (_, y_train, _, _), md5 = make(tmp_path / "MNIST/raw")
    given = {**HOW, "root": str(tmp_path), "fingerprint": md5}
    whole, data = mnist(name="mnist", **given), mnist_scarce(scarce=7, rows=2, **given)
    of_it = np.flatnonzero(y_train == 7)
    assert len(of_it) == 3
    assert torch.equal(data.x, whole.x), "no image gets another number"
    assert data.y.tolist() == whole.y.tolist()
    assert data.train_rows.tolist() == np.delete(np.arange(30), of_it[2]).tolist()
    assert data.test_rows.tolist() == list(range(30, 40))
    assert data.x.stride(-1) == 0, "a grey channel is stored once"
    assert data.limited(5).train_rows.tolist() == data.train_rows[:5].tolist()


@pytest.mark.parametrize(("scarce", "rows"), [(10, 5), (-1, 5), (3, 0)])
def test_what_leaves_nothing_is_refused(tmp_path, scarce, rows):
    with pytest.raises(ValueError, match="must be a class, 0 to 9, and 1 or more"):
        mnist_scarce(scarce=scarce, rows=rows, **HOW, root=str(tmp_path), fingerprint={})
