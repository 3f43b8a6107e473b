"""What deletions change in parameters: as training and methods do it, one row at a time."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.numpy import load

from unlearnbench import config, convex, exact, outputs, pipeline, results, table, worker
from unlearnbench.attack import hrec
from unlearnbench.cell import Cell
from unlearnbench.deletion import deletions, one
from unlearnbench.model.linear import Linear
from unlearnbench.pipeline import Lab
from unlearnbench.plan import Job
from unlearnbench.report import curves
from unlearnbench.split import split_of

TABLES = ("diabetes", "wine")


@cache
def cell(*words: str) -> Cell:
    given = ["model=ridge", "train=exact", "attack=hrec", "method=retrain", "deletions.count=4"]
    (found,) = config.cells([[*given, *words]])
    return found


def stored(lab: Lab, found: Cell) -> dict[str, Any]:
    each = deletions(found)
    assert each is not None
    outputs.predict(lab, each)
    return dict(load(lab.store.load(each.predictions_key).read(outputs.OUTPUTS)))


def values(found: table.Found) -> dict[str, float]:
    assert found.error is None, found.error
    return {row["metric"]: row["value"] for row in found.rows if row["status"] == "ok"}


def skipped(lab: Lab, *words: str) -> str:
    rows = [row for row in table.rows(lab, cell(*words)).rows if row["status"] != "ok"]
    assert {row["status"] for row in rows} == {"skipped"}
    return str(rows[-1]["reason"])


@pytest.mark.parametrize(
    "words",
    [
        ("dataset=diabetes",),
        ("dataset=diabetes", "train.call.form=mean", "train.call.lam=0.01"),
        ("dataset=wine", "model=softmax_regression"),
        ("dataset=wine", "model=svm", "model.call.intercept=free"),
        ("dataset=wine", "model=ridge", "model.call.features=30"),
    ],
)
def test_retraining_is_training_without_the_row(lab: Lab, words: tuple[str, ...]) -> None:
    found = stored(lab, cell(*words))
    each = deletions(cell(*words))
    assert each is not None
    data = pipeline.dataset(each)
    before = pipeline.original(lab, each)
    assert isinstance(before, Linear)
    assert_allclose(found["theta_PC"], before.theta_PC, atol=1e-7)
    for k in range(4):
        todo = pipeline.task(one(each, k), data, split_of(one(each, k), data))
        after = todo.fit(todo.fresh(), todo.retain)
        assert isinstance(after, Linear)
        assert_allclose(found["delta_KPC"][k], after.theta_PC - before.theta_PC, atol=1e-7)
    assert found["residual_K"].max() < 1e-6
    assert found["n_1"] == len(split_of(each, data).train)


@pytest.mark.parametrize("method", ["finetune", "ssd", "influence"])
def test_a_method_works_on_a_copy_once_for_each_deletion(lab: Lab, method: str) -> None:
    about = cell("dataset=wine", "model=softmax_regression", f"method={method}")
    each = deletions(about)
    assert each is not None
    found = stored(lab, about)
    before = pipeline.original(lab, each)
    assert isinstance(before, Linear)
    assert (found["theta_PC"] == before.theta_PC).all()
    for k in (0, 3):
        after = pipeline.passing(lab, one(each, k))
        assert isinstance(after, Linear)
        assert (found["delta_KPC"][k] == after.theta_PC - before.theta_PC).all()
    goal = exact.objective(before, about.train["call"])
    data = pipeline.dataset(each)
    parts = split_of(one(each, 3), data)
    retain = pipeline.batches(each, data, parts.retain, "retain")
    x_NP, t_NC = exact.data(goal, before, retain)
    at_PC = found["theta_PC"] + found["delta_KPC"][3]
    slope = x_NP.T @ goal.slope(x_NP @ at_PC, t_NC) + at_PC
    assert found["residual_K"][3] == pytest.approx(np.abs(slope).max())


def test_influence_is_nearly_retraining(lab: Lab) -> None:
    """One Newton step, with the penalty for damping; its gradients are the loss's alone."""
    words = ("dataset=wine", "train.call.lam=0.6")  # of 60 rows
    step = ("method=influence", "method.call.damping=0.01", "method.call.residual=1e-8")
    exactly, near = (stored(lab, cell(*words, *more))["delta_KPC"] for more in ((), step))
    for a, b in zip(near, exactly, strict=True):
        assert (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) > 0.98


