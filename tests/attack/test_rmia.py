"""RMIA: what a table of all pairs finds, and chance where there is nothing."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from attack.populations import (
    beside,
    keep,
    null,
    pairs,
    phi_of,
    population,
    raised,
    shadowed,
    table,
    taken,
)
from scipy.special import expit

from unlearnbench.attack.rmia import rmia
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores
from unlearnbench.metric.membership import bootstrap_auc

WAYS: list[dict[str, Any]] = [
    {"mode": "online", "a": 0.3, "gamma": 1.0},
    {"mode": "online", "a": 0.3, "gamma": 2.0},
    {"mode": "offline", "a": 0.3, "gamma": 1.0},
    {"mode": "offline", "a": 1.0, "gamma": 1.5},
]
KINDS = ("original", "unlearned", "retrained")


def interval(scores: Scores) -> tuple[float, float]:
    """Of the AUC, with 95 % confidence."""
    pool = np.array(scores.pool)
    by_model = [
        tuple(scores.score[(pool == one) & (scores.member == side)] for side in (True, False))
        for one in np.unique(pool)
    ]
    return bootstrap_auc(by_model, rounds=200, seed=0)


def by_pairs(found: Predictions, mode: str, a: float, gamma: float) -> dict[tuple[int, int], float]:
    p_MQN, status = expit(phi_of(found)), found.status_MN
    result: dict[tuple[int, int], float] = {}
    unseen = status == UNSEEN
    counts = [unseen, ~unseen] if mode == "online" else [unseen]
    kept = np.array(found.kind_M) == "original"
    usable = [j for j in range(status.shape[1]) if all(c[kept, j].sum() > 2 for c in counts)]
    paired, every = pairs(found), np.ones(len(status), bool)
    for m in np.flatnonzero(found.audited_M):
        rest = [paired.compared(m, j, kept, every) for j in range(status.shape[1])]
        asked = [j for j in usable if status[m, j] in (FORGOTTEN, UNSEEN)]
        for q in range(p_MQN.shape[1]):
            ratio = {}
            for j in asked:
                out = p_MQN[rest[j] & unseen[:, j], q, j].mean()
                norm = ((1 + a) * out + (1 - a)) / 2
                if mode == "online":
                    norm = (p_MQN[rest[j] & ~unseen[:, j], q, j].mean() + out) / 2
                ratio[j] = p_MQN[m, q, j] / norm
            for x in asked:
                wins = [ratio[x] >= gamma * ratio[z] for z in asked if z != x]
                pair = (int(m), int(found.rows_N[x]))
                result[pair] = result.get(pair, 0.0) + float(np.mean(wins)) / p_MQN.shape[1]
    return result


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_against_a_table_of_all_pairs(way: dict[str, Any], kind: str) -> None:
    found = shadowed(kind, 12, 40, 2.0, seed=1, left=0.7, queries=2)
    status = found.status_MN[:12].copy()
    status[np.random.default_rng(1).random(status.shape) < 0.2] = UNSEEN
    status[:, 0], status[:2, 0] = UNSEEN, FORGOTTEN
    status[:, 1], status[:2, 1] = FORGOTTEN, UNSEEN
    found = replace(found, status_MN=np.tile(status, (len(found.kind_M) // 12, 1)))
    slow = by_pairs(found, **way)
    missing = {1, 4} if way["mode"] == "online" else {4}
    assert {1, 4} - {row for _, row in slow} == missing
    assert table(rmia(found, **way)) == pytest.approx(slow, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_a_record_is_not_compared_with_itself(way: dict[str, Any]) -> None:
    """Of three records with ratios apart, shares are 0, ½ and 1; with itself 1/3, 2/3 and 1.

    Nor with the retained ones, whose ratios lie between.
    """
    status = keep(8, 30)
    status[:, 1:3] = status[:, :1]
    target = int(np.flatnonzero(status[:, 0] == FORGOTTEN)[0])
    other = int(np.flatnonzero(status[:, 0] == UNSEEN)[0])
    status[[target, other], 1] = UNSEEN, FORGOTTEN
    status[target, 3:] = RETAINED
    phi = np.tile(np.append([-1.0, 0.0, 1.0], np.zeros(27)), (8, 1))
    originals = population(phi, status, "original")
    phi[target] = np.append([-9.0, 0.0, 9.0], np.linspace(-0.1, 0.1, 27))
    found = beside(population(phi, status, "unlearned"), originals)
    scores = table(rmia(taken(found, [target, *range(8, 16)], range(30)), **{**way, "gamma": 1.0}))
    assert scores == {(0, 1): 0.0, (0, 4): 0.5, (0, 7): 1.0}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["original", "unlearned"])
def test_finds_what_there_is_and_nothing_where_it_is_permuted(
    way: dict[str, Any], kind: str
) -> None:
    found = shadowed(kind, 32, 1000, 4.0, left=4.0)
    assert rmia(found, **way).metrics["rmia_auc"][0] > 0.85
    status = np.tile(keep(32, 1000, 99), (len(found.kind_M) // 32, 1))
    permuted = rmia(replace(found, status_MN=status), **way)
    assert permuted.metrics["rmia_auc"][0] == pytest.approx(0.5, abs=0.03)


@pytest.mark.tried(
    "RMIA with 12 shadow models, all of which answer alike",
    "AUC ½ within .004, 1 % of the others above its threshold at 1 % (was .85 % offline)",
)
@pytest.mark.parametrize("way", WAYS)
def test_null_is_one_half_with_few_models(way: dict[str, Any]) -> None:
    """The standard error of these means of 40 populations is .0006, and of the rate .0002."""
    figures = null(partial(rmia, **way), models=12, populations=40)
    assert figures["auc"] == pytest.approx(0.5, abs=0.004)
    assert figures["tpr_at_1pct"] == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_chance_where_training_changes_nothing(way: dict[str, Any], kind: str) -> None:
    aucs = [
        rmia(shadowed(kind, 32, 100, 0.0, seed), **way).metrics["rmia_auc"][0] for seed in range(20)
    ]
    assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs) / 20**0.5


@pytest.mark.parametrize("way", WAYS)
def test_null_on_retrained_models(way: dict[str, Any]) -> None:
    """They saw neither side: chance within the interval, though originals give it away."""
    found = shadowed("retrained", 64, 400, 4.0)
    audited = tuple(kind == "original" for kind in found.kind_M)
    assert rmia(replace(found, audited_M=audited), **way).metrics["rmia_auc"][0] > 0.85
    low, high = interval(rmia(found, **way))
    assert low - 0.002 < 0.5 < high + 0.002
    assert high - low < 0.04


@pytest.mark.parametrize("way", WAYS)
def test_an_unlearned_model_that_is_its_original_scores_as_it(way: dict[str, Any]) -> None:
    originals = taken(shadowed("original", 16, 60, 2.0), range(16), range(60))
    same = replace(originals, kind_M=("unlearned",) * 16)
    assert table(rmia(originals, **way)) == table(rmia(beside(same, originals), **way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_order_of_records_does_not_matter(way: dict[str, Any], kind: str) -> None:
    found, records = shadowed(kind, 12, 40, 1.0), np.random.default_rng(0).permutation(40)
    there = table(rmia(taken(found, range(len(found.kind_M)), records), **way))
    assert there == pytest.approx(table(rmia(found, **way)))


@pytest.mark.parametrize("way", WAYS)
def test_order_of_models_changes_no_more_than_who_is_paired(way: dict[str, Any]) -> None:
    found = shadowed("original", 32, 1000, 1.0)
    models = np.random.default_rng(0).permutation(len(found.kind_M))
    here, there = (
        rmia(one, **way).metrics["rmia_auc"][0]
        for one in (found, taken(found, models, range(1000)))
    )
    assert here != there
    assert here == pytest.approx(there, abs=0.005)


@pytest.mark.parametrize("kind", ["unlearned", "retrained"])
def test_its_own_original_says_nothing_about_a_model(kind: str) -> None:
    """Nor do the retrained models, nor other audited ones."""
    found = shadowed(kind, 16, 200, 1.0)
    records = np.arange(200) < 100
    for way in WAYS:
        here = table(rmia(found, **way))

        def changed(models: list[int], here: Any = here, way: Any = way) -> set[int]:
            moved = raised(found, models, 5.0).logits_MQNC
            logits = np.where(records[:, None], moved, found.logits_MQNC)
            there = table(rmia(replace(found, logits_MQNC=logits), **way))
            return {m for (m, row), score in there.items() if here[m, row] != score}

        assert changed([16 + 3]) == set(range(16)) - {3}
        assert changed([3]) == {3}
        if kind == "unlearned":
            assert changed(list(range(32, 48))) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_scored(kind: str) -> None:
    """Forgotten against unseen records of audited models; retained ones tell nothing."""
    found = shadowed(kind, 12, 40, 1.0)
    scores = rmia(found, **WAYS[0])
    status = found.status_MN[:12]
    assert len(scores.row) == (status != RETAINED).sum() == scores.metrics["rmia_auc"][1]
    assert (scores.member == (status == FORGOTTEN)[status != RETAINED]).all()
    assert sorted(set(scores.pool)) == [f"model {m:02d}" for m in range(12)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_nan_at_equal_or_vanishing_probabilities(way: dict[str, Any], kind: str) -> None:
    found = shadowed(kind, 8, 40, 0.0)
    seen = found.status_MN != UNSEEN
    for phi in (0.0 * seen, np.where(seen, 3e3, -3e3), np.where(seen, 40.0, -40.0)):
        logits = population(phi, found.status_MN).logits_MQNC
        scores = rmia(replace(found, logits_MQNC=logits), **way)
        assert np.isfinite(scores.score).all()
        assert all(
            np.isfinite(scores.metrics[f"rmia_{name}"][0]) for name in ("auc", "bal_acc_best")
        )


def test_small_probabilities_survive_beside_large_ones() -> None:
    """A mean over the others is theirs, however large the own original's probability is."""
    way = {"mode": "offline", "a": 1.0, "gamma": 1.0}
    for kind in ("original", "unlearned"):
        found = raised(shadowed(kind, 8, 30, 0.0), range(8 if kind == "original" else 16), -60)
        found = raised(found, [0 if kind == "original" else 8], 90)
        slow = by_pairs(found, **way)
        assert table(rmia(found, **way)) == pytest.approx(slow, rel=1e-9, abs=1e-9)


def test_what_it_cannot_do() -> None:
    found = shadowed("unlearned", 12, 40, 1.0)
    way = {"mode": "online", "a": 0.3, "gamma": 1.0}
    with pytest.raises(ValueError, match=r"attack.call.mode=on: .* online, offline"):
        rmia(found, **{**way, "mode": "on"})
    with pytest.raises(ValueError, match=r"attack.call.a=2"):
        rmia(found, **{**way, "a": 2})
    with pytest.raises(ValueError, match=r"attack.call.gamma=0"):
        rmia(found, **{**way, "gamma": 0})
    with pytest.raises(Skip, match="no original"):
        rmia(taken(found, [*range(12), *range(24, 36)], range(40)), **way)
    with pytest.raises(Skip, match="two other models"):
        rmia(taken(found, [0, 12], range(40)), **way)
    with pytest.raises(Skip, match="regression"):
        rmia(replace(found, y_N=found.y_N * 1.0), **way)
    for place in (0, 12):
        logits = found.logits_MQNC.copy()
        logits[place, 0, 0, 0] = np.nan
        with pytest.raises(ValueError, match="finite"):
            rmia(replace(found, logits_MQNC=logits), **way)
