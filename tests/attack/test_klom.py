"""KLOM: none between equal models, more the more is left, each part by its own models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack.populations import phi_of, shadowed
from cells import compose

from unlearnbench.attack.klom import klom
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGOTTEN, UNSEEN, Predictions
from unlearnbench.metric import distance
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.protocol.shadow_models import ShadowModel
from unlearnbench.results.load import finished, load_results
from unlearnbench.sweep import worker
from unlearnbench.sweep.plan import plan

M, N = 200, 30
BACK = "unlearned_retrain"


def figures(
    found: Predictions, direction: str = "retrain_unlearned", n: int = N
) -> dict[str, float]:
    scores = klom(found, direction=direction)
    assert {count for _, count in scores.metrics.values()} == {n}
    assert len(scores.row) == 0
    return {name.removeprefix(f"klom_{direction}_"): v for name, (v, _) in scores.metrics.items()}


def test_retraining_is_no_nearer_than_two_samples_of_one_law() -> None:
    random = np.random.default_rng(1)
    apart = distance.klom(random.normal(size=(50, 2000)), random.normal(size=(50, 2000)))
    told = figures(shadowed("retrained", M, 300, 2.0), n=300)
    assert told["forget_p50"] == pytest.approx(np.median(apart), rel=0.1)
    assert told["unseen_p50"] == pytest.approx(np.median(apart), rel=0.1)


def test_models_that_share_their_luck_with_their_retrained_twins_gain_nothing_by_it() -> None:
    found = shadowed("unlearned", 2 * M, 300, 2.0)
    logits, kinds = found.logits_MQNC.copy(), np.array(found.kind_M)
    logits[kinds == "unlearned"] = logits[kinds == "retrained"]
    twins = figures(replace(found, logits_MQNC=logits), n=300)
    apart = figures(found, n=300)
    assert len(twins) == 9
    assert twins == pytest.approx(apart, rel=0.15)


def test_what_is_left_shows_in_the_forget_part_alone() -> None:
    """Retain and unseen records are of one law on both sides: they are the noise."""
    nothing, left = (figures(shadowed("unlearned", 2 * M, N, 2.0, left=by)) for by in (0.0, 3.0))
    assert left["forget_p50"] > 2 * nothing["forget_p50"]
    assert left["retain_p50"] == pytest.approx(nothing["retain_p50"], rel=0.5)
    assert left["unseen_p50"] == pytest.approx(nothing["unseen_p50"], rel=0.5)
    assert left["forget_p50"] < left["forget_p95"] < left["forget_p99"]


def test_what_is_retained_takes_twice_as_many_models() -> None:
    few, many = (figures(shadowed("unlearned", models, N, 2.0)) for models in (2 * M - 4, 2 * M))
    assert {name.split("_")[0] for name in few} == {"forget", "unseen"}
    assert {name.split("_")[0] for name in many} == {"forget", "unseen", "retain"}


@pytest.mark.parametrize("direction", ["retrain_unlearned", BACK])
def test_figures_are_those_of_a_loop_over_records(direction: str) -> None:
    found = shadowed("unlearned", M, N, 2.0, left=1.0)
    phi = phi_of(found)[:, 0]
    kinds, audited = np.array(found.kind_M), np.array(found.audited_M)
    each = []
    for record in range(N):
        gone, never = (found.status_MN[:, record] == code for code in (FORGOTTEN, UNSEEN))
        ours = phi[audited & gone, record]
        theirs = phi[(kinds == "retrained") & never, record][: len(ours)]
        sides = (theirs, ours) if direction != BACK else (ours, theirs)
        each.append(distance.klom(*(side[:, None] for side in sides))[0])
    told = figures(found, direction)
    expected = np.percentile(each, [50, 95, 99])
    assert [told[f"forget_p{p}"] for p in (50, 95, 99)] == pytest.approx(expected, rel=1e-6)


def test_the_direction_matters() -> None:
    found = shadowed("unlearned", M, N, 2.0, left=3.0)
    one, other = figures(found)["forget_p50"], figures(found, BACK)["forget_p50"]
    assert one != pytest.approx(other, rel=1e-3)


def test_too_few_models_are_skipped_with_what_is_needed() -> None:
    with pytest.raises(Skip, match=r"49 models a side, 50 .*shadow_models\.models=200"):
        klom(shadowed("unlearned", 196, N, 2.0), direction="retrain_unlearned")


def test_an_unbalanced_population_is_skipped() -> None:
    found = shadowed("unlearned", M + 8, N, 2.0)
    status = found.status_MN.copy()
    first = np.flatnonzero(status[: M + 8, 0] == FORGOTTEN)[0]
    status[first, 0] = 0
    with pytest.raises(Skip, match="balanced"):
        klom(replace(found, status_MN=status), direction="retrain_unlearned")


def test_unknown_directions_and_regressions_are_refused() -> None:
    found = shadowed("unlearned", M, N, 2.0)
    with pytest.raises(ValueError, match="direction=back: must be one of retrain_unlearned"):
        klom(found, direction="back")
    with pytest.raises(Skip, match="classes"):
        klom(replace(found, y_N=found.y_N.astype(np.float32)), direction=BACK)


def test_its_population_is_large_enough_and_that_of_other_attacks_if_asked() -> None:
    assert len(ShadowModel.models(compose("attack=klom", "method=finetune"))) == 200
    same = [
        {one.predictions_key for one in ShadowModel.models(compose(f"attack={name}", *words))}
        for name, words in (("klom", []), ("lira", ["shadow_models.models=200"]))
    ]
    assert same[0] == same[1]


def test_whole_from_trainings_to_rows(
    new_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten models a side are enough to see it: originals saw twice the rows that retraining did."""
    monkeypatch.setattr(distance, "KLOM_MODELS", 10)
    words = ["model=logreg", "train.call.epochs=1", "attack=klom", "precision=64-true"]
    words += ["attack.shadow_models.models=40", "attack.shadow_models.pool=1"]
    methods = ("original", "retrain", "second_retrain")
    grid = [compose(*words, f"method={method}") for method in methods]
    todo = plan(grid, new_workspace.store, set())
    *models, rows = todo.jobs
    assert len(models) == (1 + 40) * len(methods)
    assert {worker.run_job(job, new_workspace, tmp_path, str).status for job in models} == {"done"}
    there = set(new_workspace.store.root.rglob("manifest.json"))
    worker.run_job(rows, new_workspace, tmp_path, str)
    assert set(new_workspace.store.root.rglob("manifest.json")) == there  # rows are made of outputs
    assert not plan(grid, new_workspace.store, finished(tmp_path)).jobs
    found = load_results(tmp_path)
    found = found[found["attack"] == "klom"]
    assert set(found["status"]) == {"ok"}
    of_records = found[found["metric"].str.startswith("klom")]
    assert set(of_records["n"]) == {1222}  # all of digits' training rows but the validation ones
    told = of_records.pivot(index="metric", columns="method", values="value")
    assert len(told) == 2 * 3  # too few for what is retained
    median = told.loc["klom_retrain_unlearned_forget_p50"]
    assert median["retrain"] == pytest.approx(median["second_retrain"], rel=0.15)
    assert median["original"] > 1.2 * median["second_retrain"]
