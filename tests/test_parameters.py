"""What deletions change in parameters: as training and methods do it, one row at a time."""

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cells import composed
from numpy.testing import assert_allclose
from safetensors.numpy import load
from torch import nn

from unlearnbench.attack import _gradient_inversion, _judged, _rank_one
from unlearnbench.convex import deletion
from unlearnbench.core.cell import Cell
from unlearnbench.model.linear import Linear
from unlearnbench.pipeline import inputs, models, outputs, parameters
from unlearnbench.pipeline.rows import Found, rows_of
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.protocol._audit import NetAudit
from unlearnbench.protocol.single_deletions import SingleDeletions
from unlearnbench.results.load import load_results, load_scores
from unlearnbench.sweep import worker
from unlearnbench.sweep.plan import Job
from unlearnbench.train import exact, gradient

TABLES = ("diabetes", "wine")


@cache
def cell(*words: str) -> Cell:
    given = [
        "model=ridge",
        "train=exact",
        "attack=hrec",
        "method=retrain",
        "single_deletions.count=4",
    ]
    found = composed(*given, *words)
    return found


def stored(workspace: Workspace, found: Cell) -> dict[str, Any]:
    (each,) = SingleDeletions.models(found)
    outputs.predict(workspace, each)
    return dict(load(workspace.store.load(each.predictions_key).read(outputs.OUTPUTS)))


def values(found: Found) -> dict[str, float]:
    assert found.error is None, found.error
    return {row["metric"]: row["value"] for row in found.rows if row["status"] == "ok"}


def skipped(workspace: Workspace, *words: str) -> str:
    rows = [row for row in rows_of(workspace, cell(*words)).rows if row["status"] != "ok"]
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
def test_retraining_is_training_without_the_row(
    workspace: Workspace, words: tuple[str, ...]
) -> None:
    found = stored(workspace, cell(*words))
    (each,) = SingleDeletions.models(cell(*words))
    data = inputs.dataset(each)
    before = models.original(workspace, each)
    assert isinstance(before, Linear)
    assert_allclose(found["theta_PC"], before.theta_PC, atol=1e-7)
    for k in range(4):
        todo = inputs.task(each.only(k), data, split_of(each.only(k), data))
        after = todo.fit(todo.fresh(), todo.retain)
        assert isinstance(after, Linear)
        assert_allclose(found["delta_KPC"][k], after.theta_PC - before.theta_PC, atol=1e-7)
    assert found["residual_K"].max() < 1e-6
    assert found["n_1"] == len(split_of(each, data).train)


@pytest.mark.parametrize("method", ["finetune", "ssd", "influence"])
def test_a_method_works_on_a_copy_once_for_each_deletion(workspace: Workspace, method: str) -> None:
    about = cell("dataset=wine", "model=softmax_regression", f"method={method}")
    (each,) = SingleDeletions.models(about)
    found = stored(workspace, about)
    before = models.original(workspace, each)
    assert isinstance(before, Linear)
    assert (found["theta_PC"] == before.theta_PC).all()
    for k in (0, 3):
        after = models.ephemeral_model(workspace, each.only(k))
        assert isinstance(after, Linear)
        assert (found["delta_KPC"][k] == after.theta_PC - before.theta_PC).all()
    goal = exact.objective(before, about.train["call"])
    data = inputs.dataset(each)
    parts = split_of(each.only(3), data)
    retain = inputs.batches(each, data, parts.retain, "retain")
    x_NP, t_NC = exact.data(goal, before, retain)
    at_PC = found["theta_PC"] + found["delta_KPC"][3]
    slope = x_NP.T @ goal.slope(x_NP @ at_PC, t_NC) + at_PC
    assert found["residual_K"][3] == pytest.approx(np.abs(slope).max())


def test_influence_is_nearly_retraining(workspace: Workspace) -> None:
    """One Newton step, with the penalty for damping; its gradients are the loss's alone."""
    words = ("dataset=wine", "train.call.lam=0.6")  # of 60 rows
    step = ("method=influence", "method.call.damping=0.01", "method.call.residual=1e-8")
    exactly, near = (stored(workspace, cell(*words, *more))["delta_KPC"] for more in ((), step))
    for a, b in zip(near, exactly, strict=True):
        assert (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) > 0.98


