"""Differences to retraining: paired by seed, within their setting, and against two retrainings."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report.studies import frame, rows, trouble
from scipy import stats

from unlearnbench.report.analysis import compare
from unlearnbench.report.analysis.compare import ALIKE, ALONE, DIFFERS, UNTESTED, WITHIN

RETRAIN = [0.50, 0.70, 0.60, 0.90]
SECOND = [0.51, 0.68, 0.61, 0.89]


def compared(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    found = compare.runs(frame(*parts))
    return compare.compared(found, compare.values(found))


def controls(**about: Any) -> list[dict[str, Any]]:
    return [
        *rows("retrain", {"test_acc": RETRAIN}, **about),
        *rows("second_retrain", {"test_acc": SECOND}, **about),
    ]


def shifted(by: list[float]) -> list[float]:
    return [value + more for value, more in zip(RETRAIN, by, strict=True)]


def line(told: pd.DataFrame, method: str, metric: str = "test_acc") -> dict[str, Any]:
    (found,) = told[(told["method"] == method) & (told["metric"] == metric)].to_dict("records")
    return {str(name): value for name, value in found.items()}


def test_a_gap_is_paired_by_seed() -> None:
    """Retraining spreads over .4; seed by seed the method is .01, .02, .03, .04 above it."""
    by = [0.01, 0.02, 0.03, 0.04]
    told = line(compared(controls(), rows("scrub", {"test_acc": shifted(by)})), "scrub")
    error = np.std(by, ddof=1) / 2
    assert (told["seeds"], told["asked"], told["pairs"]) == (4, 4, 4)
    assert told["mean"] == pytest.approx(np.mean(RETRAIN) + 0.025)
    assert told["gap"] == pytest.approx(0.025)
    assert told["t_low"] == pytest.approx(0.025 - 3.182 * error, rel=1e-3)
    assert told["t_high"] == pytest.approx(0.025 + 3.182 * error, rel=1e-3)
    assert 0.01 <= told["boot_low"] < 0.025 < told["boot_high"] <= 0.04
    assert told["p"] == pytest.approx(stats.ttest_rel(shifted(by), RETRAIN).pvalue)
    assert told["half"] == pytest.approx(
        3.182 * np.std(shifted(by), ddof=1) / 2, rel=1e-3
    )  # of its own values, not of the differences
    assert told["over"] == "seeds"


def test_the_floor_is_what_two_retrainings_differ_by() -> None:
    told = compared(controls(), rows("scrub", {"test_acc": shifted([0.1, 0.2, 0.3, 0.4])}))
    floor = math.sqrt((1 + 4 + 1 + 1) / 4) / 100
    assert line(told, "scrub")["floor"] == pytest.approx(floor)
    assert line(told, "scrub")["effect"] == pytest.approx(0.25 / floor)
    assert line(told, "second_retrain")["verdict"] == ""
    assert math.isnan(line(told, "second_retrain")["p"])


def test_signed_and_absolute_gap() -> None:
    told = line(compared(controls(), rows("a", {"test_acc": shifted([0.1, -0.1, 0.3, 0.1])})), "a")
    assert told["gap"] == pytest.approx(0.1)
    assert told["abs_gap"] == pytest.approx(0.15)


def test_a_missing_seed_is_left_out_on_both_sides() -> None:
    values = [*shifted([0.1, 0.2, 0.3, 9.0])[:3], None]
    told = line(compared(controls(), rows("a", {"test_acc": values})), "a")
    assert (told["seeds"], told["asked"], told["pairs"]) == (3, 4, 3)
    assert told["gap"] == pytest.approx(0.2)
    half = [rows("retrain", {"test_acc": [None, *RETRAIN[1:]]}), rows("a", {"test_acc": values})]
    told = line(compared(*half), "a")
    assert (told["seeds"], told["pairs"]) == (3, 2)
    assert told["gap"] == pytest.approx(0.25)


def test_settings_do_not_mix() -> None:
    """The retraining of another forget set, model or set-up is not this one's."""
    others: list[dict[str, Any]] = [
        {"forget_hash": "f1"},
        {"model": "mlp"},
        {"dataset": "wine"},
        {"overrides": "split.val=0.3"},
    ]
    parts = [controls(), rows("a", {"test_acc": shifted([0.1] * 4)})]
    for about in others:
        parts.append(rows("retrain", {"test_acc": [0.0] * 4}, **about))
        parts.append(rows("a", {"test_acc": [0.5] * 4}, **about))
    told = compared(*parts)
    gaps = told[told["method"] == "a"].set_index(["forget_hash", "model", "dataset", "setup"])
    assert gaps["gap"].to_dict() == {
        ("f0", "cnn", "digits", ""): pytest.approx(0.1),
        ("f1", "cnn", "digits", ""): 0.5,
        ("f0", "mlp", "digits", ""): 0.5,
        ("f0", "cnn", "wine", ""): 0.5,
        ("f0", "cnn", "digits", "split.val=0.3"): 0.5,
    }


