"""Temperature: softer or sharper, in the same order."""

import numpy as np
import pytest
from defense.outputs import drawn, given, posteriors
from scipy.special import softmax

from unlearnbench.defense.temperature import temperature


def test_one_is_the_identity() -> None:
    found = posteriors(temperature(drawn(), temperature=1.0))
    assert found == pytest.approx(posteriors(drawn()), rel=1e-5)


@pytest.mark.parametrize("t", [0.5, 2.0, 4.0])
def test_against_powers_of_posteriors_and_against_scaled_logits(t: float) -> None:
    found = posteriors(temperature(drawn(), temperature=t))
    power = posteriors(drawn()) ** (1 / t)
    assert found == pytest.approx(power / power.sum(-1, keepdims=True), rel=1e-5)
    assert found == pytest.approx(softmax(drawn().logits_MQNC / t, axis=-1), rel=1e-4)


def test_limits() -> None:
    assert posteriors(temperature(drawn(), temperature=1e9)) == pytest.approx(1 / 7, rel=1e-6)
    cold = posteriors(temperature(drawn(), temperature=1e-6))
    assert (cold == (drawn().logits_MQNC == drawn().logits_MQNC.max(-1, keepdims=True))).all()


def test_two_temperatures_are_their_product() -> None:
    twice = temperature(temperature(drawn(), temperature=2.0), temperature=3.0)
    once = temperature(drawn(), temperature=6.0)
    assert twice.logits_MQNC == pytest.approx(once.logits_MQNC, abs=1e-5)


def test_order_is_kept_where_posteriors_round_to_zero() -> None:
    logits = np.array([[[[0.0, -2000.0, -1000.0]]]], np.float32)
    found = temperature(given(logits), temperature=0.5).logits_MQNC[0, 0, 0]
    assert found == pytest.approx([0, -4000, -2000])


@pytest.mark.parametrize("t", [0.0, -1.0, float("nan")])
def test_must_be_positive(t: float) -> None:
    with pytest.raises(ValueError, match=r"defense\.call\.temperature"):
        temperature(drawn(), temperature=t)
