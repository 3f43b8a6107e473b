"""Rounding: NumPy's, and then a distribution again."""

import numpy as np
import pytest
from defense.outputs import drawn, given, posteriors

from unlearnbench.defense.posterior import ZERO
from unlearnbench.defense.rounding import rounding


@pytest.mark.parametrize("decimals", [1, 2, 5])
def test_against_numpy_renormalised(decimals: int) -> None:
    rounded = np.round(posteriors(drawn()), decimals)
    expected = rounded / rounded.sum(-1, keepdims=True)
    assert (rounded == 0).any()
    found = rounding(drawn(), decimals=decimals)
    assert posteriors(found) == pytest.approx(expected, rel=1e-5, abs=1e-40)
    zeros = found.logits_MQNC[rounded == 0]
    assert zeros == pytest.approx(np.full_like(zeros, np.log(ZERO)), abs=0.2)  # the sum is near 1


def test_many_decimals_change_nothing() -> None:
    assert posteriors(rounding(drawn(), decimals=15)) == pytest.approx(
        posteriors(drawn()), rel=1e-5
    )


def test_ties_appear_where_posteriors_are_close() -> None:
    logits = np.log(np.array([[[[0.52, 0.31, 0.17], [0.48, 0.32, 0.2]]]], np.float32))
    found = posteriors(rounding(given(logits), decimals=1))
    assert found[0, 0] == pytest.approx(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), rel=1e-5)


def test_where_all_round_to_zero_it_is_uniform() -> None:
    found = posteriors(rounding(drawn((1, 1, 5, 100), scale=0.1), decimals=1))
    assert found == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("decimals", [-1, 16])
def test_decimals_in_range(decimals: int) -> None:
    with pytest.raises(ValueError, match=f"defense.call.decimals={decimals}"):
        rounding(drawn(), decimals=decimals)
