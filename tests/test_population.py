"""The keep matrix: balanced, seeded, and the same originals for every method and attack."""

from dataclasses import replace

import numpy as np
import pytest
from cells import Cells

from unlearnbench import outputs, pipeline, table, values
from unlearnbench.cell import Cell
from unlearnbench.pipeline import Lab
from unlearnbench.population import FORGOTTEN, RETAINED, UNSEEN, audit_pool, shadows
from unlearnbench.split import population, split_of

ROWS = np.arange(1000, 2000)
SETTINGS = {"protocol": "audit_pool", "models": 8, "pool": 0.1, "seed": 0}


def audited(cell: Cells, *words: str) -> Cell:
    one = cell("model=mlp", "train.call.epochs=1", "method.call.epochs=1", *words)
    return replace(one, attack={**one.attack, "shadows": SETTINGS})


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
    with pytest.raises(ValueError, match=r"attack\.shadows\.(models|pool)="):
        audit_pool(ROWS, models=models, pool=pool, seed=0)


def test_states_are_the_predictions() -> None:
    assert (UNSEEN, RETAINED, FORGOTTEN) == (values.UNSEEN, values.RETAINED, values.FORGOTTEN)


def test_originals_are_shared_by_methods_and_attacks(cell: Cells) -> None:
    mine, theirs = shadows(audited(cell)), shadows(audited(cell, "method=gradient_ascent"))
    assert [a.original_key for a in mine] == [b.original_key for b in theirs]
    assert len({a.original_key for a in mine}) == len(mine)
    assert not {a.predictions_key for a in mine} & {b.predictions_key for b in theirs}
    other = replace(audited(cell), attack={**audited(cell).attack, "call": {"_target_": "x"}})
    assert [a.predictions_key for a in shadows(other)] == [a.predictions_key for a in mine]


def test_other_settings_or_seeds_are_other_models(cell: Cells) -> None:
    one = audited(cell)
    more = replace(one, attack={**one.attack, "shadows": {**SETTINGS, "models": 12}})
    later = replace(one, seed=1)
    keys = [{shadow.original_key for shadow in shadows(each)} for each in (one, more, later)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]


def test_a_cell_without_a_population_has_no_shadows(cell: Cells) -> None:
    assert shadows(cell()) == []


def test_splits_follow_the_matrix(cell: Cells) -> None:
    one = audited(cell)
    data = pipeline.dataset(one)
    plain = split_of(one, data)
    for index, shadow in enumerate(shadows(one)[:3]):
        parts = split_of(shadow, data)
        found = population(shadow, data.train_rows)
        status_N = found.status_MN[index]
        unseen, gone = (set(found.rows_N[status_N == s]) for s in (UNSEEN, FORGOTTEN))
        assert set(parts.train.tolist()) == set(plain.train.tolist()) - unseen
        assert set(parts.forget.tolist()) == gone
        assert parts.val.tolist() == plain.val.tolist()
        assert parts.test.tolist() == plain.test.tolist()


def test_predictions_of_a_population(new_lab: Lab, cell: Cells) -> None:
    """Unlearned, original, retrained; on audited records alone, and no unlearned weights kept."""
    one = audited(cell)
    found = outputs.population_predictions(new_lab, one)
    n = len(found.rows_N)
    assert found.logits_MQNC.shape == (24, 1, n, 10)
    assert found.kind_M == ("unlearned",) * 8 + ("original",) * 8 + ("retrained",) * 8
    assert found.audited_M == (True,) * 8 + (False,) * 16
    assert found.parent_M == (*range(8, 16), *[-1] * 16)
    data = pipeline.dataset(one)
    assert found.y_N.tolist() == data.y[found.rows_N].tolist()
    models = [
        new_lab.store.load(path.parent.name).manifest for path in new_lab.store.root.rglob("*.json")
    ]
    assert sum(told["kind"] == "model" for told in models) == 8  # the originals
    shadow = shadows(one)[3]
    net = pipeline.original(new_lab, shadow)
    expected = net(data.inputs(pipeline.torch.from_numpy(found.rows_N))).detach().numpy()
    np.testing.assert_allclose(found.logits_MQNC[8 + 3, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["original", "retrain"])
def test_controls_under_attack_are_not_there_twice(new_lab: Lab, cell: Cells, method: str) -> None:
    one = cell("model=mlp", "train.call.epochs=1", f"method={method}")
    found = outputs.population_predictions(
        new_lab, replace(one, attack={**one.attack, "shadows": SETTINGS})
    )
    assert sorted(set(found.kind_M)) == ["original", "retrained"]
    assert len(found.kind_M) == 16
    assert found.audited_M == (True,) * 8 + (False,) * 8


def test_rows_say_where_the_attack_stands_between_floor_and_ceiling(
    new_lab: Lab, cell: Cells
) -> None:
    told = {}
    for method in ("original", "retrain", "finetune"):
        words = "model=mlp", "train.call.epochs=1", f"method={method}", "attack=lira"
        found = table.rows(new_lab, cell(*words, "attack.shadows.models=8"))
        assert found.error is None
        told[method] = {row["metric"]: row["value"] for row in found.rows}
        assert set(found.scores["pool"].to_pylist()) == {f"model {k:02d}" for k in range(8)}
    ends = {told[method]["lira_auc"] for method in ("retrain", "original")}
    for row in told.values():
        assert {row["lira_auc_floor"], row["lira_auc_ceiling"]} == ends
        assert row["lira_auc_low"] <= row["lira_auc"] <= row["lira_auc_high"]
    assert told["retrain"]["lira_auc_normalised"] == 0
    assert told["original"]["lira_auc_normalised"] == 1
