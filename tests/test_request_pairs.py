"""Request pairs: which rows models see and are asked about, shared originals, outputs twice."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cells import compose
from safetensors.numpy import load as load_arrays

from unlearnbench.config.compose import cells
from unlearnbench.core.cell import NOTHING, Cell
from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.pipeline import inputs, outputs
from unlearnbench.pipeline import models as models_module
from unlearnbench.pipeline.models import ephemeral_model, unlearned
from unlearnbench.pipeline.rows import rows_of
from unlearnbench.pipeline.split import records_of, split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.protocol import protocol_of
from unlearnbench.protocol.request_pairs import HALVES, Pools, RequestPair, pools
from unlearnbench.protocol.shadow_models import ShadowModel
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep.plan import plan

ROWS = np.arange(500, 1500)
requests = RequestPair.models
SMALL = {"originals": 2, "requests": 3, "size": 60, "deletions": 2, "online": False, "seed": 0}
METHODS = ["finetune", "gradient_ascent", "retrain", "second_retrain", "original"]
METHODS += ["sisa", "sisa_retrain", "amnesiac"]


@cache
def composed() -> dict[str, Cell]:
    """Cells of the same pairs by method; composing takes longer than training on 60 rows."""
    words = ["attack=double_output", "model=logreg", "train.call.epochs=1"]
    words += [f"attack.request_pairs.{name}={value}" for name, value in SMALL.items()]
    every = cells([[*words, f"method={name}"] for name in METHODS])
    return dict(zip(METHODS, every, strict=True))


def cell(method: str = "retrain", **changed: Any) -> Cell:
    """A cell with other settings of its attack."""
    one = composed()[method]
    return replace(one, attack={**one.attack, "request_pairs": {**SMALL, **changed}})


def by_half(workspace: Workspace, one: Cell) -> dict[str, Predictions]:
    """What the cell's attack gets."""
    target, shadow = outputs.gathered(workspace, one)[0]
    return {"target": target, "shadow": shadow}


def member(one: Cell, half: str = "target", index: int = 0, number: int = 0) -> RequestPair:
    """One request of a cell."""
    (found,) = (
        asked
        for asked in requests(one)
        if (asked.split["half"], asked.split["index"]) == (half, index)
        and asked.forget["request"] == number
    )
    return found


def own(half: str = "target") -> Pools:
    return pools(ROWS, half)


# ---------------------------------------------------------------------------------------------
# Which rows do what.


@pytest.mark.parametrize(("n", "sizes"), [(1000, [500, 500]), (1001, [500, 501]), (7, [3, 4])])
def test_halves_share_no_record_and_leave_none_out(n: int, sizes: list[int]) -> None:
    rows = np.arange(500, 500 + n)
    both = [pools(rows, half) for half in HALVES]
    parts = [[one.positive, one.negative, one.replacement] for one in both]
    assert [sum(map(len, half)) for half in parts] == sizes
    assert sorted(np.concatenate([*parts[0], *parts[1]])) == rows.tolist()


@pytest.mark.parametrize("half", HALVES)
def test_shares_of_a_half(half: str) -> None:
    """80 % positive; of the other 100 records 85 are unseen and 15 replace deleted ones."""
    found = own(half)
    assert [len(one) for one in (found.positive, found.negative, found.replacement)] == [
        400,
        85,
        15,
    ]
    for part in (found.positive, found.negative):
        assert part.tolist() != sorted(part)
        assert abs(part.mean() - ROWS.mean()) < 100, "halves are random"


def test_all_rows_but_validation_are_in_a_half() -> None:
    target, shadow = (member(cell(), half) for half in ("target", "shadow"))
    data = inputs.dataset(target)
    found = [one.pools(records_of(one, data)) for one in (target, shadow)]
    every = [rows for one in found for rows in (one.positive, one.negative, one.replacement)]
    val = split_of(composed()["retrain"], data).val
    assert sorted([*np.concatenate(every), *val.tolist()]) == list(range(len(data.y)))