def test_a_training_that_draws_is_done_anew_with_other_draws(workspace: Workspace) -> None:
    words = ("dataset=wine", "model=softmax_regression", "train=default", "train.call.epochs=2")
    words += ("train.call.batch_size=16",)
    found = stored(workspace, cell(*words, "single_deletions.count=2"))
    (each,) = SingleDeletions.models(cell(*words, "single_deletions.count=2"))
    data = inputs.dataset(each)
    for k in range(2):
        parts = split_of(each.only(k), data)
        same = inputs.task(each, data, parts)
        twin = same.fit(same.fresh(), same.retain)
        assert isinstance(twin, Linear)
        after = found["theta_PC"] + found["delta_KPC"][k]
        assert not np.allclose(after, twin.theta_PC, atol=1e-6)
        assert_allclose(after, twin.theta_PC, atol=0.2)
    told = values(rows_of(workspace, cell(*words, "single_deletions.count=2")))
    assert told["deletion_residual"] > 1e-3
    assert -1 <= told["hrec_cos"] <= 1


@pytest.mark.parametrize("name", TABLES)
def test_the_attack_end_to_end(workspace: Workspace, name: str) -> None:
    """Rows as the numerics give them, from the data on."""
    about = cell(f"dataset={name}", "single_deletions.count=20")
    found = rows_of(workspace, about)
    told = values(found)
    (each,) = SingleDeletions.models(about)
    data = inputs.dataset(each)
    parts = split_of(each, data)
    net, x = inputs.fresh(each, data), data.x.double().numpy()
    assert isinstance(net, Linear)
    goal = exact.objective(net, about.train["call"])
    private, public = parts.train.numpy(), parts.test.numpy()
    t = goal.targets(data.y.numpy(), data.n_classes)
    deleted = deletion.delete(goal, goal.features(x[private]), t[private], np.arange(20))
    guess = _rank_one.reconstruct(goal, deleted, goal.features(x[public]), t[public], label="auto")
    cosines = _judged.cosine(guess.x_KF, x[private[:20]])
    assert told["hrec_cos"] == pytest.approx(cosines.mean())
    assert told["hrec_cos_median"] == pytest.approx(np.median(cosines))
    mean = _judged.cosine(x[public].mean(axis=0)[None], x[private[:20]])
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


def test_a_method_is_held_to_retraining(workspace: Workspace) -> None:
    words = ("dataset=wine", "single_deletions.count=20")
    retrained, own = (
        values(rows_of(workspace, cell(*words, method)))
        for method in ("method=retrain", "method=ssd")
    )
    assert own["hrec_cos_reference"] == retrained["hrec_cos"]
    assert own["hrec_cos_gap"] == pytest.approx(own["hrec_cos"] - retrained["hrec_cos"])
    assert own["hrec_cos_gap_low"] < own["hrec_cos_gap"] < own["hrec_cos_gap_high"]


def test_of_features_the_inputs_are_sought(workspace: Workspace) -> None:
    words = ("dataset=wine", "model.call.features=40", "single_deletions.count=6")
    told = values(rows_of(workspace, cell(*words, "attack.call.steps=60")))
    assert told["hrec_embedding_cos"] > 0.8
    assert told["hrec_cos"] > 0.6
    assert told["hrec_cos"] > told["max_diff_cos"]


def test_of_images_there_is_a_picture(workspace: Workspace) -> None:
    found = rows_of(workspace, cell("dataset=digits", "single_deletions.count=30"))
    values(found)
    assert found.picture is not None
    height, width, _ = found.picture.shape
    assert width == 4 * (64 + 4) + 4
    assert (height - 17) % 68 == 0


def test_a_job_leaves_rows_scores_and_pictures(workspace: Workspace, tmp_path: Path) -> None:
    about = cell("dataset=digits", "single_deletions.count=30")
    worker.run_job(Job("rows", 64 * "0", (about,), (), 3), workspace, tmp_path, lambda key: None)
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.name == f"digits-ridge-exact-retrain-hrec-seed0-{about.key[:8]}.png"
    wide = load_results(tmp_path, wide=True)
    ours = load_scores(tmp_path, [about.key])
    assert ours.groupby("pool")["score"].mean()["hrec"] == pytest.approx(wide["hrec_cos"][0])
    assert load_scores(tmp_path, ["other"]).empty


