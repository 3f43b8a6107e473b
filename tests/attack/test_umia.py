"""U-MIA: at chance where there is nothing to find, and right where there is."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from cells import Cells
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit

from unlearnbench.attack.umia import umia
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGET, RETAIN, TEST, VAL, Predictions
from unlearnbench.metric.membership import (
    auc,
    entropy,
    logit_confidence,
    modified_entropy,
    tpr_at_fpr,
)
from unlearnbench.metric.utility import cross_entropy
from unlearnbench.pipeline import outputs
from unlearnbench.pipeline.workspace import Workspace

SETTINGS: dict[str, Any] = {"splits": 10, "held_out": 0.1, "seed": 123}


def made(members: float, n: int = 200, seed: int = 0, n_classes: int = 2) -> Predictions:
    """The label's logit is ``members`` higher for forget rows than for the others."""
    random = np.random.default_rng(seed)
    split = np.repeat([RETAIN, FORGET, VAL, TEST], [n, n, n, 2 * n]).astype(np.int8)
    y = random.integers(0, n_classes, len(split))
    margin = random.normal(size=len(split)) + members * (split == FORGET)
    at_y = np.arange(n_classes) == y[:, None]
    logits = np.where(at_y, margin[:, None], 0.0).astype(np.float32)
    return Predictions(
        logits[None, None],
        y,
        np.arange(len(split)),
        split,
        np.zeros((1, len(split)), np.int8),
        ("unlearned",),
        (-1,),
    )


@cache
def at_chance() -> list[dict[str, tuple[float, int]]]:
    """What is said where both sides are alike, of many draws."""
    return [umia(made(0.0, n=100, seed=s, n_classes=5), **SETTINGS).metrics for s in range(60)]


def test_chance_where_both_sides_are_alike() -> None:
    """Over many draws; cross-validation itself guesses slightly worse than a coin."""
    found = at_chance()
    for name in ("mia_test", "mia_val"):
        values = [metrics[name][0] for metrics in found]
        half = 3 * np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - 0.5) < half + 0.01
    values = [metrics["mia_test_auc"][0] for metrics in found]
    assert abs(np.mean(values) - 0.5) < 3 * np.std(values) / np.sqrt(len(values))


def test_finds_what_there_is() -> None:
    """Margins N(d, 1) against N(0, 1): the AUC is Φ(d/√2), the best accuracy Φ(d/2)."""
    metrics = umia(made(2.0, n=2000), **SETTINGS).metrics
    assert metrics["mia_test_auc"][0] == pytest.approx(0.9214, abs=0.01)
    assert metrics["mia_test"][0] == pytest.approx(0.8413, abs=0.03)
    assert metrics["indisc_test"][0] == pytest.approx(1 - abs(2 * metrics["mia_test"][0] - 1))


def test_against_the_protocol_written_out() -> None:
    predictions = made(0.7)
    losses = cross_entropy(predictions.logits_MQNC[0, 0], predictions.y_N)
    random = np.random.default_rng(123)
    members = random.permutation(losses[predictions.split_N == FORGET])[:200]
    others = random.permutation(losses[predictions.split_N == TEST])[:200]
    x, y = np.concatenate([members, others])[:, None], np.array([1] * 200 + [0] * 200)
    hits = []
    rounds = StratifiedShuffleSplit(n_splits=10, test_size=0.1, random_state=123)
    for fit, score in rounds.split(x, y):
        guess = LogisticRegression().fit(x[fit], y[fit]).predict(x[score])
        hits.append((guess == y[score]).mean())
    assert umia(predictions, **SETTINGS).metrics["mia_test"] == (pytest.approx(np.mean(hits)), 400)


VERSION_1 = {
    "mia_test": (0.6525, 400),
    "indisc_test": (0.695, 400),
    "mia_test_auc": (0.66155, 600),
    "mia_val": (0.685, 400),
    "indisc_val": (0.63, 400),
    "mia_val_auc": (0.747475, 400),
}


def test_numbers_of_version_1_are_as_they_were() -> None:
    """Taken before thresholds on other statistics were added."""
    metrics = umia(made(0.7), **SETTINGS).metrics
    for name, (value, n) in VERSION_1.items():
        assert metrics[name] == (pytest.approx(value, abs=1e-9), n)


def test_thresholds_on_other_statistics() -> None:
    predictions = made(0.7, n_classes=5)
    logits, y = predictions.logits_MQNC[0, 0], predictions.y_N
    metrics = umia(predictions, **SETTINGS).metrics
    members = predictions.split_N == FORGET
    scores = {
        "confidence": logit_confidence(logits, y),
        "entropy": -entropy(logits),
        "modified_entropy": -modified_entropy(logits, y),
    }
    for pool, part, n in (("test", TEST, 600), ("val", VAL, 400)):
        others = predictions.split_N == part
        for name, score in scores.items():
            expected = auc(score[members], score[others])
            assert metrics[f"mia_{pool}_{name}_auc"] == (expected, n)
        phi = scores["confidence"]
        expected = tpr_at_fpr(phi[members], phi[others], 0.01)
        assert metrics[f"mia_{pool}_tpr_at_1pct"] == (expected, n)


