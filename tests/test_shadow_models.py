"""The keep matrix: balanced, seeded, and the same originals for every method and attack."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import Cells, compose

from unlearnbench.attack.ulira import ulira
from unlearnbench.core.cell import ORIGINAL, Cell
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions
from unlearnbench.core.seeding import generator
from unlearnbench.pipeline import inputs, outputs
from unlearnbench.pipeline.models import original
from unlearnbench.pipeline.split import records_of, split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.protocol import protocol_of
from unlearnbench.protocol.shadow_models import (
    RandomHalves,
    ShadowModel,
    accuracies,
    audit_pool,
    half_splits,
)
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep.plan import plan

ROWS = np.arange(1000, 2000)
shadows, originals = ShadowModel.models, ShadowModel.originals
SETTINGS = {"protocol": "audit_pool", "models": 8, "pool": 0.1, "seed": 0}


@cache
def small(*words: str) -> Cell:
    """Composed once: that takes longer than training does."""
    return compose("train.call.epochs=1", "method.call.epochs=1", *words)


def predictions(workspace: Workspace, one: Cell) -> Predictions:
    """What the cell's attack gets."""
    ((found,), _) = outputs.gathered(workspace, one)
    assert isinstance(found, Predictions)
    return found


def audited(*words: str) -> Cell:
    one = small("model=mlp", *words)
    return replace(one, attack={**one.attack, "shadow_models": SETTINGS})


def test_every_record_is_unseen_by_half_and_forgotten_by_a_quarter() -> None:
    found = audit_pool(ROWS, models=16, pool=0.3, seed=0)
    assert found.status_MN.shape == (16, 300)
    for status, count in ((UNSEEN, 8), (RETAINED, 4), (FORGOTTEN, 4)):
        assert (found.status_MN == status).sum(0).tolist() == [count] * 300
    assert len(set(found.rows_N)) == 300
    assert set(found.rows_N) <= set(ROWS)


def test_it_is_the_seeds() -> None:
    one, same, other = (audit_pool(ROWS, models=8, pool=0.2, seed=seed) for seed in (0, 0, 1))
    assert (one.rows_N == same.rows_N).all()
    assert (one.status_MN == same.status_MN).all()
    assert set(one.rows_N) != set(other.rows_N)


def test_models_differ_and_states_are_independent_of_each_other() -> None:
    """Over many records a model's states are near ½, ¼, ¼, and those of two models do not agree."""
    status_MN = audit_pool(np.arange(40_000), models=8, pool=1.0, seed=0).status_MN
    shares = [(status_MN == status).mean(1) for status in (UNSEEN, RETAINED, FORGOTTEN)]
    np.testing.assert_allclose(shares[0], 0.5, atol=0.01)
    np.testing.assert_allclose(shares[1], 0.25, atol=0.01)
    unseen = (status_MN == UNSEEN).astype(float)
    correlation = np.corrcoef(unseen)[~np.eye(8, dtype=bool)]
    # A record is in exactly half of the models, so two of them agree a little less than by chance.
    np.testing.assert_allclose(correlation, -1 / 7, atol=0.02)


@pytest.mark.parametrize(("models", "pool"), [(0, 0.5), (6, 0.5), (8, 0.0), (8, 1.5)])
def test_impossible_settings_are_named(models: int, pool: float) -> None:
    with pytest.raises(ValueError, match=r"attack\.shadow_models\.(models|pool)="):
        audit_pool(ROWS, models=models, pool=pool, seed=0)


def test_originals_are_shared_by_methods_and_attacks() -> None:
    mine, theirs = (
        shadows(audited()),
        shadows(audited("method=gradient_ascent")),
    )
    assert [a.original_key for a in mine] == [b.original_key for b in theirs]
    assert len({a.original_key for a in mine}) == len(mine)
    assert not {a.predictions_key for a in mine} & {b.predictions_key for b in theirs}
    other = replace(audited(), attack={**audited().attack, "call": {"_target_": "x"}})
    assert [a.predictions_key for a in shadows(other)] == [a.predictions_key for a in mine]


def test_other_settings_or_seeds_are_other_models() -> None:
    one = audited()
    more = replace(one, attack={**one.attack, "shadow_models": {**SETTINGS, "models": 12}})
    later = replace(one, seed=1)
    keys = [{shadow.original_key for shadow in shadows(each)} for each in (one, more, later)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]


def test_a_cell_whose_attack_draws_no_models_has_no_protocol(cell: Cells) -> None:
    assert protocol_of(cell().attack) is None


