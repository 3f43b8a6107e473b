"""What every defense keeps to, whatever it hides."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from defense.outputs import drawn, given, permuted

from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Predictions
from unlearnbench.defense.label_only import label_only
from unlearnbench.defense.rounding import rounding
from unlearnbench.defense.temperature import temperature
from unlearnbench.defense.top_k import top_k

Defense = Callable[[Predictions], Predictions]
DEFENSES = {
    "label_only": label_only,
    "top_k": partial(top_k, k=1),
    "temperature": partial(temperature, temperature=2.0),
    "rounding": partial(rounding, decimals=2),
}
each = pytest.mark.parametrize("defend", DEFENSES.values(), ids=DEFENSES.keys())
SHAPES = [(1, 1, 1, 2), (3, 2, 40, 7), (1, 1, 20, 100)]


@each
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_posteriors_come_out_and_the_input_stays(
    defend: Defense, shape: tuple[int, int, int, int]
) -> None:
    predictions = drawn(shape)
    before = predictions.logits_MQNC.copy()
    found = defend(predictions)
    assert found.logits_MQNC.shape == shape
    assert found.logits_MQNC.dtype == np.float32
    assert np.exp(found.logits_MQNC.astype(np.float64)).sum(-1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(predictions.logits_MQNC, before)
    for name, value in vars(predictions).items():
        assert name == "logits_MQNC" or getattr(found, name) is value


@each
def test_no_class_overtakes_another(defend: Defense) -> None:
    predictions = drawn()
    order = predictions.logits_MQNC.argsort(-1)
    ascending = np.take_along_axis(defend(predictions).logits_MQNC, order, -1)
    assert (np.diff(ascending, axis=-1) >= 0).all()


@each
def test_a_row_does_not_depend_on_the_others(defend: Defense) -> None:
    predictions = drawn()
    found = defend(predictions).logits_MQNC
    order = np.random.default_rng(1).permutation(found.shape[2])
    assert np.array_equal(defend(permuted(predictions, order)).logits_MQNC, found[:, :, order])
    for row in range(5):
        alone = defend(permuted(predictions, np.array([row]))).logits_MQNC
        assert np.array_equal(alone, found[:, :, [row]])


@each
@pytest.mark.parametrize("size", [0.0, 1e4, 1e38])
def test_extreme_logits_stay_finite(defend: Defense, size: float) -> None:
    logits = np.array([[[[size, -size, 0.0], [-size, -size, -size]]]], np.float32)
    found = defend(given(logits)).logits_MQNC
    assert np.isfinite(found).all()
    assert found[0, 0, 0].argmax() == 0
    assert np.exp(found.astype(np.float64)).sum(-1) == pytest.approx(1, abs=1e-6)


@each
def test_what_has_no_posteriors(defend: Defense) -> None:
    predictions = drawn()
    with pytest.raises(Skip, match="regression"):
        defend(replace(predictions, y_N=predictions.y_N.astype(np.float32)))
    broken = predictions.logits_MQNC.copy()
    broken[1, 0, 3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        defend(given(broken))