def test_an_original_sees_some_of_the_positive_records_in_the_order_of_their_drawing() -> None:
    for half, index in product(HALVES, range(2)):
        found = member(cell(), half, index).training_rows(own(half))
        assert len(found) == len(set(found)) == SMALL["size"]
        assert set(found) <= set(own(half).positive)
        assert found.tolist() != sorted(found)
        order = {row: place for place, row in enumerate(own(half).positive)}
        assert [order[row] for row in found] != sorted(order[row] for row in found)


def test_originals_see_different_rows() -> None:
    seen = [set(member(cell(), "target", index).training_rows(own())) for index in range(2)]
    assert seen[0] != seen[1]
    # 60 of 400 twice: 9 in common by chance.
    assert len(seen[0] & seen[1]) < 20
    same_pool = replace(member(cell()), split={**member(cell()).split, "half": "shadow"})
    assert set(same_pool.training_rows(own())) not in seen


def test_rows_are_drawn_by_the_zoos_seed_alone() -> None:
    def rows(**changed: Any) -> list[list[int]]:
        method, seed = changed.pop("method", "retrain"), changed.pop("model_seed", 0)
        one = member(cell(method, **changed), number=1)
        one = replace(one, seed=one.seed + seed)
        return [one.training_rows(own()).tolist(), one.request(own()).queries.tolist()]

    assert rows() == rows(method="gradient_ascent") == rows(model_seed=3) == rows(requests=7)
    assert rows()[0] == rows(deletions=5)[0] == rows(online=True)[0]
    assert rows()[1] == rows(online=True)[1] != rows(deletions=5)[1]
    assert rows()[0] != rows(seed=1)[0]


def drawn(**changed: Any) -> Iterator[tuple[set[int], Any]]:
    for one in requests(cell(originals=1, **changed)):
        if one.split["half"] == "target":
            yield set(one.training_rows(own())), one.request(own())


def test_a_request_is_about_rows_that_were_trained_on_one_that_stays_and_unseen_ones() -> None:
    for trained, found in drawn(requests=30, deletions=40):
        gone = set(found.forget)
        assert len(found.forget) == len(gone) == 40
        assert gone < trained
        assert len(found.retained) == 1
        assert set(found.retained) <= trained - gone
        assert len(found.unseen) == 40
        assert set(found.unseen) <= set(own().negative)
        assert len(set(found.unseen)) < 40, "drawn with replacement"
        assert not len(found.added)
        parts = [found.forget, found.retained, found.unseen]
        assert found.queries.tolist() == [row for part in parts for row in part]


def test_new_records_are_none_that_anybody_else_has() -> None:
    for trained, found in drawn(requests=30, deletions=15, online=True):
        assert len(found.added) == len(set(found.added)) == 15
        assert set(found.added) <= set(own().replacement)
        assert not set(found.added) & {*trained, *found.queries}


