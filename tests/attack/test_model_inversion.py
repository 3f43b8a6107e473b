"""Model inversion: the walk, its processing, and what is measured of it, against loops by hand."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import Cells, compose, composed
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from unlearnbench.attack import model_inversion as module
from unlearnbench.attack.model_inversion import intended, median2, model_inversion
from unlearnbench.core import picture
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Scores
from unlearnbench.core.task import WhiteBox
from unlearnbench.metric import distance
from unlearnbench.pipeline import models
from unlearnbench.pipeline.rows import rows_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.sweep import plan, worker

SETTINGS: dict[str, Any] = {
    "process": "median2",
    "label": None,
    "starts": 2,
    "iterations": 6,
    "every": 2,
    "rate": 1.0,
    "div": 256.0,
    "seed": 0,
}
FEW = [f"attack.call.{name}={SETTINGS[name]}" for name in ("starts", "iterations", "every")]
PAGE = (10 * 68 + 17, 3 * 68 + 4, 3)
WORDS = ["attack=model_inversion", *FEW, "model=mlp", "train.call.epochs=2"]


@pytest.fixture(scope="module")
def held(workspace: Workspace) -> WhiteBox:
    return models.white_box(workspace, compose("attack=model_inversion", "method=original"))


def run(held: WhiteBox, **changed: Any) -> Scores:
    return model_inversion(held, **{**SETTINGS, **changed})


Seen = list[tuple[NDArray[np.floating], list[str]]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The images that are drawn, rather than their pixels, and the titles above them."""
    drawn: Seen = []
    grid = picture.grid

    def kept(images: NDArray[np.floating], titles: list[str]) -> picture.Picture:
        drawn.append((images, list(titles)))
        return grid(images, titles)

    monkeypatch.setattr(picture, "grid", kept)
    return drawn


def told(scores: Scores) -> dict[str, float]:
    return {name: value for name, (value, _) in scores.metrics.items()}


