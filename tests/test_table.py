"""Rows of attacks: where a method stands between two controls, and how sure that is."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearnbench import config, metric, pipeline, results, table
from unlearnbench.cell import Cell
from unlearnbench.dp_sgd import epsilon
from unlearnbench.outputs import predictions
from unlearnbench.pipeline import Lab
from unlearnbench.values import FORGET, RETAIN, TEST

METHODS = ("original", "retrain", "finetune")
ENDS = {"lira": ("floor", "ceiling"), "double_output": ("null", "reference")}
AT = {"lira": ("retrain", "original"), "double_output": ("original", "retrain")}
"""The controls that stand at an attack's two ends."""


@cache
def composed() -> dict[tuple[str, str], Cell]:
    words = ["model=logreg", "train.call.epochs=2"]
    small = [
        "shadows.models=8",
        "shadows.pool=0.1",
        "zoo.originals=4",
        "zoo.requests=5",
        "zoo.size=40",
    ]
    names = [(attack, method) for attack in ENDS for method in METHODS]
    every = config.cells(
        [[*words, *small, f"attack={attack}", f"method={method}"] for attack, method in names]
    )
    return dict(zip(names, every, strict=True))


@pytest.fixture(scope="module")
def found(lab: Lab) -> dict[tuple[str, str], table.Found]:
    every = {name: table.rows(lab, one) for name, one in composed().items()}
    assert all(one.error is None for one in every.values())
    return every


Tables = dict[tuple[str, str], table.Found]


def told(one: table.Found) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in one.rows}


def per_model(one: table.Found) -> dict[str, float]:
    """AUC of each target model, from the scores that are written."""
    frame = one.scores.to_pandas()
    return {
        pool: metric.auc(*(group.score[group.member == side].to_numpy() for side in (True, False)))
        for pool, group in frame.groupby("pool")
    }


@pytest.mark.parametrize("attack", ENDS)
def test_ends_are_the_figures_of_the_controls_by_the_names_of_the_option(
    found: Tables, attack: str
) -> None:
    at = [told(found[attack, control])[f"{attack}_auc"] for control in AT[attack]]
    assert at[0] != at[1]
    for method in METHODS:
        row = told(found[attack, method])
        assert [row[f"{attack}_auc_{end}"] for end in ENDS[attack]] == at
        others = ENDS["double_output" if attack == "lira" else "lira"]
        assert not [name for name in row if name.endswith(others)]
        share = (row[f"{attack}_auc"] - at[0]) / (at[1] - at[0])
        assert row[f"{attack}_auc_normalised"] == pytest.approx(share)
    for place, control in enumerate(AT[attack]):
        assert told(found[attack, control])[f"{attack}_auc_normalised"] == place


def test_an_original_compared_with_itself_gives_nothing_away(found: Tables) -> None:
    """No output differs, so every score is the same."""
    row = told(found["double_output", "original"])
    assert row["double_output_auc"] == row["double_output_auc_null"] == 0.5
    assert [row["double_output_auc_low"], row["double_output_auc_high"]] == [0.5, 0.5]


@pytest.mark.parametrize("attack", ENDS)
def test_gap_is_to_retraining(found: Tables, attack: str) -> None:
    its = per_model(found[attack, "retrain"])
    for method in METHODS:
        row, mine = told(found[attack, method]), per_model(found[attack, method])
        name = f"{attack}_auc"
        assert mine.keys() == its.keys()
        gaps = np.array([mine[model] - its[model] for model in mine])
        middle = (row[f"{name}_gap_low"] + row[f"{name}_gap_high"]) / 2
        assert [middle, row[f"{name}_gap"]] == pytest.approx([gaps.mean()] * 2)
        assert row[f"{name}_gap_low"] <= gaps.mean() <= row[f"{name}_gap_high"]
        width = (row[f"{name}_gap_high"] - row[f"{name}_gap_low"]) / 2
        assert row[f"{name}_detectable"] >= width >= 0
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    same = told(found[attack, "retrain"])
    gap = ("gap", "gap_low", "gap_high", "detectable")
    assert [same[f"{attack}_auc_{what}"] for what in gap] == [0] * 4


def test_scores_name_the_target_model(found: Tables) -> None:
    for (attack, _), one in found.items():
        models = {"lira": 8, "double_output": 4}[attack]
        assert set(one.scores["pool"].to_pylist()) == {f"model {k:02d}" for k in range(models)}


