"""What a search may choose, and which trial of which study is which."""

from dataclasses import replace
from typing import Any

import pytest
from cells import Cells

from unlearnbench.config import validate
from unlearnbench.core.cell import Cell
from unlearnbench.search.study import Axis, Slot, Study, changed, space

OPTION = {
    "name": "toy",
    "version": 1,
    "call": {"_target_": "toy.toy", "sgd": {"lr": 0.5, "wd": 0.0}, "k": 3, "size": 32, "same": 1},
    "prepare": {"_target_": "toy.prepare", "shards": 2},
    "space": {
        "sgd.lr": {"low": 1e-5, "high": 1e-1, "log": True},
        "sgd.wd": {"low": 1e-5, "high": 1e-1, "log": True, "zero": True},
        "k": {"low": 1, "high": 10},
        "size": {"choices": [64, 128]},
        "same": {"choices": [1]},
        "prepare.shards": {"low": 1, "high": 9},
    },
}


def study(cell: Cell, **changes: Any) -> Study:
    cells = tuple(replace(cell, seed=seed) for seed in (100, 101))
    told = {"objective": "retrained", "sampler": "tpe", "prune": True, "seed": 0, **changes}
    return Study(cells, (replace(cell, seed=103),), **told)


def test_the_space_holds_the_defaults_and_leaves_out_what_has_no_choice() -> None:
    assert space(OPTION) == {
        "sgd.lr": Axis(0.5, low=1e-5, high=0.5, log=True),
        "sgd.wd": Axis(0.0, low=1e-5, high=1e-1, log=True, zero=True),
        "k": Axis(3, low=1, high=10),
        "size": Axis(32, choices=(64, 128, 32)),
    }
    assert [axis.whole for axis in space(OPTION).values()] == [False, False, True, False]


def test_settings_change_a_copy() -> None:
    made = changed(OPTION, {"sgd.lr": 0.1, "size": 64})
    assert made["call"] == {**OPTION["call"], "sgd": {"lr": 0.1, "wd": 0.0}, "size": 64}  # type: ignore[dict-item]
    assert OPTION["call"]["sgd"]["lr"] == 0.5  # type: ignore[index]


@pytest.mark.parametrize("method", validate.options("method"))
def test_every_method_space_can_be_searched(cell: Cells, method: str) -> None:
    option = cell(f"method={method}").method
    for axis in (space(option) if option["call"] else {}).values():
        if axis.choices:
            assert axis.default in axis.choices
        else:
            assert axis.low < axis.high
            assert axis.low <= axis.default <= axis.high or (axis.zero and axis.default == 0)
            assert axis.low > 0 or not axis.log


def test_a_study_is_another_one_where_a_trial_would_be(cell: Cells) -> None:
    one = study(cell("method=scrub"))
    others = [
        study(cell("method=scrub"), objective="no_retrain"),
        study(cell("method=scrub"), sampler="random"),
        study(cell("method=scrub"), prune=False),
        study(cell("method=scrub"), seed=1),
        study(cell("method=scrub", "method.call.epochs=2")),
        study(cell("method=scrub", "train.call.epochs=3")),
        study(cell("method=scrub", "method.space.epochs.high=3")),
        study(cell("method=scrub", "attack=umia", "attack.call.splits=3")),
        replace(one, cells=one.cells[:1]),
    ]
    assert len({one.key, *(other.key for other in others)}) == 1 + len(others)


def test_a_study_is_the_same_whatever_cannot_change_a_trial(cell: Cells) -> None:
    one = study(cell("method=scrub"))
    assert replace(one, fresh=()).key == one.key  # how the best are looked at afterwards
    assert study(cell("method=scrub", "store.keep=predictions")).key == one.key
    four = study(cell("method=scrub"), sampler="nsga3")  # which nothing can be pruned by
    assert replace(four, prune=False).key == four.key


def test_slots_are_jobs_of_their_own(cell: Cells) -> None:
    one = study(cell("method=scrub"))
    slots = [Slot(one, 0), Slot(one, 1), Slot(one, 0, fresh=True), Slot(one, 1, fresh=True)]
    assert len({slot.key for slot in slots}) == len(slots)
    assert Slot(one, 0, until=3.0).key == Slot(one, 0).key
    assert Slot(replace(one, fresh=()), 0, fresh=True).key != slots[2].key


def test_what_a_trial_is_measured_against(cell: Cells) -> None:
    one = study(cell("method=scrub"))
    told = [(c.names["method"], c.seed) for c in one.needs(fresh=False)]
    assert told == [("original", 100), ("retrain", 100), ("original", 101), ("retrain", 101)]
    alone = study(cell("method=scrub"), objective="no_retrain")
    assert [(c.names["method"], c.seed) for c in alone.needs(fresh=True)] == [("original", 103)]
