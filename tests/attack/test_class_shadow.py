"""The class-wise shadow attack: what a slow loop finds, chance where nothing is, its defects."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from attack.populations import beside, phi_of, population, table, taken
from cells import Cells
from numpy.typing import NDArray
from scipy.stats import norm
from torch import nn

from unlearnbench.attack import class_shadow as module
from unlearnbench.attack.class_shadow import class_shadow
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions, Scores
from unlearnbench.metric import membership
from unlearnbench.metric.membership import bootstrap_auc
from unlearnbench.pipeline.rows import rows_of
from unlearnbench.pipeline.workspace import Workspace

CALL: dict[str, Any] = {"epochs": 6, "batch_size": 64, "lr": 3e-3, "held_out": 0.1, "seed": 0}
KINDS = ("original", "unlearned", "retrained")


def halves(models: int, n: int, seed: int) -> NDArray[np.int8]:
    """Each model has seen a random half, and is to forget class 1 of it."""
    random = np.random.default_rng(seed)
    seen = np.zeros((models, n), bool)
    for half in seen:
        half[random.permutation(n)[: n // 2]] = True
    forgotten = seen & (np.arange(n) % 2 == 1)
    return np.select([forgotten, seen], [FORGOTTEN, RETAINED], UNSEEN).astype(np.int8)


def drawn(
    kind: str,
    *,
    shift: float = 2.0,
    left: float = 0.0,
    level: float = 0.0,
    removed: float = 0.0,
    n: int = 120,
    shadows: int = 12,
    targets: int = 4,
    seed: int = 0,
) -> Predictions:
    """φ ~ N(level, 1), plus ``shift`` if trained on; of classes 0 and 1 the latter is forgotten.

    Unlearning leaves ``left`` of what is forgotten and takes ``removed`` off all of class 1. In the
    order of a real population: the models under attack, the other originals, retrained models.
    """
    random = np.random.default_rng(seed)
    status = halves(targets + shadows, n, seed)
    of_class = np.arange(n) % 2 == 1

    def models(one: str, places: slice) -> Predictions:
        part = status[places]
        effect = {"original": shift, "unlearned": left, "retrained": 0.0}[one]
        phi = random.normal(size=part.shape) + level
        phi += shift * (part == RETAINED) + effect * (part == FORGOTTEN)
        phi -= removed * of_class * (one != "original")
        return population(phi, part, one)

    first, last = slice(targets), slice(targets, None)
    others = [models("original", last)]
    if kind != "original":
        others.insert(0, models("original", first))
    if kind != "retrained":
        others.append(models("retrained", first))
    return beside(models(kind, first), *others)


def told(found: Predictions, **changed: Any) -> dict[str, float]:
    metrics = class_shadow(found, **{**CALL, **changed}).metrics
    return {name.removeprefix("class_shadow_"): value for name, (value, _) in metrics.items()}


def counts(scores: Scores) -> dict[str, int]:
    return {name.removeprefix("class_shadow_"): n for name, (_, n) in scores.metrics.items()}


# ---------------------------------------------------------------------------------------------
# All but the net, by loops.


class Steep(nn.Module):
    """A net that learns nothing: log-odds 7 (p_1 − .8)."""

    def forward(self, p: torch.Tensor) -> torch.Tensor:
        return 7 * (p[:, 1:] - 0.8)


def by_loops(found: Predictions) -> tuple[dict[tuple[int, int], float], dict[str, float], set[Any]]:
    """Scores by target and row, figures, and the records that are learnt from, as Steep has it."""
    phi = phi_of(found)[:, 0]
    models = range(len(found.kind_M))
    seen = [[bool(part != UNSEEN) for part in found.status_MN[m]] for m in models]
    targets = [m for m in models if found.audited_M[m]]
    shadows = [
        m
        for m in models
        if found.kind_M[m] == "original" and not any(seen[m] == seen[t] for t in targets)
    ]
    score, known = {}, {"": [], "_correct": []}  # type: ignore[var-annotated]
    inside: dict[str, list[float]] = {"": [], "_correct": []}
    outside: list[float] = []
    for j, label in enumerate(found.y_N):
        if label != 1:
            continue
        for m in shadows:
            p = 1 / (1 + np.exp(-phi[m, j]))
            known[""].append((p, seen[m][j]))
            if phi[m, j] > 0 or not seen[m][j]:
                known["_correct"].append((p, seen[m][j]))
        for m in targets:
            if found.status_MN[m, j] == RETAINED:
                continue
            (own,) = [k for k in models if found.kind_M[k] == "original" and seen[k] == seen[m]]
            z = 7 * (1 / (1 + np.exp(-phi[m, j])) - 0.8)
            score[m, int(found.rows_N[j])] = z
            if not seen[m][j]:
                outside.append(z)
                continue
            inside[""].append(z)
            if phi[own, j] > 0:
                inside["_correct"].append(z)
    figures = {}
    for name, members in inside.items():
        wins = sum((a > b) + (a == b) / 2 for a in members for b in outside)
        figures[f"recall{name}"] = sum(z > 0 for z in members) / len(members)
        figures[f"fpr{name}"] = sum(z > 0 for z in outside) / len(outside)
        figures[f"auc{name}"] = wins / (len(members) * len(outside))
        half = (figures[f"recall{name}"] + 1 - figures[f"fpr{name}"]) / 2
        figures[f"bal_acc{name}"] = half
    return score, figures, known  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_against_loops(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which records are learnt from and asked about, each score and each figure."""
    found = drawn(kind, level=-1.0, left=0.5, n=60)
    status = found.status_MN.copy()
    status[:, 5:20] = np.where(status[:, 5:20] == FORGOTTEN, RETAINED, status[:, 5:20])
    found = replace(found, status_MN=status)
    learnt = []

    def record(records: Any, **_: Any) -> nn.Module:
        learnt.append(
            sorted(zip(records.p_nC[:, 1].tolist(), records.member_n.tolist(), strict=True))
        )
        return Steep()

    monkeypatch.setattr(module, "_learnt", record)
    scores = class_shadow(found, **{**CALL, "held_out": 0.0})
    slow, figures, known = by_loops(found)
    assert table(scores) == pytest.approx(slow, rel=1e-9, abs=1e-9)
    for place, name in enumerate(("", "_correct")):
        assert [m for _, m in learnt[place]] == [m for _, m in sorted(known[name])]
        p = [p for p, _ in learnt[place]]
        assert p == pytest.approx([p for p, _ in sorted(known[name])], rel=1e-9, abs=1e-9)
    metrics = {k.removeprefix("class_shadow_"): v for k, (v, _) in scores.metrics.items()}
    assert {name: metrics[name] for name in figures} == pytest.approx(figures, rel=1e-9, abs=1e-9)
    assert len(learnt[1]) < len(learnt[0])
    assert figures["auc"] != figures["auc_correct"]


