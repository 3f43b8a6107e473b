"""LiRA: what a slow loop finds, what theory says, and chance where there is nothing."""

from dataclasses import replace
from functools import partial

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
from scipy.stats import norm

from unlearnbench.attack.lira import lira
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores
from unlearnbench.metric.membership import bootstrap_auc

WAYS = [(mode, v) for mode in ("online", "offline") for v in ("per_record", "pooled", "raw")]
KINDS = ("original", "unlearned", "retrained")


def interval(scores: Scores) -> tuple[float, float]:
    """Of the AUC, with 95 % confidence."""
    pool = np.array(scores.pool)
    by_model = [
        tuple(scores.score[(pool == one) & (scores.member == side)] for side in (True, False))
        for one in np.unique(pool)
    ]
    return bootstrap_auc(by_model, rounds=200, seed=0)


def by_loops(found: Predictions, mode: str, variance: str) -> dict[tuple[int, int], float]:
    phi_MQN, status = phi_of(found), found.status_MN
    n = status.shape[1]
    originals = np.array(found.kind_M) == "original"
    part = np.where(status == UNSEEN, "out", "in")
    sides = ("in", "out") if mode == "online" else ("out",)
    usable = {s: [(originals & (part[:, j] == s)).sum() >= 3 for j in range(n)] for s in sides}
    result: dict[tuple[int, int], list[float]] = {}
    paired, every = pairs(found), np.ones(len(status), bool)
    for target in np.flatnonzero(found.audited_M):
        rest = [paired.compared(target, j, originals, every) for j in range(n)]
        for q in range(phi_MQN.shape[1]):
            x = phi_MQN[:, q]
            values = {s: [x[rest[j] & (part[:, j] == s), j] for j in range(n)] for s in sides}
            sigma = {}
            for s in sides:
                kept = [v for v, ok in zip(values[s], usable[s], strict=True) if ok]
                pooled = {
                    "per_record": [0.0],
                    "pooled": np.concatenate([v - np.median(v) for v in kept]),
                    "raw": np.concatenate(kept),
                }[variance]
                spread = values[s] if variance == "per_record" else [pooled] * n
                sigma[s] = [max(np.std(v), 1e-4) if len(v) else 1.0 for v in spread]
            if variance == "raw" and mode == "online":
                sigma["out"] = sigma["in"]
            for j in range(n):
                if status[target, j] == RETAINED or not all(usable[s][j] for s in sides):
                    continue
                z = {s: (x[target, j] - np.median(values[s][j])) / sigma[s][j] for s in sides}
                ratio = z["out"]
                if mode == "online":
                    ratio = norm.logpdf(z["in"]) - norm.logpdf(z["out"])
                    ratio += np.log(sigma["out"][j] / sigma["in"][j])
                result.setdefault((int(target), int(found.rows_N[j])), []).append(ratio)
    return {pair: float(np.mean(ratios)) for pair, ratios in result.items()}