def test_a_method_set_up_in_two_ways_is_two_lines_held_to_one_retraining() -> None:
    told = compared(
        controls(),
        rows("a", {"test_acc": shifted([0.1] * 4)}),
        rows("a", {"test_acc": shifted([0.2] * 4)}, overrides="method.call.epochs=9"),
        rows("retrain", {"test_acc": [0.0] * 4}, overrides="method.call.epochs=9"),
    )
    found = told[told["method"] == "a"].set_index("own")["gap"].to_dict()
    assert found == {"": pytest.approx(0.1), "method.call.epochs=9": pytest.approx(0.2)}


def test_verdicts() -> None:
    """Floor .0132. Sizes are told by the spread they have over four seeds."""
    jitter = np.array([0.001, -0.001, 0.0005, -0.0005])
    told = compared(
        controls(),
        rows("far", {"test_acc": shifted([0.2 + more for more in jitter])}),
        rows("below", {"test_acc": shifted([-0.2 + more for more in jitter])}),
        rows("near", {"test_acc": shifted([0.01 + more for more in jitter])}),
        rows("loose", {"test_acc": shifted([0.2 + 60 * more for more in jitter])}),
        rows("same", {"test_acc": shifted([more for more in jitter])}),
        rows("equal", {"test_acc": RETRAIN}),
        rows("constant", {"test_acc": [value + 0.25 for value in RETRAIN]}),
        rows("single", {"test_acc": [0.9, None, None, None]}),
        *(rows(f"other_{k}", {"test_acc": shifted([-0.01, 0.01, 0.02, -0.02])}) for k in range(9)),
    )
    found = {
        name: line(told, name)["verdict"] for name in ("far", "below", "near", "loose", "same")
    }
    assert list(found.values()) == [DIFFERS, DIFFERS, WITHIN, ALONE, ALIKE]
    others = {name: line(told, name)["verdict"] for name in ("equal", "constant", "single")}
    assert others == {"equal": ALIKE, "constant": UNTESTED, "single": UNTESTED}
    assert line(told, "loose")["p"] < 0.05 <= line(told, "loose")["p_holm"]


def test_holm_is_over_the_methods_of_one_setting_and_metric() -> None:
    by = [0.01, 0.02, 0.03, 0.02]
    alone = compared(controls(), rows("a", {"test_acc": shifted(by)}))
    assert line(alone, "a")["p_holm"] == line(alone, "a")["p"]
    both = compared(
        controls(), *(rows(name, {"test_acc": shifted(by)}) for name in ("a", "b", "original"))
    )
    assert line(both, "a")["p_holm"] == pytest.approx(3 * line(both, "a")["p"])
    elsewhere = compared(
        controls(),
        controls(model="mlp"),
        rows("a", {"test_acc": shifted(by)}),
        rows("b", {"test_acc": shifted(by)}, model="mlp"),
    )
    assert line(elsewhere, "b")["p_holm"] == line(elsewhere, "b")["p"]


def test_tug_of_war_is_each_seeds_own() -> None:
    names = ("retain_acc", "forget_acc", "test_acc")
    retrain = {name: [0.9, 0.5] for name in names}
    ours = {"retain_acc": [0.8, 0.9], "forget_acc": [1.0, 0.5], "test_acc": [0.7, 0.5]}
    mia = {"retrain": [0.5, 0.6], "a": [0.75, 0.6]}
    told = compared(
        rows("retrain", retrain),
        rows("a", ours),
        *(rows(name, {"mia_test": values}, "umia") for name, values in mia.items()),
    )
    first, second = 0.9 * 0.9 * 0.8, 0.6 * 1.0 * 1.0
    assert line(told, "a", "tow")["mean"] == pytest.approx((first + second) / 2)
    with_mia = 0.9 * 0.75 * 0.8, 0.6 * 1.0 * 1.0
    assert line(told, "a", "tow_mia")["mean"] == pytest.approx(sum(with_mia) / 2)
    assert line(told, "retrain", "tow")["mean"] == 1
    assert math.isnan(line(told, "a", "tow")["gap"])  # it is one