def test_what_the_attacker_holds_stands_with_attacks_alone(found: Tables) -> None:
    for name, one in found.items():
        threats = {row["attack"]: row["threat"] for row in one.rows}
        assert threats == {"none": None, name[0]: composed()[name].attack["threat"]}
        assert threats[name[0]]


@pytest.mark.parametrize("attack", ENDS)
def test_curves(found: Tables, attack: str, tmp_path: Path) -> None:
    one = found[attack, "finetune"]
    path = results.write(tmp_path / "roc", "p", one.roc, results.ROC)
    curve: Any = results._read(path.parent, results.ROC).to_pandas()
    assert curve.key.unique().tolist() == [composed()[attack, "finetune"].key]
    n = int((~one.scores.to_pandas().member).sum())
    assert set(curve.others) == {n}
    assert (np.diff(curve.fpr) > 0).all()
    assert (np.diff(curve.tpr) >= 0).all()
    assert curve.fpr.iloc[0] == pytest.approx(1 / n)
    assert curve.tpr.between(0, 1).all()
    assert (curve.fpr.iloc[-1], curve.tpr.iloc[-1]) == (1, 1)
    frame = one.scores.to_pandas()
    inside, outside = (frame.score[frame.member == side].to_numpy() for side in (True, False))
    for alpha in (0.3, 0.7):
        last = curve[curve.fpr <= alpha].iloc[-1]
        assert last.tpr == metric.tpr_at_fpr(inside, outside, last.fpr)


def test_rows_from_what_is_stored_load_no_weights(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, found: Tables
) -> None:
    """Every attack on outputs runs from the predictions alone."""

    def refuse(*_: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(pipeline, "_load_model", refuse)
    monkeypatch.setattr(pipeline, "fresh", refuse)
    again = Lab(lab.store, lab.device)
    for name, one in composed().items():
        assert told(table.rows(again, one)) == pytest.approx(told(found[name]), nan_ok=True)


def test_private_training_tells_its_epsilon(lab: Lab) -> None:
    words = ["train=dp_sgd", "model=logreg", "train.call.epochs=1", "attack=none"]
    rows = {
        method: told(table.rows(lab, config.cells([[*words, f"method={method}"]])[0]))
        for method in ("original", "retrain", "finetune")
    }
    settings = {"epochs": 1, "batch_size": 64, "noise_multiplier": 1.2, "delta": 1e-5}
    for method, n in (("original", 1222), ("retrain", 1099)):
        assert rows[method]["epsilon"] == epsilon(n, **settings)
        assert rows[method]["delta"] == 1e-5
    assert "epsilon" not in rows["finetune"], "its steps see the rows as they are"


def test_divergence_from_retraining_is_that_of_the_outputs(lab: Lab, found: Tables) -> None:
    """Of each part's records in the stored outputs; of retraining to itself none."""
    rows = told(found["lira", "finetune"])
    ours, theirs = (predictions(lab, composed()["lira", name]) for name in ("finetune", "retrain"))
    js_N = metric.js_divergence(ours.logits_MQNC[0, 0], theirs.logits_MQNC[0, 0])
    for part, code in (("retain", RETAIN), ("forget", FORGET), ("test", TEST)):
        assert rows[f"js_{part}"] == pytest.approx(js_N[ours.split_N == code].mean())
    assert len({rows[f"js_{part}"] for part in ("retain", "forget", "test")}) == 3
    itself = told(found["lira", "retrain"])
    assert [itself[f"js_{part}"] for part in ("retain", "forget", "test")] == pytest.approx([0] * 3)


def test_rows_name_the_outputs_they_are_of(lab: Lab, found: Tables) -> None:
    one = composed()["lira", "finetune"]
    assert {row["predictions_key"] for row in found["lira", "finetune"].rows} == {
        one.predictions_key
    }
    assert lab.store.has(one.predictions_key)


def test_what_is_prepared_counts_against_a_method(lab: Lab) -> None:
    """Its seconds are its own, and with those of preparing it is that much slower."""
    words = ["model=mlp", "train.call.epochs=2", "method=amnesiac"]
    (cell,) = config.cells([words])
    rows = told(table.rows(lab, cell))
    own = lab.store.load(cell.model_key).manifest["seconds"]
    prepared = lab.store.load(cell.prepared_key).manifest["seconds"]
    assert rows["prepared_seconds"] == prepared
    assert rows["rte_prepared"] == pytest.approx(rows["rte"] * own / (own + prepared))