def test_statistics_that_are_one_another_where_they_should_be() -> None:
    """φ falls with the loss; of two classes, the modified entropy does so too."""
    metrics = umia(made(0.7, n_classes=5), **SETTINGS).metrics
    assert metrics["mia_test_confidence_auc"] == metrics["mia_test_auc"]
    assert metrics["mia_test_entropy_auc"] != metrics["mia_test_auc"]
    metrics = umia(made(0.7), **SETTINGS).metrics
    assert metrics["mia_test_modified_entropy_auc"] == metrics["mia_test_auc"]


def test_confidence_sees_what_losses_round_away() -> None:
    """All are right with margins from 50 to 60, and the forget rows' are higher."""
    predictions = made(4.0)
    logits = predictions.logits_MQNC + np.where(predictions.logits_MQNC == 0, 0, 50)
    metrics = umia(replace(predictions, logits_MQNC=logits.astype(np.float32)), **SETTINGS).metrics
    assert metrics["mia_test_auc"][0] == 0.5
    assert metrics["mia_test_confidence_auc"][0] > 0.95


def test_a_rate_that_too_few_records_cannot_show_is_nan() -> None:
    """Fifty validation rows, a hundred test rows."""
    metrics = umia(made(0.7, n=50), **SETTINGS).metrics
    assert np.isnan(metrics["mia_val_tpr_at_1pct"][0])
    assert metrics["mia_val_tpr_at_1pct"][1] == 100
    assert 0 <= metrics["mia_test_tpr_at_1pct"][0] <= 1


def test_thresholds_at_chance_and_above() -> None:
    found = at_chance()
    for name in ("confidence_auc", "entropy_auc", "modified_entropy_auc"):
        values = [metrics[f"mia_test_{name}"][0] for metrics in found]
        assert abs(np.mean(values) - 0.5) < 3 * np.std(values) / np.sqrt(len(values))
    metrics = umia(made(2.0, n=2000), **SETTINGS).metrics
    assert metrics["mia_test_confidence_auc"][0] == pytest.approx(0.9214, abs=0.01)
    assert metrics["mia_test_tpr_at_1pct"][0] == pytest.approx(0.372, abs=0.06)  # Φ(2 − 2.326)


def test_scores_are_one_a_record_and_pool() -> None:
    predictions = made(1.0)
    scores = umia(predictions, **SETTINGS)
    assert scores.pool.count("test") == 600
    assert scores.pool.count("val") == 400
    assert len(scores.row) == len(scores.member) == len(scores.score) == 1000
    assert scores.member.sum() == 400
    assert (scores.member == (predictions.split_N[scores.row] == FORGET)).all()
    losses = cross_entropy(predictions.logits_MQNC[0, 0], predictions.y_N)
    assert (scores.score == -losses[scores.row]).all()


def test_a_record_does_not_depend_on_the_others() -> None:
    predictions = made(1.0)
    logits = predictions.logits_MQNC.copy()
    logits[0, 0, -1] += 1
    scores, other = (
        umia(p, **SETTINGS) for p in (predictions, replace(predictions, logits_MQNC=logits))
    )
    moved = scores.row != len(predictions.y_N) - 1
    assert (scores.score[moved] == other.score[moved]).all()


def test_equal_losses_give_chance_and_no_nan() -> None:
    predictions = made(0.0)
    flat = replace(predictions, logits_MQNC=np.zeros_like(predictions.logits_MQNC))
    metrics = umia(flat, **SETTINGS).metrics
    assert metrics["mia_test"][0] == 0.5
    for name in ("auc", "confidence_auc", "entropy_auc", "modified_entropy_auc"):
        assert metrics[f"mia_test_{name}"][0] == 0.5
    assert metrics["mia_test_tpr_at_1pct"][0] == 0


def test_what_it_cannot_do() -> None:
    predictions = made(0.0)
    logits = predictions.logits_MQNC.copy()
    logits[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        umia(replace(predictions, logits_MQNC=logits), **SETTINGS)
    with pytest.raises(Skip, match="regression"):
        umia(replace(predictions, y_N=predictions.y_N.astype(np.float32)), **SETTINGS)
    with pytest.raises(Skip, match="too few"):
        umia(made(0.0, n=10), **SETTINGS)


def test_a_pool_without_records_is_left_out() -> None:
    """As with ``split.val=0``; what the other pool says stays the same."""
    predictions = made(0.0)
    whole = umia(predictions, **SETTINGS)
    none = np.where(predictions.split_N == VAL, RETAIN, predictions.split_N)
    found = umia(replace(predictions, split_N=none), **SETTINGS)
    assert set(found.pool) == {"test"}
    assert found.metrics == {k: v for k, v in whole.metrics.items() if "_val" not in k}


@pytest.mark.slow
def test_declared_null_retrained_models_are_at_chance(workspace: Workspace, cell: Cells) -> None:
    """Retrained models over many splits, bootstrapped over models; originals overfit more.

    On validation rows, for these are drawn anew with each split: the 360 test rows are one draw.
    """
    found: dict[str, list[float]] = {"retrain": [], "original": []}
    for method, values in found.items():
        for seed in range(16):
            words = ["model=mlp", f"method={method}", f"split.seed={seed}", "forget.call.seed=7"]
            predictions = outputs.predictions(workspace, cell(*words, "train.call.epochs=12"))
            values.append(umia(predictions, **SETTINGS).metrics["mia_val_auc"][0])
    random = np.random.default_rng(0)
    means = [np.mean(random.choice(found["retrain"], 16)) for _ in range(2000)]
    low, high = np.quantile(means, [0.005, 0.995])
    assert low < 0.5 < high
    assert np.mean(found["original"]) > np.mean(found["retrain"])
