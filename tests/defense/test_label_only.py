"""Label-only: a one-hot answer, whatever the confidence was."""

import numpy as np
import pytest
from defense.outputs import drawn, given, posteriors

from unlearnbench.defense.label_only import label_only
from unlearnbench.defense.posterior import ZERO
from unlearnbench.metric.utility import cross_entropy


def test_exactly_one_hot() -> None:
    predictions = drawn()
    found = posteriors(label_only(predictions))
    predicted = predictions.logits_MQNC.argmax(-1)
    hot = np.arange(7) == predicted[..., None]
    assert (found[hot] == 1).all()
    assert (found[~hot] < 2 * ZERO).all()


def test_a_right_answer_costs_nothing_and_a_wrong_one_always_the_same() -> None:
    predictions = drawn()
    losses = cross_entropy(label_only(predictions).logits_MQNC[0, 0], predictions.y_N)
    right = predictions.logits_MQNC[0, 0].argmax(-1) == predictions.y_N
    assert 0 < right.sum() < len(right)
    assert (losses[right] == 0).all()
    assert losses[~right] == pytest.approx(-np.log(ZERO))


def test_only_the_order_matters() -> None:
    predictions = drawn()
    scaled = given(predictions.logits_MQNC * np.float32(0.25) - np.float32(1))
    assert np.array_equal(label_only(predictions).logits_MQNC, label_only(scaled).logits_MQNC)


def test_near_ties_go_to_the_larger_logit() -> None:
    """These two differ as float32 logits, and no longer as float32 log-posteriors."""
    near = np.array([[[[1e-3, np.nextafter(np.float32(1e-3), np.float32(1))]]]], np.float32)
    assert label_only(given(near)).logits_MQNC[0, 0, 0].argmax() == 1