@pytest.mark.parametrize(("mode", "variance"), WAYS)
@pytest.mark.parametrize("models", [12, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_against_loops(mode: str, variance: str, models: int, kind: str) -> None:
    """Odd and even counts on a side, ties, two queries, and records short of models."""
    found = shadowed(kind, models, 30, 2.0, seed=3, left=0.7, queries=2)
    status = found.status_MN[:models].copy()
    status[np.random.default_rng(models).random(status.shape) < 0.2] = UNSEEN
    status[:, 0], status[:2, 0] = UNSEEN, FORGOTTEN
    status[:, 1], status[:2, 1] = FORGOTTEN, UNSEEN
    phi = phi_of(found)
    phi[:, 0, :10] = phi[:, 0, :10].round(0)
    status = np.tile(status, (len(phi) // models, 1))
    found = replace(found, logits_MQNC=population(phi, status).logits_MQNC, status_MN=status)
    slow = by_loops(found, mode, variance)
    fast = table(lira(found, mode=mode, variance=variance))
    scored = {row for _, row in slow}
    assert {1, 4} - scored == ({1, 4} if mode == "online" else {4})
    assert len(scored) > 25
    assert fast == pytest.approx(slow, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("mode", "variance"), WAYS)
def test_known_separation(mode: str, variance: str) -> None:
    """N(μ + d, 1) against N(μ, 1), many models: AUC Φ(d/√2), best accuracy Φ(d/2)."""
    metrics = lira(shadowed("original", 128, 400, 1.5), mode=mode, variance=variance).metrics
    slack = 0.02 if variance != "raw" else 0.03
    assert metrics["lira_auc"] == (pytest.approx(norm.cdf(1.5 / 2**0.5), abs=slack), 96 * 400)
    assert metrics["lira_bal_acc_best"][0] == pytest.approx(norm.cdf(0.75), abs=slack)
    at_1pct = norm.sf(norm.isf(0.01) - 1.5)
    assert metrics["lira_tpr_at_1pct"][0] == pytest.approx(at_1pct, abs=0.06)
    assert metrics["lira_tpr_at_01pct"][0] < metrics["lira_tpr_at_1pct"][0]


@pytest.mark.parametrize(("mode", "variance"), WAYS)
def test_unlearning_shows_by_what_it_leaves(mode: str, variance: str) -> None:
    """The attacker's fits are of originals, whatever a method leaves: AUC Φ(left/√2)."""
    for left in (0.5, 1.0):
        found = shadowed("unlearned", 128, 400, 2.0, left=left)
        auc = lira(found, mode=mode, variance=variance).metrics["lira_auc"][0]
        assert auc == pytest.approx(norm.cdf(left / 2**0.5), abs=0.03)


@pytest.mark.parametrize(("mode", "variance"), WAYS)
def test_null_on_retrained_models(mode: str, variance: str) -> None:
    """They saw neither side: chance within the interval, though originals give it away."""
    found = shadowed("retrained", 64, 400, 3.0)
    audited = tuple(kind == "original" for kind in found.kind_M)
    ceiling = lira(replace(found, audited_M=audited), mode=mode, variance=variance)
    assert ceiling.metrics["lira_auc"][0] > 0.9
    low, high = interval(lira(found, mode=mode, variance=variance))
    assert low - 0.002 < 0.5 < high + 0.002
    assert high - low < 0.04


@pytest.mark.tried(
    "LiRA with 16 shadow models, all of which answer alike",
    "AUC ½ within .004 (was .482), 1 % of the others above its threshold at 1 % (was .6 %)",
)
@pytest.mark.parametrize(("mode", "variance"), WAYS)
def test_null_is_one_half_with_few_models(mode: str, variance: str) -> None:
    """The standard error of these means of 24 populations is .001, and of the rate .0003."""
    figures = null(partial(lira, mode=mode, variance=variance), models=16)
    assert figures["auc"] == pytest.approx(0.5, abs=0.004)
    assert figures["tpr_at_1pct"] == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize(("mode", "variance"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_chance_where_training_changes_nothing(kind: str, mode: str, variance: str) -> None:
    """Independent populations, whatever models are under attack."""
    aucs = [
        lira(shadowed(kind, 32, 100, 0.0, seed), mode=mode, variance=variance).metrics["lira_auc"]
        for seed in range(20)
    ]
    values = np.array(aucs)[:, 0]
    assert abs(values.mean() - 0.5) < 3 * values.std() / 20**0.5


@pytest.mark.parametrize(("mode", "variance"), WAYS)
def test_chance_where_membership_is_permuted(mode: str, variance: str) -> None:
    for kind in ("original", "unlearned"):
        found = shadowed(kind, 32, 1000, 3.0, left=3.0)
        assert lira(found, mode=mode, variance=variance).metrics["lira_auc"][0] > 0.9
        status = np.tile(keep(32, 1000, 99), (len(found.kind_M) // 32, 1))
        permuted = lira(replace(found, status_MN=status), mode=mode, variance=variance)
        assert permuted.metrics["lira_auc"][0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("mode", "variance"), WAYS)
def test_an_unlearned_model_that_is_its_original_scores_as_it(mode: str, variance: str) -> None:
    originals = taken(shadowed("original", 16, 60, 2.0), range(16), range(60))
    same = replace(originals, kind_M=("unlearned",) * 16)
    here = lira(originals, mode=mode, variance=variance)
    there = lira(beside(same, originals), mode=mode, variance=variance)
    assert here.pool == there.pool
    assert (here.row == there.row).all()
    assert (here.score == there.score).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_attacker_cannot_tell_forgotten_from_retained(kind: str) -> None:
    """What he knows of his originals is what they were trained on."""
    found = shadowed(kind, 16, 60, 2.0)
    other = np.array([UNSEEN, FORGOTTEN, RETAINED])
    order = np.argsort([UNSEEN, RETAINED, FORGOTTEN])
    codes = np.sort([UNSEEN, RETAINED, FORGOTTEN])
    swapped = other[order][np.searchsorted(codes, found.status_MN)].astype(np.int8)
    here = lira(found, mode="online", variance="pooled")
    there = table(lira(replace(found, status_MN=swapped), mode="online", variance="pooled"))
    pairs = table(here)
    unseen = [pair for pair, one in zip(pairs, here.member, strict=True) if not one]
    assert len(unseen) == 16 * 30
    assert all(there[pair] == pairs[pair] for pair in unseen)
    assert not set(there) & (set(pairs) - set(unseen))


def test_offline_ranks_one_sided() -> None:
    """Unusually low confidence is no sign of membership."""
    found = shadowed("unlearned", 16, 50, 0.0)
    place = int(np.flatnonzero(found.status_MN[0] != RETAINED)[0])
    told = []
    for phi in (-50, 0, 50):
        moved = phi_of(found)
        moved[0, 0, place] += phi
        logits = population(moved, found.status_MN).logits_MQNC
        scores = lira(replace(found, logits_MQNC=logits), mode="offline", variance="pooled")
        told.append(table(scores)[0, int(found.rows_N[place])])
    assert told[0] < told[1] < told[2]


@pytest.mark.parametrize(("mode", "variance"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_nan_at_zero_variance(kind: str, mode: str, variance: str) -> None:
    found = shadowed(kind, 8, 40, 0.0)
    whole = np.array(found.kind_M)[:, None] != "retrained"
    trained = (found.status_MN == RETAINED) | (whole & (found.status_MN == FORGOTTEN))
    for phi in (0.0 * trained, 30.0 * trained):
        logits = population(phi, found.status_MN).logits_MQNC
        scores = lira(replace(found, logits_MQNC=logits), mode=mode, variance=variance)
        assert np.isfinite(scores.score).all()
        told = phi.any() and kind != "retrained"
        assert scores.metrics["lira_auc"][0] == (1.0 if told else 0.5)


@pytest.mark.parametrize(("mode", "variance"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_order_of_records_does_not_matter(kind: str, mode: str, variance: str) -> None:
    found, records = shadowed(kind, 12, 40, 1.0), np.random.default_rng(0).permutation(40)
    here = table(lira(found, mode=mode, variance=variance))
    moved = taken(found, range(len(found.kind_M)), records)
    there = table(lira(moved, mode=mode, variance=variance))
    assert there == pytest.approx(here, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("mode", "variance"), WAYS)
def test_order_of_models_changes_no_more_than_who_is_paired(mode: str, variance: str) -> None:
    found = shadowed("original", 32, 1000, 1.0)
    models = np.random.default_rng(0).permutation(len(found.kind_M))
    here, there = (
        lira(one, mode=mode, variance=variance).metrics["lira_auc"][0]
        for one in (found, taken(found, models, range(1000)))
    )
    assert here != there
    assert here == pytest.approx(there, abs=0.005)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_record_does_not_depend_on_the_others(mode: str) -> None:
    found = shadowed("unlearned", 12, 60, 1.0)
    here = table(lira(found, mode=mode, variance="per_record"))
    part = table(lira(taken(found, range(36), range(30)), mode=mode, variance="per_record"))
    assert all(here[pair] == score for pair, score in part.items())
    assert {row for _, row in part} == set(found.rows_N[:30])


@pytest.mark.parametrize(("mode", "variance"), WAYS)
@pytest.mark.parametrize("kind", ["unlearned", "retrained"])
def test_its_own_original_says_nothing_about_a_model(kind: str, mode: str, variance: str) -> None:
    """Nor do the retrained models, nor other audited ones; where there is no own, nothing is."""
    found = shadowed(kind, 16, 40, 1.0)
    here = table(lira(found, mode=mode, variance=variance))

    def changed(other: Predictions) -> set[int]:
        there = table(lira(other, mode=mode, variance=variance))
        return {m for (m, row), score in there.items() if here[m, row] != pytest.approx(score)}

    assert changed(raised(found, [16 + 3], 5.0)) == set(range(16)) - {3}
    assert changed(raised(found, [3], 5.0)) == {3}
    if kind == "unlearned":
        assert changed(raised(found, range(32, 48), 5.0)) == set()
    without = taken(found, [m for m in range(len(found.kind_M)) if m != 16 + 3], range(40))
    assert changed(without) == set(range(16)) - {3}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_scored(kind: str) -> None:
    """Forgotten against unseen records of audited models; retained ones tell nothing."""
    found = shadowed(kind, 12, 40, 1.0)
    scores = lira(found, mode="online", variance="pooled")
    status = found.status_MN[:12]
    assert len(scores.row) == (status != RETAINED).sum() == scores.metrics["lira_auc"][1]
    assert (scores.member == (status == FORGOTTEN)[status != RETAINED]).all()
    assert sorted(set(scores.pool)) == [f"model {m:02d}" for m in range(12)]
    assert set(scores.row) == set(found.rows_N)


def test_models_of_one_original_are_scored_without_it_and_are_one_target() -> None:
    """As where an original gets several requests: nothing else of a score may change."""
    found = shadowed("unlearned", 12, 40, 1.0)
    once = lira(found, mode="online", variance="pooled")
    # Audited model 0 again, its original again, and another original with the same rows.
    again = taken(found, [*range(24), 0, 12, 13], range(40))
    twice = lira(again, mode="online", variance="pooled")
    own = np.array(once.pool) == "model 00"
    assert sorted(set(twice.pool)) == sorted(set(once.pool))
    assert len(twice.score) == len(once.score) + own.sum()
    assert set(twice.score) == set(once.score)


def test_what_it_cannot_do() -> None:
    found = shadowed("unlearned", 12, 40, 1.0)
    way = {"mode": "online", "variance": "pooled"}
    with pytest.raises(ValueError, match=r"attack.call.mode=on: .* online, offline"):
        lira(found, mode="on", variance="pooled")
    with pytest.raises(ValueError, match=r"attack.call.variance=own: .* per_record, pooled, raw"):
        lira(found, mode="online", variance="own")
    with pytest.raises(Skip, match="no original"):
        lira(taken(found, [*range(12), *range(24, 36)], range(40)), **way)
    with pytest.raises(Skip, match="no model under attack"):
        lira(taken(found, range(12, 24), range(40)), **way)
    with pytest.raises(Skip, match="regression"):
        lira(replace(found, y_N=found.y_N * 1.0), **way)
    with pytest.raises(Skip, match="two other models"):
        lira(taken(found, [0, 12], range(40)), **way)
    retained = np.where(found.status_MN == FORGOTTEN, RETAINED, found.status_MN)
    with pytest.raises(Skip, match="both to score"):
        lira(replace(found, status_MN=retained.astype(np.int8)), **way)
    for place in (0, 12):
        logits = found.logits_MQNC.copy()
        logits[place, 0, 0, 0] = np.nan
        with pytest.raises(ValueError, match="finite"):
            lira(replace(found, logits_MQNC=logits), **way)