def images(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_median2_is_the_third_smallest_of_four_with_mirrored_edges() -> None:
    x = images(0, 3, 2, 7, 5)
    found = median2(x)
    for b, c, row, column in np.ndindex(x.shape):
        up, left = max(row - 1, 0), max(column - 1, 0)  # mirrored: the edge pixel itself
        four = [x[b, c, i, j] for i in (row, up) for j in (column, left)]
        assert found[b, c, row, column] == sorted(four)[2]


def test_intended_is_that_median_blurred_and_sharpened() -> None:
    """Blurs as sums with explicit kernels, four standard deviations wide, edges mirrored."""

    def blurred(image: NDArray[np.float64], sigma: int) -> NDArray[np.float64]:
        at = np.arange(-4 * sigma, 4 * sigma + 1)
        kernel = np.exp(-(at**2) / (2 * sigma**2))
        kernel /= kernel.sum()
        for axis in (0, 1):
            padded = np.pad(
                image, [(4 * sigma,) * 2 if a == axis else (0, 0) for a in (0, 1)], "symmetric"
            )
            image = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
        return image

    x = images(1, 1, 2, 12, 12)
    for c in range(2):
        b = blurred(median2(x)[0, c].astype(np.float64), 2)
        sharpened = b + 80 * (b - blurred(b, 1))
        np.testing.assert_allclose(intended(x)[0, c], sharpened, rtol=1e-3, atol=1e-4)
    flat = np.full((1, 1, 9, 9), 0.25, np.float32)
    np.testing.assert_allclose(intended(flat), flat, rtol=1e-4)


def test_the_walk_is_that_of_a_loop_by_hand(held: WhiteBox, seen: Seen) -> None:
    """One start at a time, with the processing at 2 and 4 of 0 … 6: not at the first, not at 6."""
    scores = run(held, label=3)
    data, shown = held.data, []
    noise = torch.rand((2, 1, 8, 8), generator=module.generator(0, "inversion"))
    for k in range(2):
        x = (-1 + noise[k : k + 1] / 256).requires_grad_()
        for i in range(7):
            logits = held.model(((x + 1) * 8 - data.mean) / data.std)
            loss = -logits.log_softmax(1)[0, 3]
            (gradient,) = torch.autograd.grad(loss, x)
            if i == k == 0:
                first = float(gradient.norm())
            x = (x - gradient).detach()
            if i in (2, 4):
                x = torch.from_numpy(median2(x.numpy()))
            x.requires_grad_()
        shown.append(((x.detach() + 1) / 2).clamp(0, 1)[0, 0].numpy())
    ((images, titles),) = seen
    assert titles == ["class mean", "median2", "median2"]
    np.testing.assert_allclose(images[0, 1:, 0], shown, atol=1e-4)
    rows = data.test_rows[data.y[data.test_rows] == 3]
    mean = data.x[rows, :, :, 0].double().mean(0).numpy() / 16
    np.testing.assert_allclose(images[0, 0, 0], mean)
    figures = told(scores)
    cosines = [float((x * mean).sum() / np.linalg.norm(x) / np.linalg.norm(mean)) for x in shown]
    assert figures["inversion_cosine"] == pytest.approx(np.mean(cosines), abs=1e-4)
    correlations = [np.corrcoef(x.ravel(), mean.ravel())[0, 1] for x in shown]
    assert figures["inversion_centred_cosine"] == pytest.approx(np.mean(correlations), abs=1e-3)
    alike = np.mean([distance.ssim(x, mean) for x in shown])
    assert figures["inversion_ssim"] == pytest.approx(alike, abs=1e-4)
    pixels = torch.from_numpy(np.stack(shown))[:, None]
    called = held.reference_classifier((pixels * 16 - data.mean) / data.std).argmax(1)
    assert figures["inversion_judged"] == float((called == 3).double().mean())
    single = run(held, label=3, starts=1)
    assert told(single)["inversion_gradient"] == pytest.approx(first, rel=1e-4)


def test_a_class_does_not_depend_on_the_others_beside_it(held: WhiteBox) -> None:
    every = told(run(held))
    for t in (0, 7):
        for name, value in told(run(held, label=t)).items():
            if not name.endswith(f"_class_{t}"):
                assert value == pytest.approx(every[f"{name}_class_{t}"], abs=1e-3)
    means = [
        np.mean([every[f"inversion_{what}_class_{t}"] for t in range(10)])
        for what in ("cosine", "nll")
    ]
    assert [every["inversion_cosine"], every["inversion_nll"]] == pytest.approx(means)


def test_the_walk_goes_down(held: WhiteBox) -> None:
    nll = [told(run(held, iterations=n, process="none"))["inversion_nll"] for n in (0, 30)]
    assert nll[1] < nll[0] / 2


def test_the_same_bits_twice_and_nothing_else_touched(held: WhiteBox) -> None:
    before, state = deepcopy(held.model.state_dict()), torch.get_rng_state()
    one, two = run(held), run(held)
    assert one.metrics == two.metrics
    assert np.array_equal(np.asarray(one.picture), np.asarray(two.picture))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in held.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in held.model.parameters())


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ("process", "none"),
        ("process", "intended"),
        ("starts", 3),
        ("iterations", 5),
        ("every", 3),
        ("rate", 0.5),
        ("div", 2.0),
        ("seed", 1),
    ],
)
def test_every_setting_has_a_say(held: WhiteBox, changed: str, number: Any) -> None:
    assert run(held, **{changed: number}).metrics != run(held).metrics