def test_what_cannot_be_attacked_is_skipped_with_its_reason(workspace: Workspace) -> None:
    wine = "dataset=wine"
    assert "the original has deleted nothing" in skipped(workspace, wine, "method=original")
    hinge = ("model=svm", "model.call.loss=hinge")
    assert "the hinge has no curvature" in skipped(workspace, wine, *hinge)
    by_sgd = ("train=default", "train.call.epochs=1")
    assert "the hinge has no curvature" in skipped(workspace, wine, *hinge, *by_sgd)
    assert "without a temperature" in skipped(workspace, wine, "train=temperature", by_sgd[1])
    trees = ("model=decision_tree", "train=estimator")
    assert "model=decision_tree is none of these" in skipped(workspace, wine, *trees)
    assert "a regression has none" in skipped(workspace, "dataset=diabetes", "model=mlp", *by_sgd)
    assert "no one vector" in skipped(workspace, wine, "method=sisa_retrain")
    assert "several rows" in skipped(workspace, wine, "single_deletions.together=2")
    assert "changes outputs" in skipped(workspace, wine, "defense=rounding")
    assert "tells classes apart" in skipped(workspace, "dataset=diabetes", "model=svm")


def test_weights_that_are_not_finite_fail_in_a_row(workspace: Workspace) -> None:
    wild = ("dataset=wine", "model=ridge", "method=gradient_ascent", "method.call.sgd.lr=1e9")
    found = rows_of(workspace, replace(cell(*wild)))
    assert {row["status"] for row in found.rows if row["attack"] == "hrec"} == {"failed"}


def test_private_training_is_attacked_with_noise_of_its_own(workspace: Workspace) -> None:
    """Same noise before and after would leave the record's gradient in plain sight."""
    words = ("dataset=wine", "model=softmax_regression", "train=dp_sgd", "train.call.epochs=2")
    found = stored(workspace, cell(*words, "single_deletions.count=3"))
    a, b, _ = found["delta_KPC"]
    assert np.linalg.norm(a - b) > 0.1 * np.linalg.norm(a)
    assert torch.isfinite(torch.tensor(found["delta_KPC"])).all()


# ---------------------------------------------------------------------------------------------
# Nets.


NET = (
    "dataset=wine",
    "model=mlp",
    "train=default",
    "train.call.epochs=5",
    "single_deletions.count=3",
)
BRIEF = ("attack.call.restarts=1", "attack.call.steps=20")


def of_net(workspace: Workspace, *words: str) -> tuple[Cell, dict[str, Any], nn.Module]:
    (each,) = SingleDeletions.models(cell(*NET, *words))
    return each, stored(workspace, cell(*NET, *words)), models.original(workspace, each)


def test_a_net_is_retrained_with_the_same_draws(workspace: Workspace) -> None:
    """Same start, same batches but for the record: the loop of training, written out here."""
    each, found, before = of_net(workspace, "train.call.batch_size=16")
    data, theta = inputs.dataset(each), gradient.theta(before).numpy()
    whole = inputs.task(each.original(), data, split_of(each, data).hide_forget())
    net = inputs.fresh(each, data)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + np.cos(np.pi * epoch / 5)) / 2
        for x, _ in whole.train.batched(16):
            rows = [int((data.x == row).all(dim=1).nonzero()[0]) for row in x]
            kept = [row for row in rows if row != split_of(each.only(1), data).forget]
            optimizer.zero_grad()
            F.cross_entropy(net(data.x[kept]), data.y[kept]).backward()
            optimizer.step()
    assert_allclose(found["theta_KP"][1], gradient.theta(net), atol=1e-5)
    assert np.linalg.norm(found["theta_KP"] - theta, axis=1).min() > 1e-3


def test_a_private_net_is_retrained_with_other_noise(workspace: Workspace) -> None:
    private = ("train=dp_sgd", "train.call.epochs=1")
    _, found, before = of_net(workspace, *private)
    a, b, _ = found["theta_KP"] - gradient.theta(before).numpy()
    assert np.linalg.norm(a - b) > 0.1 * np.linalg.norm(a)