def test_a_training_that_draws_is_done_anew_with_other_draws(lab: Lab) -> None:
    words = ("dataset=wine", "model=softmax_regression", "train=default", "train.call.epochs=2")
    words += ("train.call.batch_size=16",)
    found = stored(lab, cell(*words, "deletions.count=2"))
    each = deletions(cell(*words, "deletions.count=2"))
    assert each is not None
    data = pipeline.dataset(each)
    for k in range(2):
        parts = split_of(one(each, k), data)
        same = pipeline.task(each, data, parts)
        twin = same.fit(same.fresh(), same.retain)
        assert isinstance(twin, Linear)
        after = found["theta_PC"] + found["delta_KPC"][k]
        assert not np.allclose(after, twin.theta_PC, atol=1e-6)
        assert_allclose(after, twin.theta_PC, atol=0.2)
    told = values(table.rows(lab, cell(*words, "deletions.count=2")))
    assert told["deletion_residual"] > 1e-3
    assert -1 <= told["hrec_cos"] <= 1


@pytest.mark.parametrize("name", TABLES)
def test_the_attack_end_to_end(lab: Lab, name: str) -> None:
    """Rows as the numerics give them, from the data on."""
    about = cell(f"dataset={name}", "deletions.count=20")
    found = table.rows(lab, about)
    told = values(found)
    each = deletions(about)
    assert each is not None
    data = pipeline.dataset(each)
    parts = split_of(each, data)
    net, x = pipeline.fresh(each, data), data.x.double().numpy()
    assert isinstance(net, Linear)
    goal = exact.objective(net, about.train["call"])
    private, public = parts.train.numpy(), parts.test.numpy()
    t = goal.targets(data.y.numpy(), data.n_classes)
    deleted = convex.delete(goal, goal.features(x[private]), t[private], np.arange(20))
    guess = hrec.reconstruct(goal, deleted, goal.features(x[public]), t[public], label="auto")
    cosines = hrec.cosine(guess.x_KF, x[private[:20]])
    assert told["hrec_cos"] == pytest.approx(cosines.mean())
    assert told["hrec_cos_median"] == pytest.approx(np.median(cosines))
    mean = hrec.cosine(x[public].mean(axis=0)[None], x[private[:20]])
    assert told["avg_cos"] == pytest.approx(mean.mean())
    assert told["hrec_cos"] > max(told["max_diff_cos"], told["avg_cos"], told["hrec_null_cos"])
    scores = found.scores.to_pandas()
    assert scores.groupby("pool").size().to_dict() == {"avg": 20, "hrec": 20, "max_diff": 20}
    ours = scores[scores["pool"] == "hrec"]
    assert ours["row"].tolist() == private[:20].tolist()
    assert_allclose(ours["score"], cosines)
    assert (told["hrec_cos_reference"], told["hrec_cos_normalised"]) == (told["hrec_cos"], 1.0)
    assert told["hrec_cos_null"] == told["hrec_null_cos"]
    assert told["hrec_cos_gap"] == told["hrec_cos_gap_high"] == 0
    assert told["hrec_cos_low"] < told["hrec_cos"] < told["hrec_cos_high"]
    assert ("hrec_label_acc" in told) == bool(data.n_classes)
    assert ("hrec_target_error" in told) != bool(data.n_classes)
    assert found.picture is None
    assert found.roc is None