def test_splits_follow_the_matrix() -> None:
    one = audited()
    data = inputs.dataset(one)
    plain = split_of(one, data)
    for index, shadow in enumerate(shadows(one)[:3]):
        parts = split_of(shadow, data)
        found = shadow.draw(records_of(shadow, data))
        status_N = found.status_MN[index]
        unseen, gone = (set(found.rows_N[status_N == s]) for s in (UNSEEN, FORGOTTEN))
        assert set(parts.train.tolist()) == set(plain.train.tolist()) - unseen
        assert set(parts.forget.tolist()) == gone
        assert parts.val.tolist() == plain.val.tolist()
        assert parts.test.tolist() == plain.test.tolist()


def test_predictions_of_a_population(new_workspace: Workspace) -> None:
    """Unlearned, original, retrained; on audited records alone, and no unlearned weights kept."""
    one = audited()
    found = predictions(new_workspace, one)
    n = len(found.rows_N)
    assert found.logits_MQNC.shape == (24, 1, n, 10)
    assert found.kind_M == ("unlearned",) * 8 + ("original",) * 8 + ("retrained",) * 8
    assert found.audited_M == (True,) * 8 + (False,) * 16
    assert found.parent_M == (*range(8, 16), *[-1] * 16)
    data = inputs.dataset(one)
    assert found.y_N.tolist() == data.y[found.rows_N].tolist()
    models = [
        new_workspace.store.load(path.parent.name).manifest
        for path in new_workspace.store.root.rglob("*.json")
    ]
    assert sum(told["kind"] == "model" for told in models) == 8  # the originals
    shadow = shadows(one)[3]
    net = original(new_workspace, shadow)
    expected = net(data.inputs(torch.from_numpy(found.rows_N))).detach().numpy()
    np.testing.assert_allclose(found.logits_MQNC[8 + 3, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["original", "retrain"])
def test_controls_under_attack_are_not_there_twice(
    new_workspace: Workspace, cell: Cells, method: str
) -> None:
    one = cell("model=mlp", "train.call.epochs=1", f"method={method}")
    found = predictions(
        new_workspace, replace(one, attack={**one.attack, "shadow_models": SETTINGS})
    )
    assert sorted(set(found.kind_M)) == ["original", "retrained"]
    assert len(found.kind_M) == 16
    assert found.audited_M == (True,) * 8 + (False,) * 8


# ---------------------------------------------------------------------------------------------
# The protocol of Deep Unlearn: originals on random halves, several forget sets each.


HALVES = {"protocol": "deep_unlearn", "splits": 3, "forgets": 2}


def test_halves_of_deep_unlearn_to_the_row() -> None:
    """The 50,000 training images of CIFAR-10 as its code cuts them."""
    found = half_splits(np.arange(50_000))
    assert found.val[:5].tolist() == [34049, 9776, 1945, 32806, 30294]
    assert found.train(0)[:5].tolist() == [36369, 29992, 32971, 43725, 42648]
    assert found.forget(0, 0)[:5].tolist() == [16130, 45508, 17503, 27113, 43050]
    assert [len(found.val), len(found.pool)] == [2_500, 47_500]
    assert [len(found.train(7)), len(found.forget(7, 3))] == [23_750, 2_375]
    assert sorted([*found.val, *found.pool]) == list(range(50_000))


def test_halves_of_any_rows() -> None:
    found = half_splits(ROWS[:990])
    assert [len(found.val), len(found.pool), len(found.train(1))] == [49, 941, 470]
    assert len(found.forget(1, 1)) == 47
    assert sorted([*found.val, *found.pool]) == ROWS[:990].tolist()
    for s, f in ((0, 0), (0, 1), (1, 0)):
        assert set(found.forget(s, f)) < set(found.train(s)) < set(found.pool)
    assert set(found.train(0)) != set(found.train(1))
    assert set(found.forget(0, 0)) != set(found.forget(0, 1))


def halved(*words: str, **changed: int) -> Cell:
    one = small("model=logreg", *words)
    attack = {"name": "ulira", "call": {"_target_": "x"}, "shadow_models": {**HALVES, **changed}}
    return replace(one, attack=attack)


def test_forget_sets_of_a_half_share_its_original() -> None:
    models = shadows(halved())
    assert [(one.split["index"], one.forget["set"]) for one in models] == [
        (s, f) for s in range(3) for f in range(2)
    ]
    assert [one.original_key for one in models[::2]] == [one.original_key for one in models[1::2]]
    assert len({one.original_key for one in models}) == 3
    assert len({one.model_key for one in models}) == 6
    more = shadows(halved(forgets=4))
    assert {one.original_key for one in more} == {one.original_key for one in models}
    assert {one.model_key for one in more} > {one.model_key for one in models}


def test_splits_of_halves() -> None:
    one = halved()
    data = inputs.dataset(one)
    found = half_splits(data.train_rows.numpy())
    for shadow in shadows(one):
        s, f = shadow.split["index"], shadow.forget["set"]
        parts = split_of(shadow, data)
        assert set(parts.train.tolist()) == set(found.train(s))
        assert set(parts.forget.tolist()) == set(found.forget(s, f))
        assert set(parts.val.tolist()) == set(found.val)
        assert parts.test.tolist() == data.test_rows.tolist()
        audited = shadow.draw(records_of(shadow, data))
        assert audited.rows_N.tolist() == sorted(found.pool)
        status_N = shadow.status_N(records_of(shadow, data))
        by_part = {part: set(audited.rows_N[status_N == part]) for part in range(3)}
        assert by_part == {
            UNSEEN: set(found.pool) - set(found.train(s)),
            RETAINED: set(found.train(s)) - set(found.forget(s, f)),
            FORGOTTEN: set(found.forget(s, f)),
        }


def test_a_plan_has_each_model_of_the_halves_once(tmp_path: Path) -> None:
    grid = [halved(), halved("method=gradient_ascent")]
    made = plan(grid, Store(tmp_path), set())
    assert Counter(job.kind for job in made.jobs) == {
        "original": 1 + 3,
        "retrained": 1 + 6,
        "unlearned": 2 * (1 + 6),
        "rows": 1,
    }
    assert len({job.key for job in made.jobs}) == len(made.jobs)


def test_predictions_of_halves(new_workspace: Workspace) -> None:
    """Six unlearned models, then the three originals they come from, then six retrained ones."""
    one = halved()
    found = predictions(new_workspace, one)
    assert found.logits_MQNC.shape == (15, 1, len(found.rows_N), 10)
    assert found.kind_M == ("unlearned",) * 6 + ("original",) * 3 + ("retrained",) * 6
    assert found.parent_M == (6, 6, 7, 7, 8, 8, *[-1] * 9)
    assert found.audited_M == (True,) * 6 + (False,) * 9
    models, data = shadows(one), inputs.dataset(one)
    of_sets = [shadow.status_N(records_of(shadow, data)) for shadow in models]
    expected = [*of_sets, *of_sets[::2], *of_sets]
    assert (found.status_MN == np.stack(expected)).all()
    for m, parent in enumerate(found.parent_M[:6]):
        net = original(new_workspace, models[m])
        with torch.no_grad():
            logits_NC = net(data.inputs(torch.from_numpy(found.rows_N))).numpy()
        np.testing.assert_allclose(found.logits_MQNC[parent, 0], logits_NC, atol=1e-5)
        assert np.abs(found.logits_MQNC[m, 0] - logits_NC).max() > 1e-3
    stored = [
        new_workspace.store.load(p.parent.name).manifest
        for p in new_workspace.store.root.rglob("*.json")
    ]
    assert Counter(told["kind"] for told in stored) == {"model": 3, "predictions": 15}


def test_originals_of_halves_under_attack_stand_once_a_forget_set(new_workspace: Workspace) -> None:
    one = replace(halved(), method=ORIGINAL)
    found = predictions(new_workspace, one)
    assert found.kind_M == ("original",) * 6 + ("retrained",) * 6
    assert (found.logits_MQNC[0:6:2] == found.logits_MQNC[1:6:2]).all()
    assert (found.status_MN[0:6:2] != found.status_MN[1:6:2]).any()


def test_ulira_takes_models_of_one_half_as_one_target(new_workspace: Workspace) -> None:
    found = predictions(new_workspace, halved(splits=6, forgets=3))
    scores = ulira(found, reference="unlearned_out", variance="per_record")
    assert set(scores.pool) == {f"model {m:02d}" for m in range(0, 18, 3)}
    assert np.isfinite(scores.score).all()
    assert 0 <= scores.metrics["ulira_auc"][0] <= 1


@pytest.mark.tried("an original of a population with accuracy .37", "is counted in the rows")
def test_a_training_that_went_wrong_is_counted() -> None:
    """Accuracies are of originals and retrained models, on records that each has not seen."""
    rng, (M, N, C) = np.random.default_rng(0), (20, 200, 3)
    y_N = rng.integers(0, C, N)
    right_MN = rng.random((M, N)) < np.where(np.arange(M) == 7, 0.37, 0.95)[:, None]
    said_MN = np.where(right_MN, y_N, (y_N + 1) % C)
    seen_MN = rng.random((M, N)) < 0.5
    said_MN[7, seen_MN[7]] = y_N[seen_MN[7]]  # it knows what it has seen
    kinds = ("original",) * 10 + ("unlearned",) * 5 + ("retrained",) * 5
    population = Predictions(
        logits_MQNC=np.eye(C, dtype=np.float32)[said_MN][:, None],
        y_N=y_N,
        rows_N=np.arange(N),
        split_N=np.zeros(N, np.int8),
        status_MN=seen_MN.astype(np.int8),
        kind_M=kinds,
        parent_M=(-1,) * M,
        audited_M=(True,) * M,
    )
    expected = [right_MN[m][~seen_MN[m]].mean() for m in range(M) if kinds[m] != "unlearned"]
    assert accuracies(population) == {
        "shadow_models_outliers": (1.0, 15),
        "shadow_models_acc_min": (pytest.approx(min(expected)), 15),
        "shadow_models_acc_median": (pytest.approx(np.median(expected)), 15),
    }


# ---------------------------------------------------------------------------------------------
# Targets and the attacker's own models on random halves, as in the Amnesiac paper.


APART = {"protocol": "random_halves", "models": 3, "targets": 2, "seed": 0}


SEVEN = ("forget=by_class", "forget.call.label=7")
TWO = ("forget=by_class", "forget.call.label=2")


@cache
def linear(*words: str) -> Cell:
    """Composed once, as ``small`` is."""
    return compose("model=logreg", "train.call.epochs=1", *words)


def apart(*words: str, forget: tuple[str, ...] = SEVEN, seed: int = 0, **changed: int) -> Cell:
    one = linear(*forget, *words)
    attack = {"name": "x", "call": {"_target_": "x"}, "shadow_models": {**APART, **changed}}
    return replace(one, attack=attack, seed=seed)


def test_random_halves() -> None:
    found = RandomHalves(ROWS[:901], seed=0)
    halves = [found.train(index) for index in range(40)]
    for half in halves:
        assert len(half) == len(set(half)) == 450
        assert set(half) < set(ROWS[:901])
    assert (found.train(3) == halves[3]).all()
    assert set(RandomHalves(ROWS[:901], seed=1).train(3)) != set(halves[3])
    # Two halves have a quarter of the rows in common, and no row is in all or in none.
    common = [len(set(a) & set(b)) / 901 for a, b in pairwise(halves)]
    assert np.mean(common) == pytest.approx(0.25, abs=0.01)
    times = np.bincount(np.concatenate(halves) - ROWS[0], minlength=901)
    assert (times > 0).all()
    assert (times < 40).all()


def test_targets_are_under_attack_and_the_attackers_own_models_are_not() -> None:
    one = apart()
    assert [shadow.split["index"] for shadow in shadows(one)] == [0, 1]
    every = originals(one)
    assert [shadow.split["index"] for shadow in every] == [0, 1, 2, 3, 4]
    assert all(shadow.is_original for shadow in every)
    assert len({shadow.original_key for shadow in every}) == 5
    assert [a.original_key for a in shadows(one)] == [b.original_key for b in every[:2]]


def test_originals_on_halves_serve_all_forget_sets_methods_and_counts() -> None:
    one = apart()
    keys = {shadow.predictions_key for shadow in originals(one)}
    for other in (
        apart("method=gradient_ascent"),
        apart("method=second_retrain"),
        apart(forget=TWO),
        apart(forget=()),
    ):
        assert {shadow.predictions_key for shadow in originals(other)} == keys
    assert {shadow.predictions_key for shadow in originals(apart(models=4, targets=3))} > keys
    for other in (
        apart(seed=1),
        replace(one, attack={"call": {}, "shadow_models": {**APART, "seed": 1}}),
    ):
        assert not keys & {shadow.predictions_key for shadow in originals(other)}
    models = {shadow.model_key for shadow in shadows(one)}
    assert not models & {shadow.model_key for shadow in shadows(apart(forget=TWO))}


def test_a_target_forgets_what_the_cell_forgets_of_its_half(cell: Cells) -> None:
    one = apart()
    data, plain = inputs.dataset(one), split_of(one, inputs.dataset(one))
    y = data.y.numpy()
    for shadow in (*shadows(one), *originals(one)):
        parts, found = split_of(shadow, data), shadow.draw(records_of(shadow, data))
        assert isinstance(found, RandomHalves)
        assert sorted(found.rows_N.tolist()) == sorted(plain.train.tolist())
        half = found.train(shadow.split["index"])
        assert set(parts.train.tolist()) == set(half)
        assert set(parts.forget.tolist()) == set(half[y[half] == 7])
        assert parts.val.tolist() == plain.val.tolist()
        assert parts.test.tolist() == plain.test.tolist()
        seen = np.isin(found.rows_N, half)
        expected = np.where(seen, np.where(y[found.rows_N] == 7, FORGOTTEN, RETAINED), UNSEEN)
        assert shadow.status_N(records_of(shadow, data)).tolist() == expected.tolist()
    share = apart("forget.call.fraction=0.5")
    parts = split_of(shadows(share)[0], data)
    of_class = int((y[parts.train.numpy()] == 7).sum())
    assert len(parts.forget) == -(-of_class // 2)


def test_predictions_of_halves_apart(new_workspace: Workspace) -> None:
    """Two unlearned models, the five originals, two retrained ones; on all training rows."""
    one = apart()
    found = predictions(new_workspace, one)
    data = inputs.dataset(one)
    assert found.logits_MQNC.shape == (9, 1, len(split_of(one, data).train), 10)
    assert found.kind_M == ("unlearned",) * 2 + ("original",) * 5 + ("retrained",) * 2
    assert found.parent_M == (2, 3, *[-1] * 7)
    assert found.audited_M == (True,) * 2 + (False,) * 7
    every = [
        *shadows(one),
        *originals(one),
        *shadows(replace(one, method=one.reference)),
    ]
    for m, shadow in enumerate(every):
        assert (found.status_MN[m] == shadow.status_N(records_of(shadow, data))).all()
    net = original(new_workspace, originals(one)[4])
    with torch.no_grad():
        logits_NC = net(data.inputs(torch.from_numpy(found.rows_N))).numpy()
    np.testing.assert_allclose(found.logits_MQNC[2 + 4, 0], logits_NC, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("original", ("original",) * 5 + ("retrained",) * 2),
        ("retrain", ("retrained",) * 2 + ("original",) * 5),
        ("second_retrain", ("retrained",) * 2 + ("original",) * 5 + ("retrained",) * 2),
    ],
)
def test_controls_on_halves_are_not_there_twice(
    new_workspace: Workspace, method: str, kinds: tuple[str, ...]
) -> None:
    found = predictions(new_workspace, apart(f"method={method}"))
    assert found.kind_M == kinds
    assert found.audited_M == (True,) * 2 + (False,) * (len(kinds) - 2)


def test_a_plan_has_each_model_of_halves_apart_once(tmp_path: Path) -> None:
    """No method needs originals of its own; a second retrained model starts from none."""
    methods = ("finetune", "gradient_ascent", "original", "retrain", "second_retrain")
    grid = [apart(f"method={method}") for method in methods]
    made = plan(grid, Store(tmp_path), set())
    assert Counter(job.kind for job in made.jobs) == {
        "original": 1 + 5,
        "retrained": 2 * (1 + 2),
        "unlearned": 2 * (1 + 2),
        "rows": 1,
    }
    keys = {job.key for job in made.jobs}
    assert len(keys) == len(made.jobs)
    assert all(set(job.needs) <= keys for job in made.jobs)


@pytest.mark.parametrize("settings", [SETTINGS, HALVES], ids=str)
def test_a_second_retrained_population_needs_no_originals_of_its_own(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    attack = {"name": "x", "call": {"_target_": "x"}, "shadow_models": settings}
    grid = [
        replace(linear(f"method={method}"), attack=attack)
        for method in ("retrain", "second_retrain")
    ]
    counts = Counter(job.kind for job in plan(grid, Store(tmp_path), set()).jobs)
    assert counts["original"] == len(originals(grid[0]))


def test_an_unknown_protocol_is_refused() -> None:
    one = audited()
    shadows_ = {**SETTINGS, "protocol": "half_pool"}
    told = r"protocol=half_pool: must be one of audit_pool, deep_unlearn, random_halves"
    with pytest.raises(ValueError, match=told):
        shadows(replace(one, attack={**one.attack, "shadow_models": shadows_}))


def test_a_protocol_says_what_it_needs() -> None:
    one = audited()
    told = r"protocol=random_halves: needs attack\.shadow_models\.targets$"
    with pytest.raises(ValueError, match=told):
        shadows(
            replace(
                one, attack={"call": {}, "shadow_models": {**SETTINGS, "protocol": "random_halves"}}
            )
        )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"shadow_models": {**SETTINGS, "models": 0}},
            r"attack\.shadow_models\.models=0: must be 1 or more",
        ),
        (
            {"shadow_models": {**SETTINGS, "seed": -1}},
            r"attack\.shadow_models\.seed=-1: must be 0 or more",
        ),
        (
            {"shadow_models": {**HALVES, "splits": 0}},
            r"attack\.shadow_models\.splits=0: must be 1 or more",
        ),
        (
            {"shadow_models": {**HALVES, "forgets": 0}},
            r"attack\.shadow_models\.forgets=0: must be 1 or more",
        ),
        (
            {"shadow_models": {**APART, "targets": 0}},
            r"attack\.shadow_models\.targets=0: must be 1 or more",
        ),
        (
            {"shadow_models": {**APART, "models": 0}},
            r"attack\.shadow_models\.models=0: must be 1 or more",
        ),
        ({"shadow_models": HALVES, "queries": 0}, r"attack\.queries=0: must be 1 or more"),
    ],
)
def test_a_population_of_nothing_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        shadows(replace(small("model=logreg"), attack={"call": {}, **changed}))