def test_a_method_works_on_a_copy_of_the_net(workspace: Workspace) -> None:
    digits = ("dataset=digits", "model=cnn", "train.call.epochs=1", "method=finetune")
    each, found, before = of_net(workspace, *digits)
    after = models.ephemeral_model(workspace, each.only(2))
    assert (found["theta_KP"][2] == gradient.theta(after).numpy()).all()
    assert (found["buffers_KS"][2] == gradient.buffers(after).numpy()).all()
    assert (found["buffers_KS"][2] != gradient.buffers(before).numpy()).any()
    assert found["n_1"] == len(split_of(each, inputs.dataset(each)).train)


def test_how_far_a_net_is_from_an_optimum(workspace: Workspace) -> None:
    each, found, before = of_net(workspace)
    data, net = inputs.dataset(each), copy.deepcopy(before)
    largest = 0.0
    for number in (None, 0, 1, 2):
        parts = split_of(each if number is None else each.only(number), data)
        rows = parts.train
        if number is not None:
            rows = parts.retain
            nn.utils.vector_to_parameters(torch.tensor(found["theta_KP"][number]), net.parameters())
        value = F.cross_entropy(net(data.x[rows]), data.y[rows], reduction="sum")
        value = value + len(rows) * 5e-4 / 2 * sum(p.square().sum() for p in net.parameters())
        slopes = torch.autograd.grad(value, list(net.parameters()))
        largest = max(largest, *(float(slope.abs().max()) for slope in slopes))
    assert found["residual_1"] == pytest.approx(largest, rel=1e-4)


def test_the_attack_on_a_net_end_to_end(workspace: Workspace) -> None:
    """Rows are what the pieces give, and the truth is of the right rows."""
    each, found, before = of_net(workspace)
    data = inputs.dataset(each)
    told = values(rows_of(workspace, cell(*NET, *BRIEF)))
    parts = split_of(each, data)
    about = parameters.audit(workspace, each, data, found)
    assert isinstance(about, NetAudit)
    assert (about.x_KF == data.x[parts.train[:3]].numpy()).all()
    assert (about.y_K == data.y[parts.train[:3]].numpy()).all()
    assert (about.public_MF == data.x[parts.test].numpy()).all()
    assert (about.n, about.decay) == (len(parts.train), 5e-4)
    assert (gradient.theta(about.net) == gradient.theta(before)).all()
    settings = {"label": "auto", "space": "probabilities", "restarts": 1, "steps": 20}
    guess = _gradient_inversion.guess(about, **settings)
    cosines = _judged.cosine(guess.x_KF, about.x_KF)
    assert told["hrec_cos"] == pytest.approx(cosines.mean())
    assert told["hrec_label_acc"] == (guess.y_K == about.y_K).mean()
    assert guess.change_KF is not None
    assert told["change_cos"] == pytest.approx(_judged.cosine(guess.change_KF, about.x_KF).mean())
    assert told["deletion_residual"] == found["residual_1"]
    assert "hrec_embedding_cos" not in told
    assert (told["hrec_cos_reference"], told["deletion_trace"]) == (told["hrec_cos"], 1.0)


def test_a_net_near_its_optimum_gives_the_record_away(workspace: Workspace) -> None:
    """Retraining, Hessian and inversion together: here, and only here, the theory holds."""
    near = ("dataset=digits", "model.call.hidden=[32]", "single_deletions.count=8", *BRIEF[:1])
    near += ("train.call.sgd.weight_decay=0.02", "train.call.sgd.lr=0.2", "train.call.epochs=300")
    near += ("train.call.batch_size=1000", "attack.call.steps=60")
    told = values(rows_of(workspace, cell(*NET, *near)))
    assert told["hrec_cos"] > told["avg_cos"] + 0.1
    assert told["hrec_cos"] > told["max_diff_cos"] + 0.1
    assert told["hrec_cos"] > told["hrec_null_cos"] + 0.2
    assert told["hrec_cos"] > told["change_cos"] + 0.2, "without the Hessian nothing is seen"
    assert told["hrec_label_acc"] > 0.7