def test_a_method_is_held_to_retraining(lab: Lab) -> None:
    words = ("dataset=wine", "deletions.count=20")
    retrained, own = (
        values(table.rows(lab, cell(*words, method))) for method in ("method=retrain", "method=ssd")
    )
    assert own["hrec_cos_reference"] == retrained["hrec_cos"]
    assert own["hrec_cos_gap"] == pytest.approx(own["hrec_cos"] - retrained["hrec_cos"])
    assert own["hrec_cos_gap_low"] < own["hrec_cos_gap"] < own["hrec_cos_gap_high"]


def test_of_features_the_inputs_are_sought(lab: Lab) -> None:
    words = ("dataset=wine", "model.call.features=40", "deletions.count=6")
    told = values(table.rows(lab, cell(*words, "attack.call.steps=60")))
    assert told["hrec_embedding_cos"] > 0.8
    assert told["hrec_cos"] > 0.6
    assert told["hrec_cos"] > told["max_diff_cos"]


def test_of_images_there_is_a_picture(lab: Lab) -> None:
    found = table.rows(lab, cell("dataset=digits", "deletions.count=30"))
    values(found)
    assert found.picture is not None
    height, width, _ = found.picture.shape
    assert width == 4 * (64 + 4) + 4
    assert (height - 17) % 68 == 0


def test_a_job_leaves_rows_scores_and_pictures(lab: Lab, tmp_path: Path) -> None:
    about = cell("dataset=digits", "deletions.count=30")
    worker.perform(Job("rows", 64 * "0", (about,), (), 3), lab, tmp_path, lambda key: None)
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.name == f"digits-ridge-exact-retrain-hrec-seed0-{about.key[:8]}.png"
    wide = results.load_results(tmp_path, wide=True)
    (curve,) = curves.draw(wide, tmp_path)
    assert curve.name == "cosine-digits-ridge-exact-attack.deletions.count_30.png"
    ours = results.load_scores(tmp_path, [about.key])
    assert ours.groupby("pool")["score"].mean()["hrec"] == pytest.approx(wide["hrec_cos"][0])
    assert results.load_scores(tmp_path, ["other"]).empty


def test_what_cannot_be_attacked_is_skipped_with_its_reason(lab: Lab) -> None:
    wine = "dataset=wine"
    assert "the original has deleted nothing" in skipped(lab, wine, "method=original")
    hinge = ("model=svm", "model.call.loss=hinge")
    assert "the hinge has no curvature" in skipped(lab, wine, *hinge)
    by_sgd = ("train=default", "train.call.epochs=1")
    assert "the hinge has no curvature" in skipped(lab, wine, *hinge, *by_sgd)
    assert "without a temperature" in skipped(lab, wine, "train=temperature", by_sgd[1])
    assert "model=mlp is none of these" in skipped(lab, wine, "model=mlp", *by_sgd)
    assert "no one vector" in skipped(lab, wine, "method=sisa_retrain")
    assert "several rows" in skipped(lab, wine, "deletions.together=2")
    assert "changes outputs" in skipped(lab, wine, "defense=rounding")
    assert "tells classes apart" in skipped(lab, "dataset=diabetes", "model=svm")


def test_weights_that_are_not_finite_fail_in_a_row(lab: Lab) -> None:
    wild = ("dataset=wine", "model=ridge", "method=gradient_ascent", "method.call.sgd.lr=1e30")
    found = table.rows(lab, replace(cell(*wild)))
    assert {row["status"] for row in found.rows if row["attack"] == "hrec"} == {"failed"}


def test_private_training_is_attacked_with_noise_of_its_own(lab: Lab) -> None:
    """Same noise before and after would leave the record's gradient in plain sight."""
    words = ("dataset=wine", "model=softmax_regression", "train=dp_sgd", "train.call.epochs=2")
    found = stored(lab, cell(*words, "deletions.count=3"))
    a, b, _ = found["delta_KPC"]
    assert np.linalg.norm(a - b) > 0.1 * np.linalg.norm(a)
    assert torch.isfinite(torch.tensor(found["delta_KPC"])).all()
