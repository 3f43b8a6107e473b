"""The rows of one class, or a share of them."""

import pytest
import torch

from unlearnbench.forget.by_class import by_class

Y = torch.tensor([0, 1, 2] * 10)
ROWS = torch.arange(2, 30)


def test_a_whole_class() -> None:
    found = by_class(ROWS, Y, label=1, fraction=1.0, seed=0)
    assert sorted(found.tolist()) == list(range(4, 30, 3))


def test_a_share_of_it_rounded_up() -> None:
    found = by_class(ROWS, Y, label=0, fraction=0.25, seed=0)
    assert len(found) == 3
    assert set(Y[found].tolist()) == {0}
    assert not torch.equal(found, by_class(ROWS, Y, label=0, fraction=0.25, seed=1))


@pytest.mark.parametrize(
    ("label", "fraction", "told"), [(3, 1.0, "label 3"), (0, 0.0, "above 0"), (0, 1.5, "at most 1")]
)
def test_mistakes(label: int, fraction: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        by_class(ROWS, Y, label=label, fraction=fraction, seed=0)