# ---------------------------------------------------------------------------------------------
# Queries: a record as it is, and augmented as in training.


def asked(one: Cell, queries: int) -> Cell:
    attack = {"name": "lira", "call": {"_target_": "x"}, "queries": queries}
    return replace(one, attack={**attack, "shadow_models": {**SETTINGS, "models": 4, "pool": 0.5}})


@pytest.fixture
def images(tmp_path: Path) -> Cell:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (80, 6, 5, 3), np.uint8)
    np.savez(tmp_path / "own.npz", x_train=pixels, y_train=np.arange(80) % 3)
    words = "dataset=npz", f"dataset.path={tmp_path}/own.npz", "dataset.call.augment=flip"
    return small(*words, "model=logreg")


def test_queries_are_the_records_as_they_are_then_the_same_views_for_all_models(
    new_workspace: Workspace, images: Cell
) -> None:
    once, twice = (predictions(new_workspace, asked(images, q)) for q in (1, 2))
    n = len(once.rows_N)
    assert once.logits_MQNC.shape == (12, 1, n, 3)
    assert twice.logits_MQNC.shape == (12, 2, n, 3)
    assert (twice.logits_MQNC[:, 0] == once.logits_MQNC[:, 0]).all()
    data = inputs.dataset(images)
    assert data.augment is not None
    plain = data.inputs(torch.from_numpy(once.rows_N))
    view = data.augment(plain.clone(), generator(1, "view"))
    flipped = (view != plain).flatten(1).any(1).numpy()
    assert 0 < flipped.sum() < n
    for place, shadow in enumerate(shadows(asked(images, 2))):
        net = original(new_workspace, shadow)
        with torch.no_grad():
            expected = net(view).numpy()
        np.testing.assert_allclose(twice.logits_MQNC[4 + place, 1], expected, atol=1e-5)
    for logits_QNC in twice.logits_MQNC:
        differs = (np.abs(logits_QNC[0] - logits_QNC[1]) > 1e-4).any(1)
        assert differs.tolist() == flipped.tolist()


def test_queries_are_in_the_outputs_key_and_not_in_the_models(images: Cell) -> None:
    every = [shadows(asked(images, queries)) for queries in (1, 2, 3)]
    for of_place in zip(*every, strict=True):
        assert len({one.predictions_key for one in of_place}) == 3
        assert len({one.original().predictions_key for one in of_place}) == 3
        assert len({one.model_key for one in of_place}) == 1
        assert len({one.original_key for one in of_place}) == 1
    cells_ = [asked(images, queries) for queries in (1, 2)]
    assert cells_[0].predictions_key == cells_[1].predictions_key, "utility asks once"
    assert cells_[0].key != cells_[1].key


def test_there_is_one_view_of_what_is_not_augmented(new_workspace: Workspace) -> None:
    one = asked(small("model=logreg"), 2)
    with pytest.raises(ValueError, match=r"attack\.queries=2: dataset=digits is not augmented"):
        predictions(new_workspace, one)
