"""U-LiRA: what a slow loop finds, what theory says, and chance where there is nothing."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from attack.populations import beside, keep, null, pairs, phi_of, population, table, taken
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from unlearnbench.attack.lira import lira
from unlearnbench.attack.ulira import ulira
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions
from unlearnbench.metric import membership
from unlearnbench.results import load, parts, schema

WAYS = [
    (reference, variance)
    for reference in ("unlearned_out", "retrain", "original_out")
    for variance in ("per_record", "pooled")
]


def drawn(models: int, n: int, left: float, seed: int = 0, queries: int = 1) -> Predictions:
    """φ ~ N(easiness, 1), plus 2 if trained on; unlearning leaves ``left`` of what is forgotten.

    The audited models first, then their originals, then retrained ones.
    """
    random = np.random.default_rng(seed)
    status, easy = keep(models, n, seed), random.normal(size=n)
    effects = {"unlearned": left, "original": 2.0, "retrained": 0.0}
    groups = []
    for kind, effect in effects.items():
        raised = 2 * (status == RETAINED) + effect * (status == FORGOTTEN)
        phi = random.normal(size=(models, queries, n)) + easy + raised[:, None]
        groups.append(population(phi, status, kind))
    return beside(*groups)


def by_loops(found: Predictions, reference: str, variance: str) -> dict[tuple[int, int], float]:
    phi_MQN, status = phi_of(found), found.status_MN
    audited = np.array(found.audited_M)
    kind = np.array(found.kind_M)
    n = status.shape[1]
    beside_M, part = {
        "unlearned_out": (audited, UNSEEN),
        "retrain": (kind == "retrained", FORGOTTEN),
        "original_out": (kind == "original", UNSEEN),
    }[reference]
    paired, forgotten = pairs(found), status == FORGOTTEN

    def places(target: int, j: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        inside = audited & forgotten[:, j]
        sides = inside, beside_M & (status[:, j] == part)
        forgot, never = (paired.compared(target, j, side, inside) for side in sides)
        return forgot, never

    result = {}
    for target in np.flatnonzero(audited):
        ratios: dict[int, list[float]] = {}
        for q in range(phi_MQN.shape[1]):
            x = phi_MQN[:, q]
            fits, pooled = {}, []
            for side in (0, 1):
                values = [x[places(target, j)[side], j] for j in range(n)]
                squares = sum(((v - v.mean()) ** 2).sum() for v in values if len(v) > 1)
                pooled.append(squares / sum(len(v) - 1 for v in values if len(v) > 1))
                fits[side] = values
            for j in range(n):
                least = min(places(m, j)[s].sum() for m in np.flatnonzero(audited) for s in (0, 1))
                if status[target, j] == RETAINED or least < 2:
                    continue
                logs = []
                for side in (0, 1):
                    v = fits[side][j]
                    own = variance == "per_record"
                    var = max(v.var(ddof=1) if own else pooled[side], 1e-8)
                    logs.append(norm.logpdf(x[target, j], v.mean(), var**0.5))
                ratios.setdefault(int(found.rows_N[j]), []).append(logs[0] - logs[1])
        result |= {(int(target), row): float(np.mean(r)) for row, r in ratios.items()}
    return result


@pytest.mark.parametrize(("reference", "variance"), WAYS)
def test_against_loops(reference: str, variance: str) -> None:
    """Records with too few models, with many, and others."""
    found = drawn(40, 12, 0.7, seed=5, queries=2)
    status = found.status_MN[:40].copy()
    status[:, 3] = RETAINED
    status[:2, 3], status[2:8, 3] = FORGOTTEN, UNSEEN
    status[:, 4] = np.random.default_rng(0).permutation(np.repeat([UNSEEN, FORGOTTEN], 20))
    found = replace(found, status_MN=np.tile(status, (3, 1)))
    slow = by_loops(found, reference, variance)
    fast = table(ulira(found, reference=reference, variance=variance))
    assert {row for _, row in slow} == set(found.rows_N) - {10}
    assert fast == pytest.approx(slow, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("reference", "variance"), WAYS)
def test_known_separation(reference: str, variance: str) -> None:
    """N(μ + d, 1) against N(μ, 1), 63 models a side: AUC Φ(d/√2), accuracy Φ(d/2)."""
    metrics = ulira(drawn(256, 100, 1.5), reference=reference, variance=variance).metrics
    assert metrics["ulira_auc"] == (pytest.approx(norm.cdf(1.5 / 2**0.5), abs=0.02), 192 * 100)
    assert metrics["ulira_acc"] == (pytest.approx(norm.cdf(0.75), abs=0.02), 100)
    assert metrics["ulira_bal_acc_half"][0] == pytest.approx(norm.cdf(0.75), abs=0.02)
    assert metrics["ulira_bal_acc_best"][0] >= metrics["ulira_bal_acc_half"][0]
    at_1pct = norm.sf(norm.isf(0.01) - 1.5)
    assert metrics["ulira_tpr_at_1pct"][0] == pytest.approx(at_1pct, abs=0.07)
    assert metrics["ulira_tpr_at_01pct"][0] < metrics["ulira_tpr_at_1pct"][0]


def test_unlearning_that_does_nothing_is_seen_as_lira_sees_the_original() -> None:
    """The same φ: as forgotten by models unlearned, and as members of originals."""
    found = drawn(128, 60, 2.0)
    alike = taken(found, range(128), range(60))
    status = np.where(alike.status_MN == RETAINED, UNSEEN, alike.status_MN).astype(np.int8)
    phi = np.random.default_rng(1).normal(size=(128, 60)) + 2 * (status == FORGOTTEN)
    unlearned = ulira(population(phi, status), reference="unlearned_out", variance="pooled")
    original = lira(population(phi, status, "original"), mode="online", variance="pooled")
    assert (unlearned.row == original.row).all()
    ranks = [one.score.argsort().argsort() for one in (unlearned, original)]
    assert np.corrcoef(*ranks)[0, 1] > 0.98
    both = unlearned.metrics["ulira_auc"][0], original.metrics["lira_auc"][0]
    assert both[0] == pytest.approx(both[1], abs=0.01)


@pytest.mark.tried(
    "U-LiRA with 16 models, all of which answer alike",
    "AUC and accuracy ½ within .004 (were .482 and .490), a rate of 1 % at 1 %",
)
@pytest.mark.parametrize(("reference", "variance"), WAYS)
def test_null_is_one_half_with_few_models(reference: str, variance: str) -> None:
    """The standard error of these means of 24 populations is .001, and of the rate .0003."""
    figures = null(partial(ulira, reference=reference, variance=variance), models=16)
    for name in ("auc", "acc", "bal_acc_half"):
        assert figures[name] == pytest.approx(0.5, abs=0.004), name
    assert figures["tpr_at_1pct"] == pytest.approx(0.01, abs=0.001)


def in_sample(side: int, seed: int) -> float:
    """Accuracy of Gaussians fitted on, and scored on, the same two alike samples."""
    x = np.random.default_rng(seed).normal(size=(2, side, 2000))
    a, b = (norm(one.mean(axis=0), one.std(axis=0)) for one in x)
    right = (a.logpdf(x[0]) > b.logpdf(x[0])).mean() + (a.logpdf(x[1]) <= b.logpdf(x[1])).mean()
    return float(right / 2)


@pytest.mark.parametrize(
    ("side", "fake"), [(4, 0.689), (8, 0.619), (16, 0.583), (32, 0.557), (64, 0.540)]
)
def test_leaving_one_out_guesses_where_in_sample_scoring_fakes_leakage(
    side: int, fake: float
) -> None:
    assert in_sample(side, 0) == pytest.approx(fake, abs=0.01)
    found = drawn(4 * side, 8000 // side, 0.0)
    metrics = ulira(found, reference="unlearned_out", variance="per_record").metrics
    for name in ("ulira_acc", "ulira_auc", "ulira_bal_acc_half"):
        assert metrics[name][0] == pytest.approx(0.5, abs=0.01), name
        assert metrics[name][0] < fake - 0.02
    assert metrics["ulira_bal_acc_best"][0] < 0.52, "nothing but the outputs may tell the sides"


@pytest.mark.parametrize("variance", ["per_record", "pooled"])
def test_declared_null_and_permuted_forgetting(variance: str) -> None:
    """Retrained models under attack, and unlearned ones under another matrix: chance."""
    found = drawn(64, 500, 2.0)
    retrained = replace(found, audited_M=tuple(kind == "retrained" for kind in found.kind_M))
    permuted = replace(found, status_MN=np.tile(keep(64, 500, 99), (3, 1)))
    for one in (retrained, permuted):
        metrics = ulira(one, reference="unlearned_out", variance=variance).metrics
        for name in ("ulira_acc", "ulira_auc"):
            assert metrics[name][0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("reference", "variance"), WAYS)
def test_no_nan_at_zero_variance(reference: str, variance: str) -> None:
    found = drawn(12, 40, 0.0)
    raised = (
        30.0 * (found.status_MN == FORGOTTEN) * (np.array(found.kind_M) != "retrained")[:, None]
    )
    for phi, auc in ((0 * raised, 0.5), (raised, 1.0)):
        logits = population(phi, found.status_MN).logits_MQNC
        scores = ulira(replace(found, logits_MQNC=logits), reference=reference, variance=variance)
        assert np.isfinite(scores.score).all()
        assert scores.metrics["ulira_auc"][0] == auc
        assert scores.metrics["ulira_acc"][0] == auc


@pytest.mark.parametrize(("reference", "variance"), WAYS)
def test_order_of_records_does_not_matter(reference: str, variance: str) -> None:
    found, records = drawn(16, 40, 1.0), np.random.default_rng(0).permutation(40)
    here = table(ulira(found, reference=reference, variance=variance))
    moved = taken(found, range(48), records)
    there = table(ulira(moved, reference=reference, variance=variance))
    assert there == pytest.approx(here, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("reference", "variance"), WAYS)
def test_order_of_models_changes_no_more_than_who_is_paired(reference: str, variance: str) -> None:
    found = drawn(32, 1000, 1.0)
    models = np.random.default_rng(0).permutation(96)
    here, there = (
        ulira(one, reference=reference, variance=variance).metrics["ulira_auc"][0]
        for one in (found, taken(found, models, range(1000)))
    )
    assert here != there
    assert here == pytest.approx(there, abs=0.01)


@pytest.mark.tried(
    "U-LiRA with attack.call.variance=per_record and 64 models, 15 of which a target leaves",
    "each record has a variance of its own, as asked for; the default is what was used: pooled",
)
@pytest.mark.parametrize("models", [12, 64])
def test_the_variance_is_the_one_asked_for(models: int) -> None:
    """A variance of its own knows nothing of the other records."""
    found = drawn(models, 60, 1.5)
    for variance in ("per_record", "pooled"):
        here, there = (
            table(ulira(one, reference="unlearned_out", variance=variance))
            for one in (found, taken(found, range(3 * models), range(30)))
        )
        same = all(here[pair] == score for pair, score in there.items())
        assert same == (variance == "per_record")


def test_a_record_does_not_depend_on_the_others() -> None:
    found = drawn(128, 60, 1.0)
    settings = {"reference": "unlearned_out", "variance": "per_record"}
    here = table(ulira(found, **settings))
    part = table(ulira(taken(found, range(384), range(30)), **settings))
    assert all(here[pair] == score for pair, score in part.items())


@pytest.mark.parametrize("reference", ["retrain", "original_out"])
def test_what_stems_from_the_same_rows_is_left_out_together(reference: str) -> None:
    """A target's own original and retrained pair say nothing about it."""
    found = drawn(16, 40, 1.0)
    here = table(ulira(found, reference=reference, variance="pooled"))
    logits = found.logits_MQNC.copy()
    logits[[16 + 3, 32 + 3]] += 5 * np.eye(2, dtype=np.float32)[found.y_N]
    moved = table(ulira(replace(found, logits_MQNC=logits), reference=reference, variance="pooled"))
    changed = {m for (m, row), score in here.items() if moved[m, row] != pytest.approx(score)}
    assert changed == set(range(16)) - {3}


