"""Top-k: the largest stay, the rest is one number."""

import numpy as np
import pytest
from defense.outputs import drawn, given, posteriors

from unlearnbench.defense.top_k import top_k


@pytest.mark.parametrize("k", range(1, 7))
def test_keeps_the_largest_and_shares_the_rest(k: int) -> None:
    before, after = (posteriors(p) for p in (drawn(), top_k(drawn(), k=k)))
    order = np.argsort(-before, axis=-1)
    before, after = (np.take_along_axis(p, order, -1) for p in (before, after))
    assert after[..., :k] == pytest.approx(before[..., :k], rel=1e-5)
    share = (1 - before[..., :k].sum(-1, keepdims=True)) / (7 - k)
    assert after[..., k:] == pytest.approx(np.broadcast_to(share, after[..., k:].shape), rel=1e-4)
    assert (np.ptp(after[..., k:], axis=-1) == 0).all()


def test_of_all_but_one_nothing_changes() -> None:
    assert posteriors(top_k(drawn(), k=6)) == pytest.approx(posteriors(drawn()), rel=1e-5)


def test_twice_is_once() -> None:
    once = top_k(drawn(), k=3)
    assert top_k(once, k=3).logits_MQNC == pytest.approx(once.logits_MQNC, rel=1e-6)


def test_ties_keep_the_first() -> None:
    logits = np.log(np.array([[[[0.1, 0.35, 0.35, 0.2]]]], np.float32))
    found = posteriors(top_k(given(logits), k=1))[0, 0, 0]
    assert found == pytest.approx([0.65 / 3, 0.35, 0.65 / 3, 0.65 / 3], rel=1e-5)


def test_the_rest_of_a_certain_model_is_not_zero() -> None:
    logits = np.array([[[[100.0, 0.0, 0.0]]]], np.float32)
    assert top_k(given(logits), k=1).logits_MQNC[0, 0, 0] == pytest.approx([0, -100, -100])


@pytest.mark.parametrize("k", [-1, 0, 7, 8])
def test_k_must_leave_a_rest(k: int) -> None:
    with pytest.raises(ValueError, match=f"defense.call.k={k}"):
        top_k(drawn(), k=k)