def test_what_is_held_out_is_not_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    found = drawn("original", n=60)
    learnt = []
    monkeypatch.setattr(module, "_learnt", lambda records, **_: learnt.append(records) or Steep())
    for held_out in (0.0, 0.1):
        scores = class_shadow(found, **{**CALL, "held_out": held_out})
        n = counts(scores)
        assert n["held_out_auc"] == round(held_out * 12 * 30)
        assert len(learnt[-2].p_nC) == 12 * 30 - n["held_out_auc"]
        assert n["held_out_recall"] + n["held_out_fpr"] == n["held_out_auc"]
        assert len(learnt[-1].p_nC) + n["held_out_auc_correct"] < 12 * 30
    drawn_apart = [set(map(tuple, learnt[i].p_nC.tolist())) for i in (0, 2)]
    assert drawn_apart[1] < drawn_apart[0]


# ---------------------------------------------------------------------------------------------
# The net, and the figures that theory gives.


def test_the_net_is_the_papers() -> None:
    """C – 256 – 128 – 1, ReLU and dropout ½ after both hidden layers, handed over in eval mode."""
    records = module._records(drawn("original", n=20), 1, np.array([4, 5]), np.array([4, 5]))
    net = module._learnt(records, epochs=1, batch_size=8, lr=1e-3, seed=0)
    layers = [str(layer).split("(")[0] for layer in net.children()]
    assert layers == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]  # type: ignore[attr-defined]
    assert [(one.in_features, one.out_features) for one in linear] == [
        (2, 256),
        (256, 128),
        (128, 1),
    ]
    assert {layer.p for layer in net if isinstance(layer, nn.Dropout)} == {0.5}  # type: ignore[attr-defined]
    assert not net.training