def test_what_is_scored() -> None:
    found = drawn(16, 40, 1.0)
    scores = ulira(found, reference="unlearned_out", variance="pooled")
    status = found.status_MN[:16]
    assert len(scores.row) == (status != RETAINED).sum()
    assert (scores.member == (status == FORGOTTEN)[status != RETAINED]).all()


@pytest.mark.tried(
    "U-LiRA where log ratios are in the hundreds: its stored scores were all 1 from 37 on",
    "scores are log ratios, and give the AUC and the accuracy that are reported",
)
def test_scores_do_not_saturate(tmp_path: Path) -> None:
    """In half of the records one model that never saw it answers more than those that forgot it.

    The fit of its own score leaves it out, so its ratio is above theirs.
    """
    status, random = keep(32, 300), np.random.default_rng(0)
    phi = random.normal(size=status.shape) + 30 * (status == FORGOTTEN)
    odd = (status == UNSEEN).argmax(axis=0)[:150], np.arange(150)
    phi[odd] = 45 + random.normal(size=150)
    scores = ulira(population(phi, status), reference="unlearned_out", variance="per_record")
    assert (scores.score > 40).mean() > 0.1
    columns = {name: getattr(scores, name) for name in ("pool", "row", "member", "score")}
    n = len(scores.row)
    stored = parts.columns(schema.SCORES, n, key="k", place=np.arange(n), **columns)
    parts.write(tmp_path / "scores", "part", stored, schema.SCORES)
    frame = load.load_scores(tmp_path)
    inside, outside = (frame.score[frame.member == side].to_numpy() for side in (True, False))
    auc = scores.metrics["ulira_auc"][0]
    assert membership.auc(inside, outside) == auc
    assert 0.9 < auc < 0.999
    assert abs(membership.auc(expit(inside), expit(outside)) - auc) > 0.001, "what saturation costs"
    half = membership.balanced_accuracy(inside, outside, 0.0)
    assert scores.metrics["ulira_bal_acc_half"][0] == half


def test_what_it_cannot_do() -> None:
    found = drawn(16, 40, 1.0)
    with pytest.raises(ValueError, match=r"attack.call.reference=all: .* unlearned_out, retrain"):
        ulira(found, reference="all", variance="pooled")
    with pytest.raises(ValueError, match=r"attack.call.variance=raw: .* per_record, pooled"):
        ulira(found, reference="retrain", variance="raw")
    alone = taken(found, range(16), range(40))
    for reference in ("retrain", "original_out"):
        with pytest.raises(Skip, match=f"no {reference} model"):
            ulira(alone, reference=reference, variance="pooled")
    with pytest.raises(Skip, match="two other models"):
        ulira(taken(found, range(3), range(40)), reference="unlearned_out", variance="pooled")
    with pytest.raises(Skip, match="regression"):
        ulira(replace(found, y_N=found.y_N * 1.0), reference="retrain", variance="pooled")