class Flat(nn.Module):
    """A net that answers the same to all, and so has no gradient to walk along."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), 10) + 0 * x.sum()


def test_without_a_gradient_all_stays_dark(held: WhiteBox) -> None:
    figures = told(run(replace(held, model=Flat()), process="none"))
    assert figures["inversion_gradient"] == 0
    assert figures["inversion_nll"] == pytest.approx(np.log(10))
    for name in ("cosine", "centred_cosine", "ssim", "judged"):
        assert figures[f"inversion_{name}"] == figures[f"inversion_start_{name}"]


def test_all_black_has_no_direction(held: WhiteBox) -> None:
    dark = np.zeros((1, 4))
    assert module._cosine(dark, np.ones((1, 4))).tolist() == [0.0]


def test_forgotten_classes_stand_apart(held: WhiteBox) -> None:
    whole = replace(held.split, forget=held.split.train[held.data.y[held.split.train] == 4])
    figures = told(run(replace(held, split=whole)))
    assert figures["inversion_cosine_forgotten"] == figures["inversion_cosine_class_4"]
    others = [figures[f"inversion_cosine_class_{t}"] for t in range(10) if t != 4]
    assert figures["inversion_cosine"] == pytest.approx(np.mean(others))
    assert not [name for name in told(run(held)) if name.endswith("_forgotten")]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"process": "blur"}, "process=blur: must be one of median2, intended, none"),
        ({"label": 10}, "label=10: classes are 0 to 9"),
        ({"starts": 0}, "starts=0: must be above 0"),
        ({"div": 0.0}, "div=0.0: must be above 0"),
        ({"iterations": -1}, "iterations=-1: must be 0 or more"),
    ],
)
def test_mistakes_are_told(held: WhiteBox, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        run(held, **changed)


# ---------------------------------------------------------------------------------------------
# In the table.


@pytest.mark.parametrize(
    "method", ["original", "retrain", "random_labels", "amnesiac", "finetune", "ssd", "sisa"]
)
def test_it_runs_on_every_kind_of_method(workspace: Workspace, cell: Cells, method: str) -> None:
    found = rows_of(workspace, cell(*WORDS, f"method={method}", "forget=by_class"))
    assert found.error is None
    figures = {row["metric"]: row for row in found.rows if row["attack"] == "model_inversion"}
    assert {row["threat"] for row in figures.values()} == {"the model itself; no data"}
    assert figures["inversion_cosine_forgotten"]["n"] == 2
    assert figures["inversion_cosine"]["n"] == 18
    assert found.picture is not None
    assert found.picture.shape == PAGE
    assert not len(found.scores)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["dataset=breast_cancer"], "take attack.call.process=none"),
        (["dataset=diabetes"], "needs classes; this is a regression"),
        (["defense=top_k"], "holds the model itself: defense=top_k changes its outputs only"),
        (["model=decision_tree", "train=estimator"], "this model gives none"),
    ],
)
def test_what_cannot_be_is_skipped_with_a_reason(
    workspace: Workspace, words: list[str], reason: str
) -> None:
    trained = [] if "train=estimator" in words else ["train.call.epochs=1"]
    given = ["model=mlp", "method=original", "attack=model_inversion", *FEW, *trained]
    kept = [w for w in given if w.split("=")[0] not in {x.split("=")[0] for x in words}]
    one = composed(*kept, *words)
    found = rows_of(workspace, one)
    assert isinstance(found.error, Skip)
    assert reason in found.rows[-1]["reason"]


def test_tables_are_inverted_without_a_process(workspace: Workspace, cell: Cells) -> None:
    words = ["dataset=breast_cancer", "method=retrain", "attack.call.process=none"]
    found = rows_of(workspace, cell(*WORDS, *words))
    assert found.error is None
    figures = {row["metric"] for row in found.rows}
    assert {"inversion_cosine", "inversion_judged", "inversion_nll"} <= figures
    assert "inversion_ssim" not in figures
    assert found.picture is None


def test_the_judge_is_an_original_of_another_seed_than_any_model_in_the_table() -> None:
    under = [
        compose("attack=model_inversion", f"method={name}", "seed=3")
        for name in ("original", "second_retrain", "random_labels")
    ]
    keys = {one.reference_classifier.key for one in under if one.reference_classifier}
    assert len(keys) == 1
    reference_classifier = under[0].reference_classifier
    assert reference_classifier is not None
    assert reference_classifier.is_original
    assert reference_classifier.model_seed not in {one.model_seed for one in under}
    assert compose("attack=umia").reference_classifier is None


def test_a_brought_original_is_judged_by_one_that_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"weight": torch.zeros(1)}, path)
    words = ["attack=model_inversion", "train=checkpoint", f"train.path={path}"]
    reference_classifier = compose(*words, "method=original").reference_classifier
    assert reference_classifier is not None
    assert not {"path", "content"} & reference_classifier.train.keys()
    assert (
        reference_classifier.predictions_key == compose("method=original", "seed=2").predictions_key
    )


def test_the_judge_is_planned_once_a_seed(new_workspace: Workspace) -> None:
    def originals(attack: str) -> int:
        cells = [compose(f"attack={attack}", f"method={m}") for m in ("finetune", "ssd")]
        jobs = plan.plan(cells, new_workspace.store, set()).jobs
        return sum(job.kind == "original" for job in jobs)

    assert (originals("umia"), originals("model_inversion")) == (1, 2)


def test_the_picture_is_a_row_a_class(workspace: Workspace, cell: Cells, tmp_path: Path) -> None:
    one = cell(*WORDS, "method=original")
    job = plan.Job("rows", "0" * 64, (one,), (), 3)
    assert worker.run_job(job, workspace, tmp_path, lambda key: None).status == "done"
    name = f"digits-mlp-default-original-model_inversion-seed{one.seed}-{one.key[:8]}.png"
    drawn = np.asarray(Image.open(tmp_path / "pictures" / name))
    assert drawn.shape == PAGE
    assert not list((tmp_path / "pictures").glob(".*"))