def test_an_attack_under_a_defense_is_held_to_retraining_under_it() -> None:
    told = compared(
        rows("retrain", {"mia_test": [0.5, 0.6]}, "umia"),
        rows("retrain", {"mia_test": [0.4, 0.4]}, "umia", defense="top_k"),
        rows("a", {"mia_test": [0.7, 0.7]}, "umia"),
        rows("a", {"mia_test": [0.7, 0.7]}, "umia", defense="top_k"),
    )
    found = told[told["method"] == "a"].set_index("defense")["gap"].to_dict()
    assert found == {"none": pytest.approx(0.15), "top_k": pytest.approx(0.3)}


def test_an_attack_set_up_in_two_ways_is_two_settings_and_utility_neither() -> None:
    ways = ("attack.shadow_models.models=8", "attack.shadow_models.models=16")
    told = compared(
        controls(),
        rows("a", {"test_acc": RETRAIN}, overrides=ways[0]),
        *(rows("a", {"lira_auc": [0.6]}, "lira", overrides=way) for way in ways),
    )
    variants = told[told["method"] == "a"].set_index("metric")["variant"]
    assert sorted(variants["lira_auc"]) == sorted(ways)
    assert variants["test_acc"] == ""


def test_one_seed_of_a_population_has_its_models_interval() -> None:
    own = {"lira_auc": [0.7], "lira_auc_gap": [0.2], "lira_auc_gap_low": [0.1]}
    own |= {"lira_auc_gap_high": [0.3], "lira_auc_detectable": [0.15]}
    told = compared(rows("retrain", {"lira_auc": [0.5]}, "lira"), rows("a", own, "lira"))
    found = line(told, "a", "lira_auc")
    assert (found["gap"], found["t_low"], found["t_high"]) == (0.2, 0.1, 0.3)
    assert found["detectable"] == 0.15
    assert found["over"] == "target models"
    assert found["p"] == pytest.approx(2 * stats.norm.sf(2 * 1.959964), rel=1e-5)
    assert not told["metric"].str.contains("_gap|_detectable").any()
    two = {name: values * 2 for name, values in own.items()}
    both = rows("retrain", {"lira_auc": [0.5, 0.52]}, "lira"), rows("a", two, "lira")
    assert line(compared(*both), "a", "lira_auc")["over"] == "seeds"


def test_a_failed_cell_belongs_to_those_set_up_alike() -> None:
    found = compare.runs(frame(controls(), trouble("a", 0)))
    assert set(found["forget_hash"]) == {"f0"}


def test_without_retraining_there_are_no_differences() -> None:
    told = compared(rows("a", {"test_acc": [0.5, 0.6]}))
    assert math.isnan(line(told, "a")["gap"])
    assert line(told, "a")["verdict"] == ""


def test_blocks_are_named_by_what_tells_them_apart() -> None:
    same = {"dataset": "digits", "train": "default", "forget": "random", "setup": "", "model": "a"}
    blocks = pd.DataFrame([{**same, "forget_hash": name} for name in ("f0", "f1")])
    assert compare.named(blocks) == ["digits a f0", "digits a f1"]
    blocks = pd.DataFrame([{**same, "forget_hash": "f0", "model": name} for name in ("a", "b")])
    assert compare.named(blocks) == ["digits a", "digits b"]


# ---------------------------------------------------------------------------------------------
# Content, not text.


KEYED = {"setup_key": "s", "method_key": "m", "defense_key": "n", "attack_key": "n", "schema": 5}


