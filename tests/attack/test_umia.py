"""U-MIA: at chance where there is nothing to find, and right where there is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import Cells
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit

from unlearnbench import pipeline
from unlearnbench.attack.umia import umia
from unlearnbench.metric import cross_entropy
from unlearnbench.pipeline import Lab
from unlearnbench.values import FORGET, RETAIN, TEST, VAL, Predictions, Skip

SETTINGS: dict[str, Any] = {"splits": 10, "held_out": 0.1, "seed": 123}


def made(members: float, n: int = 200, seed: int = 0) -> Predictions:
    """Two classes; the margin of forget rows is ``members`` higher than that of the others."""
    random = np.random.default_rng(seed)
    split = np.repeat([RETAIN, FORGET, VAL, TEST], [n, n, n, 2 * n]).astype(np.int8)
    y = random.integers(0, 2, len(split))
    margin = random.normal(size=len(split)) + members * (split == FORGET)
    logits = np.where(np.arange(2) == y[:, None], margin[:, None], 0.0).astype(np.float32)
    return Predictions(
        logits[None, None],
        y,
        np.arange(len(split)),
        split,
        np.zeros((1, len(split)), np.int8),
        ("unlearned",),
        (-1,),
    )


def test_chance_where_both_sides_are_alike() -> None:
    """Over many draws; cross-validation itself guesses slightly worse than a coin."""
    found = [umia(made(0.0, n=100, seed=s), **SETTINGS).metrics for s in range(60)]
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
    assert metrics["mia_test_auc"][0] == 0.5


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


def test_declared_null_retrained_models_are_at_chance(lab: Lab, cell: Cells) -> None:
    """Retrained models over many splits, bootstrapped over models; originals overfit more.

    On validation rows, for these are drawn anew with each split: the 360 test rows are one draw.
    """
    found: dict[str, list[float]] = {"retrain": [], "original": []}
    for method, values in found.items():
        for seed in range(16):
            words = ["model=mlp", f"method={method}", f"split.seed={seed}", "forget.call.seed=7"]
            predictions = pipeline.predictions(lab, cell(*words, "train.call.epochs=12"))
            values.append(umia(predictions, **SETTINGS).metrics["mia_val_auc"][0])
    random = np.random.default_rng(0)
    means = [np.mean(random.choice(found["retrain"], 16)) for _ in range(2000)]
    low, high = np.quantile(means, [0.005, 0.995])
    assert low < 0.5 < high
    assert np.mean(found["original"]) > np.mean(found["retrain"])


def test_option_declares_its_null_and_its_ceiling() -> None:
    from omegaconf import OmegaConf

    root = Path(__file__).resolve().parents[2]
    traits = OmegaConf.load(root / "conf" / "attack" / "umia.yaml").traits
    assert traits == {"chance": "retrain", "ceiling": "original"}
