"""Random forget sets: the published sizes and rows."""

import pytest
import torch
from sklearn.model_selection import train_test_split

from unlearnbench.forget.random import random

Y = torch.zeros(60_000, dtype=torch.int64)


@pytest.mark.parametrize(
    ("n", "sizes", "first"),
    [
        (50_000, (38_250, 4_250, 7_500), [33810, 44208, 6639, 25856, 49484]),  # CIFAR
        (60_000, (45_900, 5_100, 9_000), [12238, 20118, 23825, 29798, 10974]),  # MNIST
        (18_967, (14_508, 1_613, 2_846), None),  # UTKFace
    ],
)
def test_deep_unlearns_forget_sets_to_the_row(
    n: int, sizes: tuple[int, int, int], first: list[int] | None
) -> None:
    kept, val = train_test_split(torch.arange(n).numpy(), test_size=0.15, random_state=123)
    rows = torch.from_numpy(kept)
    forget = random(rows, Y, fraction=0.1, count=None, seed=123)
    assert (len(rows) - len(forget), len(forget), len(val)) == sizes
    if first:
        assert forget[:5].tolist() == first


@pytest.mark.tried(
    "`forget.call.count` or `fraction` that leaves no row to forget or to retain",
    "refused, with the key, the value and the range",
)
@pytest.mark.parametrize("count", [0, -1, 100, 1000])
@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.0, 1.5, float("nan"), 0.999])
def test_sizes_that_leave_nothing_are_refused(count: int, fraction: float) -> None:
    rows = torch.arange(100)
    with pytest.raises(
        ValueError, match=rf"^forget\.call\.count={count}: must be between 1 and 99"
    ):
        random(rows, Y, fraction=None, count=count, seed=1)
    with pytest.raises(ValueError, match=rf"^forget\.call\.fraction={fraction}: "):
        random(rows, Y, fraction=fraction, count=None, seed=1)


def test_count_and_seed() -> None:
    rows = torch.arange(100)
    one = random(rows, Y, fraction=None, count=7, seed=1)
    assert len(one) == 7
    assert torch.equal(one, random(rows, Y, fraction=None, count=7, seed=1))
    assert not torch.equal(one, random(rows, Y, fraction=None, count=7, seed=2))
    for wrong in ({"fraction": None, "count": None}, {"fraction": 0.1, "count": 3}):
        with pytest.raises(ValueError, match="one of"):
            random(rows, Y, seed=1, **wrong)  # type: ignore[arg-type]