def named(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    return compare.runs(frame(*parts))


@pytest.mark.tried(
    "one content under several spellings of overrides",
    "one line and one table, under the name of the first",
)
def test_rows_are_put_together_by_content() -> None:
    spelled = [f"dataset.path={way} method.call.lr={lr}" for way, lr in (("a", 1), ("./a", "1e0"))]
    found = named(*(rows("a", {"test_acc": [0.5]}, overrides=o, **KEYED) for o in spelled))
    for name, first in (("setup", "dataset.path=a"), ("own", "method.call.lr=1")):
        assert found[name].tolist() == [first, first]


@pytest.mark.tried(
    "two contents under one text of overrides",
    "two lines or tables, which some digits of their keys tell apart",
)
@pytest.mark.parametrize(
    ("name", "key", "about"),
    [
        ("setup", "setup_key", {}),
        ("own", "method_key", {}),
        ("shield", "defense_key", {"defense": "rounding"}),
        ("asked", "attack_key", {"attack": "umia"}),
    ],
)
def test_what_differs_in_content_is_apart(name: str, key: str, about: dict[str, str]) -> None:
    keys = [f"{number}" * 16 for number in range(2)]
    same = {**KEYED, "overrides": "x=1 method.a=1 defense.a=1 attack.a=1"}
    found = named(*(rows("a", {"test_acc": [0.5]}, **{**same, **about, key: one}) for one in keys))
    assert found[name].tolist() == [f"{found[name].iloc[0][:-10]} #{one[:8]}" for one in keys]
    others = set(compare.NAMES) - {name}
    assert all(found[other].nunique() == 1 for other in others)


def test_rows_of_earlier_schemas_are_put_together_by_their_overrides() -> None:
    words = ["split.val=.1 method.call.lr=1", "split.val=.2 method.call.lr=2"]
    found = named(*(rows("a", {"test_acc": [0.5]}, overrides=one, schema=4) for one in words))
    assert found["setup"].tolist() == ["split.val=.1", "split.val=.2"]
    assert found["own"].tolist() == ["method.call.lr=1", "method.call.lr=2"]


def test_a_value_with_spaces_and_quotes_is_one_word() -> None:
    words = """dataset.path='a method.x=1 b.npz' method.call.name="it's" split.val=.1"""
    found = named(rows("a", {"test_acc": [0.5]}, overrides=words))
    assert found["setup"].tolist() == ["dataset.path='a method.x=1 b.npz' split.val=.1"]
    assert found["own"].tolist() == ["""method.call.name="it's\""""]


def test_a_defense_set_up_in_two_ways_has_a_table_each_and_its_controls_in_both() -> None:
    ways = [{"overrides": f"defense.call.decimals={n}", "defense_key": f"d{n}"} for n in (1, 2)]
    about = {**KEYED, "defense": "rounding"}
    parts = [
        rows(method, {"mia_test": [0.5]}, "umia", **{**about, **way})
        for method in ("retrain", "a")
        for way in ways
    ]
    bare = [rows(method, {"test_acc": [0.5]}, **KEYED) for method in ("retrain", "a")]
    found = named(*parts, *bare)
    assert found["setup"].nunique() == 1
    by = found.groupby(["defense", "variant"])["method"].agg(list).to_dict()
    assert by == {
        ("none", ""): ["retrain", "a"],
        ("rounding", "defense.call.decimals=1"): ["retrain", "a"],
        ("rounding", "defense.call.decimals=2"): ["retrain", "a"],
    }


COST = {"rte": [2.0, 3.0], "peak_bytes": [1e6, 2e6], "test_acc": [0.5, 0.6]}


@pytest.mark.tried(
    "memory and times of a CPU and of a GPU in one task",
    "no mean, gap or table is over both: they are left out, and the report says so",
)
@pytest.mark.parametrize("way", ["seeds", "methods", "schema 4"])
def test_costs_of_several_devices_are_not_compared(way: str) -> None:
    here, there = {"measured_on": "cpu"}, {"measured_on": "NVIDIA H200"}
    if way == "schema 4":
        here, there = (
            {"measured_on": None, "schema": 4, "device": one["measured_on"]}
            for one in (here, there)
        )
    parts = [rows("a", COST, **here), rows("b", COST, **there)]
    if way == "seeds":
        parts = [[{**row, **(there if row["seed"] else here)} for row in rows("a", COST)]]
    parts.append(rows("a", COST, model="mlp", **here))
    told = compared(*parts)
    of_cnn = told[told["model"] == "cnn"]
    assert set(of_cnn["metric"]) == {"test_acc"}
    assert set(told.loc[told["model"] == "mlp", "metric"]) == set(COST)


def test_what_has_no_costs_is_of_no_device() -> None:
    told = compared(
        rows("original", {"test_acc": [0.5, 0.6]}, measured_on=None, device="cpu"),
        rows("a", COST, measured_on="NVIDIA H200"),
    )
    assert "rte" in set(told["metric"])
