"""Deletions of one record each: which rows, shared originals, and their place in the plan."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearnbench.config import compose
from unlearnbench.core.cell import Cell
from unlearnbench.pipeline import inputs
from unlearnbench.pipeline.split import split_of
from unlearnbench.protocol import protocol_of
from unlearnbench.protocol.single_deletions import SingleDeletions
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep.plan import plan

ROWS = np.arange(500, 700)
METHODS = ["retrain", "finetune", "ssd", "original"]
SETTINGS = {"private": 0.5, "public": 0.25, "count": 10, "together": 1, "seed": 0}


@cache
def composed() -> dict[str, Cell]:
    words = ["dataset=diabetes", "model=ridge", "train=exact", "attack=hrec"]
    every = compose.cells([[*words, f"method={name}"] for name in METHODS])
    return dict(zip(METHODS, every, strict=True))


def cell(method: str = "retrain", **changed: Any) -> SingleDeletions:
    found = composed()[method]
    attack = {**found.attack, "single_deletions": {**SETTINGS, **changed}}
    (each,) = SingleDeletions.models(replace(found, attack=attack))
    return each


def rows(**changed: Any) -> tuple[list[int], list[int], list[int]]:
    each = cell(**changed)
    private, public = each.pools(ROWS)
    return private.tolist(), public.tolist(), each.forgotten(private).tolist()


def test_private_and_public_rows_are_drawn_apart() -> None:
    private, public, gone = rows()
    assert (len(private), len(public), len(gone)) == (100, 50, 10)
    assert not set(private) & set(public)
    assert {*private, *public} < set(ROWS)
    assert gone == private[:10]
    assert private != sorted(private)
    assert rows(seed=1)[0] != private
    assert rows(private=80, public=120)[0] == private[:80]
    assert len(rows(private=80, public=120)[1]) == 120


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"private": 0.8}, r"private=0.8, public=0.25: there are 200 rows here"),
        ({"private": 120, "public": 100}, r"private=120, public=100: there are 200 rows"),
        ({"public": 0.0}, r"public=0: must be above 0"),
        ({"count": 100}, r"count=100: must be between 1 and 99"),
        ({"count": 0}, r"count=0: must be between 1 and 99"),
    ],
)
def test_what_cannot_be_drawn_is_told(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"^attack\.single_deletions\.{told}"):
        rows(**changed)


def test_a_split_has_private_rows_to_train_on_and_public_ones_instead_of_a_test() -> None:
    each = cell()
    data = inputs.dataset(each)
    whole, third = split_of(each, data), split_of(each.only(3), data)
    assert len(whole.train) == 150
    assert whole.forget.tolist() == whole.train[:10].tolist()
    assert third.forget.tolist() == [int(whole.train[3])]
    assert third.retain.tolist() == [*whole.train[:3].tolist(), *whole.train[4:].tolist()]
    assert set(whole.test.tolist()) <= set(data.train_rows.tolist())
    plain = split_of(composed()["retrain"], data)
    assert not set(plain.val.tolist()) & {*whole.train.tolist(), *whole.test.tolist()}


def test_one_original_serves_all_methods_and_counts() -> None:
    keys = {
        cell(method, **changed).original_key for method in METHODS for changed in [{}, {"count": 3}]
    }
    assert len(keys) == 1
    assert keys != {composed()["retrain"].original_key}
    assert cell(seed=1).original_key not in keys
    assert cell(private=0.25).original_key not in keys


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_is_in_the_key_of_what_is_stored(method: str) -> None:
    changed = [{}, {"private": 0.25}, {"public": 0.5}, {"count": 3}, {"together": 2}, {"seed": 1}]
    assert len({cell(method, **each).predictions_key for each in changed}) == len(changed)
    assert cell(method).predictions_key != composed()[method].predictions_key


def test_another_attack_has_none() -> None:
    (plain,) = compose.cells([["attack=umia"]])
    assert protocol_of(plain.attack) is None


def test_settings_of_the_top_level_reach_the_attack() -> None:
    words = ["dataset=diabetes", "model=ridge", "train=exact", "attack=hrec"]
    one_way, other = compose.cells(
        [
            [*words, "single_deletions.count=7"],
            [*words, "attack.single_deletions.count=7", "seed=1"],
        ]
    )
    assert one_way.attack == other.attack
    assert one_way.overrides == other.overrides == "attack.single_deletions.count=7"


def test_the_plan_counts_deletions_once(tmp_path: Path) -> None:
    """The original of a method that starts from it, the reference's deletions, and its own."""
    made = plan(list(composed().values()), Store(tmp_path), set())
    assert Counter(job.kind for job in made.jobs) == {
        "original": 2,
        "retrained": 2,
        "unlearned": 4,
        "rows": 1,
    }
    keys = [job.key for job in made.jobs]
    assert len(set(keys)) == len(keys)
    for job in made.jobs:
        assert set(job.needs) <= set(keys)
    (retrain_alone,) = (plan([composed()["retrain"]], Store(tmp_path), set()),)
    assert Counter(job.kind for job in retrain_alone.jobs) == {"retrained": 2, "rows": 1}