def test_known_separation() -> None:
    """N(d/2, 1) against N(−d/2, 1): AUC Φ(d/√2), recall Φ(d/2), FPR Φ(−d/2)."""
    got = told(drawn("original", shift=2.0, level=-1.0, n=400, targets=8))
    assert got["auc"] == pytest.approx(norm.cdf(2 / 2**0.5), abs=0.02)
    assert got["recall"] == pytest.approx(norm.cdf(1), abs=0.06)
    assert got["fpr"] == pytest.approx(norm.cdf(-1), abs=0.06)
    assert got["bal_acc"] == pytest.approx(norm.cdf(1), abs=0.02)
    assert got["bal_acc"] == pytest.approx((got["recall"] + 1 - got["fpr"]) / 2)
    assert got["held_out_auc"] == pytest.approx(norm.cdf(2 / 2**0.5), abs=0.06)


def test_unlearning_shows_by_what_it_leaves() -> None:
    aucs = [told(drawn("unlearned", left=left, n=240))["auc"] for left in (0.0, 1.0, 2.0)]
    assert aucs == pytest.approx([norm.cdf(left / 2**0.5) for left in (0, 1, 2)], abs=0.05)


def by_model(scores: Scores) -> list[Any]:
    pool = np.array(scores.pool)
    return [
        tuple(scores.score[(pool == one) & (scores.member == side)] for side in (True, False))
        for one in np.unique(pool)
    ]


def test_declared_null_retrained_models_are_at_chance() -> None:
    """They saw neither side: chance within the interval, though originals give it away."""
    ceiling = told(drawn("original", shift=3.0))
    assert ceiling["auc"] > 0.95
    found = drawn("retrained", shift=3.0, n=240, targets=8)
    low, high = bootstrap_auc(by_model(class_shadow(found, **CALL)), 200, 0)
    assert low < 0.5 < high
    assert high - low < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_chance_where_training_changes_nothing(kind: str) -> None:
    values = [told(drawn(kind, shift=0.0, n=80, seed=seed), epochs=3)["auc"] for seed in range(12)]
    assert abs(np.mean(values) - 0.5) < 3 * np.std(values) / 12**0.5


@pytest.mark.parametrize("kind", ["original", "unlearned"])
def test_chance_where_membership_is_permuted(kind: str) -> None:
    found = drawn(kind, shift=3.0, left=3.0, n=240)
    assert told(found)["auc"] > 0.95
    status = halves(16, 240, seed=99)
    every = {"original": [status, status[:4]], "unlearned": [status[:4], status, status[:4]]}[kind]
    permuted = class_shadow(replace(found, status_MN=np.concatenate(every)), **CALL)
    low, high = bootstrap_auc(by_model(permuted), 200, 0)
    assert low < 0.5 < high


# ---------------------------------------------------------------------------------------------
# What is wrong with the published figure.