def test_requests_to_an_original_are_drawn_independently() -> None:
    """15 of 60 rows each time: two requests have 3.75 in common on average, and many have some."""
    found = [one for _, one in drawn(requests=60, deletions=15)]
    shared = [len({*a.forget} & {*b.forget}) for a, b in combinations(found, 2)]
    assert np.mean(shared) == pytest.approx(15 * 15 / 60, abs=0.15)
    assert set().union(*(set(one.forget) for one in found)) == next(drawn())[0]
    unseen = [row for one in found for row in one.unseen]
    assert len(set(unseen)) > 80, "of 85"
    kept = Counter(row for one in found for row in one.retained)
    assert len(kept) > 25


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"originals": 0}, r"attack\.request_pairs\.originals=0: must be 1 or more"),
        ({"requests": 0}, r"attack\.request_pairs\.requests=0: must be 1 or more"),
        ({"seed": -1}, r"attack\.request_pairs\.seed=-1: must be 0 or more"),
        ({"size": 0}, r"attack\.request_pairs\.size=0: must be between 1 and 400"),
        ({"size": 401}, r"attack\.request_pairs\.size=401: must be between 1 and 400"),
        ({"deletions": 0}, r"attack\.request_pairs\.deletions=0: must be between 1 and 59"),
        ({"deletions": 60}, r"attack\.request_pairs\.deletions=60: must be between 1 and 59"),
        (
            {"deletions": 16, "online": True},
            r"attack\.request_pairs\.deletions=16: .* 15 new records",
        ),
    ],
)
def test_impossible_settings_are_named(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        member(cell(**changed)).request(own())


@pytest.mark.parametrize("online", [False, True])
def test_split_of_a_request(online: bool) -> None:
    one = member(cell(online=online), index=1, number=2)
    data = inputs.dataset(one)
    parts, found = split_of(one, data), one.request(one.pools(records_of(one, data)))
    trained = one.training_rows(one.pools(records_of(one, data))).tolist()
    assert parts.train.tolist() == trained + (found.added.tolist() if online else [])
    assert parts.forget.tolist() == found.forget.tolist()
    kept = [row for row in trained if row not in set(found.forget)]
    assert parts.retain.tolist() == kept + found.added.tolist()
    original = split_of(one.original(), data)
    assert original.train.tolist() == trained
    assert not len(original.forget)


# ---------------------------------------------------------------------------------------------
# Who shares what.


def keys(one: Cell, of: str) -> set[str]:
    return {getattr(asked.original() if "original" in of else asked, of) for asked in requests(one)}


def test_originals_serve_all_methods_and_requests() -> None:
    mine = keys(cell(), "original_key")
    assert len(mine) == 2 * SMALL["originals"]
    assert keys(cell(), "original_key") == {one.original().model_key for one in requests(cell())}
    same = [cell("finetune"), cell("second_retrain"), cell("original"), cell("sisa")]
    same += [cell(deletions=5), cell(requests=9), cell(online=True)]
    for one in same:
        assert keys(one, "original_key") == mine
    for one in (cell(size=50), cell(seed=1), replace(cell(), seed=1)):
        assert not keys(one, "original_key") & mine
    assert keys(cell(originals=3), "original_key") > mine


def test_every_original_has_a_seed_of_its_own() -> None:
    """No two requests of a seed or of two seeds share one, nor do shadow models or a sweep."""
    found = [{asked.seed for asked in requests(replace(cell(), seed=seed))} for seed in (0, 1)]
    assert [len(seeds) for seeds in found] == [4, 4]
    population = {"protocol": "audit_pool", "models": 64, "pool": 0.4, "seed": 0}
    others = [
        ShadowModel.models(replace(cell(), seed=s, attack={"shadow_models": population}))
        for s in (0, 1)
    ]
    taken = [{shadow.seed for shadow in models} for models in others]
    together = [*found, *taken, set(range(1000))]
    assert len(set().union(*together)) == sum(map(len, together))


def test_every_request_has_outputs_of_its_own() -> None:
    every = [cell(name) for name in METHODS]
    every += [cell(deletions=5), cell(online=True), replace(cell(), seed=1)]
    found = [asked.predictions_key for one in every for asked in requests(one)]
    per_cell = 2 * SMALL["originals"] * SMALL["requests"]
    assert len(found) == len(set(found)) == len(every) * per_cell
    more = [asked.predictions_key for asked in requests(cell(requests=4))]
    assert len(set(more) & set(found)) == per_cell, "more requests leave the others as they are"


def test_a_second_retrain_is_compared_with_the_original_of_its_own_seed(
    workspace: Workspace,
) -> None:
    first, second = (member(cell(name)) for name in ("retrain", "second_retrain"))
    assert second.original().predictions_key == first.original().predictions_key
    assert second.original().model_seed == second.seed == second.model_seed - 1
    later = replace(first, seed=first.seed + 1)
    assert later.model_key == second.model_key
    assert later.predictions_key != second.predictions_key, "what was before is another"
    found = [by_half(workspace, cell(name))["target"] for name in METHODS[2:4]]
    assert (found[0].logits_MQNC[0] == found[1].logits_MQNC[0]).all()
    assert (found[0].logits_MQNC[1] != found[1].logits_MQNC[1]).any()


def test_a_plan_has_each_original_and_each_request_once(tmp_path: Path) -> None:
    grid = [cell("finetune"), cell("gradient_ascent"), cell("original")]
    made = plan(grid, Store(tmp_path), set())
    originals, asked = 2 * 2, 2 * 2 * 3
    assert Counter(job.kind for job in made.jobs) == {
        "original": 1 + originals,
        "retrained": 1 + asked,
        "unlearned": 2 * (1 + asked),
        "rows": 1,
    }
    by_key = {job.key: job for job in made.jobs}
    assert len(by_key) == len(made.jobs)
    done: set[str] = set()
    for job in made.jobs:
        assert done >= {*job.needs}
        done.add(job.key)
    for one in grid[:2]:
        for request_ in requests(one):
            for needed in (request_, replace(request_, method=one.reference)):
                job = by_key[needed.predictions_key]
                assert job.needs == (request_.original().predictions_key,)
                assert job.wave == 2


def test_original_and_retrain_have_no_requests_beside_those_of_retrain(tmp_path: Path) -> None:
    alone, both = (
        Counter(job.kind for job in plan([*map(cell, names)], Store(tmp_path), set()).jobs)
        for names in (["original"], ["original", "retrain"])
    )
    assert alone == both == {"original": 1 + 4, "retrained": 1 + 12, "rows": 1}


def test_a_cell_without_a_zoo_has_none() -> None:
    assert protocol_of(compose().attack) is None


# ---------------------------------------------------------------------------------------------
# Outputs before and after.


def test_shapes_and_parts(workspace: Workspace) -> None:
    """Two originals, three requests each; of each two deleted rows, one that stays, two unseen."""
    one = cell("finetune")
    found = by_half(workspace, one)
    assert set(found) == set(HALVES)
    data = inputs.dataset(one)
    for half, said in found.items():
        asked = [each for each in requests(one) if each.split["half"] == half]
        own_N = np.concatenate(
            [each.request(each.pools(records_of(each, data))).queries for each in asked]
        )
        assert said.rows_N.tolist() == own_N.tolist()
        assert said.y_N.tolist() == data.y[own_N].tolist()
        assert said.logits_MQNC.shape == (2, 1, 2 * 3 * 5, 10)
        assert said.logits_MQNC.dtype == np.float32
        of_one = [FORGOTTEN, FORGOTTEN, RETAINED, UNSEEN, UNSEEN]
        assert said.status_MN[1].tolist() == of_one * 6
        assert said.status_MN[0].tolist() == [RETAINED, RETAINED, RETAINED, UNSEEN, UNSEEN] * 6
        assert (said.kind_M, said.parent_M) == (("original", "unlearned"), (-1, 0))
        assert said.audited_M == (False, True)
        assert said.model_N is not None
        assert said.request_N is not None
        assert said.model_N.tolist() == [0] * 15 + [1] * 15
        assert said.request_N.tolist() == ([0] * 5 + [1] * 5 + [2] * 5) * 2


@pytest.mark.parametrize("method", ["finetune", "retrain"])
def test_first_the_originals_outputs_then_those_of_what_became_of_it(
    workspace: Workspace, method: str
) -> None:
    found = by_half(workspace, cell(method))
    data = inputs.dataset(cell(method))
    for half, index, number in (("shadow", 0, 2), ("target", 1, 1)):
        one, said = member(cell(method), half, index, number), found[half]
        here_N = (said.model_N == index) & (said.request_N == number)
        x = data.inputs(torch.from_numpy(said.rows_N[here_N]))
        for place, net in enumerate(
            (models_module.original(workspace, one), ephemeral_model(workspace, one))
        ):
            with torch.no_grad():
                expected = net(x).numpy()
            np.testing.assert_allclose(said.logits_MQNC[place, 0, here_N], expected, atol=1e-5)
        assert np.abs(np.subtract(*said.logits_MQNC[:, 0, here_N])).max() > 1e-3


def test_before_is_what_is_stored_of_the_original(workspace: Workspace) -> None:
    """Beside its requests an original has outputs on what it was and was not trained on."""
    one = member(cell())
    said = by_half(workspace, cell())["target"]
    outputs.predict(workspace, one.original())
    stored = workspace.store.load(one.original().predictions_key)
    arrays = load_arrays(stored.read(outputs.OUTPUTS))
    data = inputs.dataset(one)
    trained = one.training_rows(one.pools(records_of(one, data))).tolist()
    assert arrays["trained_N"].tolist() == [True] * 60 + [False] * 60
    assert arrays["y_N"][:60].tolist() == data.y[trained].tolist()
    gone_N = (said.model_N == 0) & (said.status_MN[1] == FORGOTTEN)
    places = [trained.index(row) for row in said.rows_N[gone_N]]
    before = said.logits_MQNC[0, 0, gone_N]
    np.testing.assert_allclose(before, arrays["logits_NC"][places], atol=1e-5)


def test_accuracies_are_of_the_originals_under_attack(workspace: Workspace) -> None:
    """By the models themselves, on the rows they were trained on and on as many unseen ones."""
    told = outputs.gathered(workspace, cell())[1]
    originals = {
        one.original().model_key: one for one in requests(cell()) if one.split["half"] == "target"
    }
    trained, unseen = [], []
    for one in originals.values():
        data, own = inputs.dataset(one), one.pools(records_of(one, inputs.dataset(one)))
        net = models_module.original(workspace, one)
        for rows, right in ((one.training_rows(own), trained), (own.negative[:60], unseen)):
            with torch.no_grad():
                said = net(data.inputs(torch.from_numpy(rows))).argmax(dim=1)
            right += (said == data.y[rows]).tolist()
    assert {name: told[name] for name in ("request_pairs_train_acc", "request_pairs_test_acc")} == {
        "request_pairs_train_acc": (np.mean(trained), len(originals) * 60),
        "request_pairs_test_acc": (np.mean(unseen), len(originals) * 60),
    }


def test_the_original_is_compared_with_itself(workspace: Workspace) -> None:
    same, retrained = (by_half(workspace, cell(name)) for name in ("original", "retrain"))
    for half in HALVES:
        assert same[half].kind_M == ("original", "original")
        assert (same[half].logits_MQNC[0] == same[half].logits_MQNC[1]).all()
        assert (same[half].logits_MQNC[0] == retrained[half].logits_MQNC[0]).all()
        assert (same[half].rows_N == retrained[half].rows_N).all()


def test_sisa_was_its_own_ensemble_before_and_a_deletion_changes_one_shard(
    new_workspace: Workspace,
) -> None:
    small = {"originals": 1, "requests": 2, "deletions": 1}
    said = by_half(new_workspace, cell("sisa", **small))["target"]
    one = member(cell("sisa", **small), number=1)
    data = inputs.dataset(one)
    before = unlearned(new_workspace, replace(one, forget=NOTHING))
    after = ephemeral_model(new_workspace, one)
    assert isinstance(before, Ensemble)
    assert isinstance(after, Ensemble)
    here_N = said.request_N == 1
    x = data.inputs(torch.from_numpy(said.rows_N[here_N]))
    with torch.no_grad():
        for place, net in enumerate((before, after)):
            expected = net(x).numpy()
            np.testing.assert_allclose(said.logits_MQNC[place, 0, here_N], expected, atol=1e-5)
        plain = models_module.original(new_workspace, one)(x).numpy()
    assert np.abs(said.logits_MQNC[0, 0, here_N] - plain).max() > 1e-2
    changed = [
        any(not torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
        for a, b in zip(before.members, after.members, strict=True)
    ]
    assert sum(changed) == 1
    assert len(changed) == 5


def test_what_has_prepared_cannot_take_in_new_records(workspace: Workspace) -> None:
    small = {"originals": 1, "requests": 1, "online": True}
    for method in ("sisa", "amnesiac"):
        found = rows_of(workspace, cell(method, **small))
        attacked = [row for row in found.rows if row["attack"] != "none"]
        assert [row["status"] for row in attacked] == ["skipped"]
        assert attacked[0]["reason"] == f"method={method} has no step that takes in new records"
    offline = by_half(workspace, cell("amnesiac", **{**small, "online": False}))
    assert np.isfinite(offline["target"].logits_MQNC).all()


def test_new_records_are_learned(workspace: Workspace) -> None:
    plain, online = (by_half(workspace, cell("retrain", online=online)) for online in (False, True))
    for half in HALVES:
        assert (plain[half].rows_N == online[half].rows_N).all()
        assert (plain[half].logits_MQNC[0] == online[half].logits_MQNC[0]).all()
        assert (plain[half].logits_MQNC[1] != online[half].logits_MQNC[1]).any()


# ---------------------------------------------------------------------------------------------
# Transfer: the attacker's half is on another data set or model.


@cache
def transferred() -> tuple[Cell, Cell]:
    words = ["attack=double_output", "model=logreg", "method=retrain", "train.call.epochs=1"]
    words += [
        "attack.request_pairs.originals=1",
        "attack.request_pairs.requests=2",
        "attack.request_pairs.size=40",
    ]
    other = ["attack.transfer.model=decision_tree", "attack.transfer.train=estimator"]
    data, model = cells([[*words, "attack.transfer.dataset=wine"], [*words, *other]])
    return data, model


def told(found: dict[str, Predictions]) -> list[tuple[int, ...]]:
    return [found[half].logits_MQNC.shape for half in HALVES]


def test_the_attackers_half_is_on_his_own_data_set(workspace: Workspace) -> None:
    one, _ = transferred()
    assert {(each.split["half"], each.dataset["name"]) for each in requests(one)} == {
        ("shadow", "wine"),
        ("target", "digits"),
    }
    found = by_half(workspace, one)
    assert told(found) == [(2, 1, 6, 3), (2, 1, 6, 10)]
    wine = inputs.dataset(one.attackers())
    assert found["shadow"].y_N.tolist() == wine.y[found["shadow"].rows_N].tolist()


def test_the_attackers_half_is_of_his_own_model(workspace: Workspace) -> None:
    _, one = transferred()
    for each in requests(one):
        mine = {"shadow": ("decision_tree", "estimator"), "target": ("logreg", "default")}
        assert (each.model["name"], each.train["name"]) == mine[each.split["half"]]
        assert (each.train["call"].get("epochs") == 1) == (each.split["half"] == "target")
    attacked = rows_of(workspace, one)
    assert attacked.error is None


def test_the_targets_half_is_that_without_transfer() -> None:
    for one in transferred():
        plain = replace(one, attack={**one.attack, "transfer": {}}, shadow={})
        keys_ = [
            [each.predictions_key for each in requests(each_cell)] for each_cell in (one, plain)
        ]
        assert keys_[0][2:] == keys_[1][2:]
        assert not set(keys_[0][:2]) & set(keys_[1][:2])


@pytest.mark.parametrize("axis", ["dataset", "model", "train"])
def test_what_is_in_the_attackers_option_is_in_the_key(axis: str) -> None:
    data, model = transferred()
    one = data if axis == "dataset" else model
    option = one.shadow[axis]
    other = replace(one, shadow={**one.shadow, axis: {**option, "version": 99}})
    labelled = replace(one, shadow={**one.shadow, axis: {**option, "label": "other"}})
    assert other.key != one.key
    assert other.utility_key == one.utility_key
    assert labelled.key == one.key