def test_defect_the_filtered_recall_is_nothing_once_the_class_is_gone_whatever_leaks() -> None:
    """No record is called c any more: recall 0, with all of the trace left as without any."""
    before = told(drawn("original", level=1.0))
    assert before["recall_correct"] > 0.8
    for left, auc in ((3.0, norm.cdf(3 / 2**0.5)), (0.0, 0.5)):
        after = told(drawn("unlearned", level=1.0, left=left, removed=16.0))
        assert after["recall_correct"] == after["recall"] == after["fpr_correct"] == 0
        assert after["auc"] == pytest.approx(auc, abs=0.06)
    retrained = told(drawn("retrained", level=1.0, removed=16.0))
    assert retrained["recall_correct"] == 0
    assert retrained["auc"] == pytest.approx(0.5, abs=0.06)


def test_defect_recall_alone_does_not_tell_that_others_are_found_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever takes every record for a member has the best recall there is."""

    class Always(nn.Module):
        def forward(self, p: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(p[:, :1])

    monkeypatch.setattr(module, "_learnt", lambda records, **_: Always())
    got = told(drawn("original", level=0.5))
    for name in ("", "_correct"):
        assert got[f"recall{name}"] == got[f"fpr{name}"] == 1
        assert got[f"auc{name}"] == got[f"bal_acc{name}"] == 0.5


def test_defect_with_the_filter_a_null_is_not_at_chance() -> None:
    """What is easy for the original is so for the retrained model; of members only that counts."""
    random = np.random.default_rng(1)
    found = drawn("retrained", shift=0.0, n=240, seed=1)
    phi = phi_of(found)[:, 0] + 2 * random.normal(size=240)
    found = replace(found, logits_MQNC=population(phi, found.status_MN).logits_MQNC)
    easy = 2 * random.normal(size=2000)
    first, again, other = random.normal(size=(3, 2000)) + easy
    expected = membership.auc(again[first > 0], other)
    assert expected > 0.65
    got = told(found)
    assert got["auc"] == pytest.approx(0.5, abs=0.05)
    assert got["auc_correct"] == pytest.approx(expected, abs=0.06)


def test_the_evaluation_set_is_the_same_whatever_becomes_of_the_original() -> None:
    found = drawn("unlearned", level=0.3, removed=5.0)
    by_kind = {"unlearned": found}
    for kind in ("original", "retrained"):
        audited = [
            one == kind and bool((found.status_MN[:4] == status).all(axis=1).any())
            for one, status in zip(found.kind_M, found.status_MN, strict=True)
        ]
        by_kind[kind] = replace(found, audited_M=tuple(audited))
    every = {kind: class_shadow(one, **CALL) for kind, one in by_kind.items()}
    n = [counts(scores) for scores in every.values()]
    assert n[0] == n[1] == n[2]
    assert n[0]["recall_correct"] < n[0]["recall"]
    assert n[0]["fpr_correct"] == n[0]["fpr"]
    assert len({scores.row.tobytes() for scores in every.values()}) == 1


# ---------------------------------------------------------------------------------------------
# The contract of every attack.


def test_the_seed_is_all_there_is_to_chance() -> None:
    found = drawn("unlearned", left=1.0, n=60)
    state = torch.get_rng_state()
    one, same, other = (class_shadow(found, **{**CALL, "seed": seed}) for seed in (0, 0, 1))
    assert (one.score == same.score).all()
    assert one.metrics == same.metrics
    assert (one.score != other.score).any()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "changed", [{"epochs": 2}, {"batch_size": 8}, {"lr": 0.01}, {"held_out": 0.3}], ids=str
)
def test_every_setting_matters(changed: dict[str, Any]) -> None:
    found = drawn("original", n=60)
    one, other = (class_shadow(found, **{**CALL, **more}) for more in ({}, changed))
    assert (one.score != other.score).any()


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_records_and_models_does_not_matter(kind: str) -> None:
    found, random = drawn(kind, left=1.0, n=60), np.random.default_rng(0)
    models, records = random.permutation(len(found.kind_M)), random.permutation(60)
    here = class_shadow(found, **CALL)
    moved = class_shadow(taken(found, models, records), **CALL)
    there = {(int(models[m]), row): score for (m, row), score in table(moved).items()}
    assert there == pytest.approx(table(here), rel=1e-9, abs=1e-9)
    assert moved.metrics == {
        name: (pytest.approx(value, abs=1e-9), n) for name, (value, n) in here.metrics.items()
    }


def test_a_record_does_not_depend_on_its_batch_mates() -> None:
    """Nor on other targets, on records of other classes, or on retrained models."""
    found = drawn("unlearned", left=1.0, n=60)
    here, logits = table(class_shadow(found, **CALL)), found.logits_MQNC.copy()
    logits[1] *= 3
    logits[:, :, found.y_N == 0] += np.array([0, 5], np.float32)
    logits[-4:] += np.array([0, 5], np.float32)
    there = table(class_shadow(replace(found, logits_MQNC=logits), **CALL))
    for (m, row), score in here.items():
        assert (there[m, row] == pytest.approx(score, rel=1e-9, abs=1e-9)) == (m != 1)


def test_a_targets_own_original_is_not_learnt_from() -> None:
    """It fixes which members count with the filter, and nothing else."""
    found = drawn("unlearned", left=1.0, n=60)
    logits = found.logits_MQNC.copy()
    logits[4:8] *= -1
    here, there = (class_shadow(one, **CALL) for one in (found, replace(found, logits_MQNC=logits)))
    assert (here.score == there.score).all()
    assert (
        here.metrics["class_shadow_recall_correct"] != there.metrics["class_shadow_recall_correct"]
    )
    assert (
        here.metrics["class_shadow_held_out_auc_correct"]
        == (there.metrics["class_shadow_held_out_auc_correct"])
    )


def test_what_is_scored() -> None:
    found = drawn("unlearned", left=1.0, n=60)
    scores = class_shadow(found, **CALL)
    status = found.status_MN[:4, 1::2]
    assert sorted(set(scores.pool)) == [f"model {m:02d}" for m in range(4)]
    assert scores.row.tolist() == found.rows_N[1::2].tolist() * 4
    assert (scores.member == (status == FORGOTTEN).ravel()).all()
    assert counts(scores)["auc"] == len(scores.row) == 4 * 30
    assert scores.metrics["class_shadow_auc"][0] == pytest.approx(
        membership.auc(scores.score[scores.member], scores.score[~scores.member])
    )


@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_no_nan_where_all_agree(kind: str, scale: float) -> None:
    """Every record at ½, and every record at 0 or 1."""
    found = drawn(kind, n=40)
    found = replace(found, logits_MQNC=np.sign(found.logits_MQNC) * np.float32(scale))
    scores = class_shadow(found, **CALL)
    assert np.isfinite(scores.score).all()
    for name in ("recall", "fpr", "bal_acc", "auc"):
        assert np.isfinite(scores.metrics[f"class_shadow_{name}"][0])
    if not scale:
        assert scores.metrics["class_shadow_auc"][0] == 0.5
        assert scores.metrics["class_shadow_bal_acc"][0] == 0.5


def test_where_no_member_is_called_by_its_class_only_filtered_figures_are_missing() -> None:
    found = drawn("original", level=-40.0, n=40)
    scores = class_shadow(found, **CALL)
    for name, (value, n) in scores.metrics.items():
        assert np.isnan(value) == name.endswith("_correct"), name
        assert n > 0 or name.endswith("_correct")


def test_it_leaves_what_it_is_given_as_it_was() -> None:
    found = drawn("unlearned", n=40)
    before = found.logits_MQNC.copy(), found.status_MN.copy()
    class_shadow(found, **CALL)
    assert (found.logits_MQNC == before[0]).all()
    assert (found.status_MN == before[1]).all()


def test_what_it_cannot_do() -> None:
    found = drawn("unlearned", n=40)
    status = found.status_MN
    with pytest.raises(ValueError, match=r"attack.call.held_out=1: must be 0 or more"):
        class_shadow(found, **{**CALL, "held_out": 1})
    with pytest.raises(Skip, match="regression"):
        class_shadow(replace(found, y_N=found.y_N * 1.0), **CALL)
    with pytest.raises(Skip, match="no model under attack"):
        class_shadow(replace(found, audited_M=(False,) * len(found.kind_M)), **CALL)
    several = np.where(status == RETAINED, FORGOTTEN, status)
    with pytest.raises(Skip, match=r"one forgotten class, as of forget=by_class: 2 classes are"):
        class_shadow(replace(found, status_MN=several), **CALL)
    nothing = np.where(status == FORGOTTEN, RETAINED, status)
    with pytest.raises(Skip, match=r"forget=by_class: nothing is"):
        class_shadow(replace(found, status_MN=nothing), **CALL)
    every = range(40)
    with pytest.raises(Skip, match="none is left to learn from"):
        class_shadow(taken(found, [*range(8), *range(20, 24)], every), **CALL)
    with pytest.raises(Skip, match="has no original"):
        class_shadow(taken(found, [m for m in range(24) if m != 5], every), **CALL)
    one_sided = status.copy()
    one_sided[:4, 1::2] = FORGOTTEN
    with pytest.raises(Skip, match=r"has no"):
        class_shadow(replace(found, status_MN=one_sided), **CALL)
    one_sided = status.copy()
    one_sided[8:20, 1::2] = UNSEEN
    with pytest.raises(Skip, match=r"a side has no record of class 1"):
        class_shadow(replace(found, status_MN=one_sided), **CALL)
    with pytest.raises(Skip, match=r"too few shadow records of class 1"):
        class_shadow(taken(found, [0, 4, 8], range(12)), **{**CALL, "held_out": 0.9})
    logits = found.logits_MQNC.copy()
    logits[9, 0, 1, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        class_shadow(replace(found, logits_MQNC=logits), **CALL)


# ---------------------------------------------------------------------------------------------
# In the harness.


SMALL = ("model=logreg", "train.call.epochs=3", "forget=by_class", "forget.call.label=3")
SMALL += ("attack=class_shadow", "attack.shadow_models.models=4", "attack.shadow_models.targets=2")
SMALL += ("attack.call.epochs=3",)


CONTROLS = ("original", "retrain", "second_retrain")


@pytest.fixture(scope="module")
def in_the_harness(workspace: Workspace, cell: Cells) -> dict[str, dict[str, Any]]:
    """Rows by method and metric."""
    found = {method: rows_of(workspace, cell(*SMALL, f"method={method}")) for method in CONTROLS}
    assert all(one.error is None for one in found.values())
    return {method: {row["metric"]: row for row in one.rows} for method, one in found.items()}


def test_rows_have_both_ends_and_the_same_records(in_the_harness: dict[str, Any]) -> None:
    for rows in in_the_harness.values():
        for name in ("class_shadow_auc", "class_shadow_recall_correct"):
            for end, control in (("floor", "retrain"), ("ceiling", "original")):
                other = in_the_harness[control][name]
                assert rows[f"{name}_{end}"]["value"] == other["value"]
                assert rows[name]["n"] == other["n"]
        assert {f"class_shadow_auc_{what}" for what in ("gap", "low", "detectable")} <= rows.keys()


def test_the_published_figure_is_nothing_for_whoever_never_saw_the_class(
    in_the_harness: dict[str, Any],
) -> None:
    recall = {m: rows["class_shadow_recall_correct"] for m, rows in in_the_harness.items()}
    assert recall["original"]["value"] > 0
    assert recall["retrain"]["value"] == recall["second_retrain"]["value"] == 0


def test_a_forget_set_of_many_classes_is_skipped(workspace: Workspace, cell: Cells) -> None:
    words = [word for word in SMALL if not word.startswith("forget")]
    found = rows_of(workspace, cell(*words, "train.call.epochs=1", "method=retrain"))
    assert isinstance(found.error, Skip)
    assert [row["status"] for row in found.rows if row["attack"] == "class_shadow"] == ["skipped"]
    assert "forget=by_class: 10 classes" in str(found.error)
