"""The leaderboard: its intervals by hand, its order, what is missing, and one table to the byte."""

import math
import statistics
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report import studies
from scipy import stats

from unlearnbench.report.analysis import columns
from unlearnbench.report.tables import leaderboard
from unlearnbench.report.tables.leaderboard import interval, markdown, tables

ABOUT = {**studies.ABOUT, "attack": "umia", "reason": None}


def cell(method: str, seed: int, **values: Any) -> dict[str, Any]:
    return {**ABOUT, "method": method, "seed": seed, **values}


def failed(method: str, seed: int, **values: Any) -> dict[str, Any]:
    return cell(method, seed, status="failed", reason="it broke", forget_hash=None, **values)


def only(cells: list[dict[str, Any]]) -> pd.DataFrame:
    ((_, table),) = tables(pd.DataFrame(cells))
    return table.set_index("method")


def over_seeds(method: str, *accuracies: float, **values: Any) -> list[dict[str, Any]]:
    return [cell(method, seed, test_acc=acc, **values) for seed, acc in enumerate(accuracies)]


def test_interval_is_students() -> None:
    values = [0.9, 0.8, 0.95, 0.7]
    mean, half = interval(values)
    assert mean == pytest.approx(statistics.mean(values))
    # t with 3 degrees of freedom, two-sided 95 %, from a printed table.
    assert half == pytest.approx(3.182 * statistics.stdev(values) / math.sqrt(4), rel=1e-3)
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_interval_of_one_or_no_value() -> None:
    assert interval([0.5])[0] == 0.5
    assert math.isnan(interval([0.5])[1])
    assert all(map(math.isnan, interval([])))
    assert all(map(math.isnan, interval([float("nan")])))


def test_interval_is_of_the_values_there_are() -> None:
    assert interval([0.1, float("nan"), 0.3]) == interval([0.1, 0.3])


def test_controls_come_first_then_by_ret_dev() -> None:
    deviations = {
        "worse": 0.4,
        "second_retrain": 0.05,
        "better": 0.1,
        "unknown": np.nan,
        "retrain": 0.0,
        "original": 0.9,
    }
    table = only([cell(name, 0, ret_dev=value) for name, value in deviations.items()])
    assert list(table.index) == [
        "original",
        "retrain",
        "second_retrain",
        "better",
        "worse",
        "unknown",
    ]


def test_one_seed_has_no_interval() -> None:
    table = only(over_seeds("finetune", 0.5))
    assert table.loc["finetune"].to_dict() == {"TA %": "50.0", "n": "1"}


def test_a_missing_seed_is_told() -> None:
    cells = over_seeds("finetune", 0.5, 0.6, 0.7) + over_seeds("scrub", 0.5, 0.6)
    table = only([*cells, failed("scrub", 2)])
    assert table["n"].to_dict() == {"finetune": "3", "scrub": "2 of 3"}
    assert table.loc["scrub", "TA %"] == only(over_seeds("scrub", 0.5, 0.6)).loc["scrub", "TA %"]


def test_a_seed_that_failed_for_all_is_told() -> None:
    cells = over_seeds("finetune", 0.5, 0.6) + over_seeds("scrub", 0.5, 0.6)
    table = only([*cells, failed("finetune", 2), failed("scrub", 2)])
    assert list(table["n"]) == ["2 of 3", "2 of 3"]


def test_a_method_that_only_failed_has_its_line() -> None:
    cells = over_seeds("finetune", 0.5, 0.6) + [failed("scrub", seed) for seed in range(2)]
    table = only(cells)
    assert list(table.index) == ["finetune", "scrub"]
    assert table.loc["scrub", "n"] == "0 of 2"
    assert pd.isna(table.loc["scrub", "TA %"])


def test_a_failed_cell_belongs_to_those_set_up_alike() -> None:
    small, large = "forget.call.count=5", "forget.call.count=50"
    cells = over_seeds("finetune", 0.5, 0.6, overrides=small)
    cells += over_seeds("finetune", 0.1, 0.2, overrides=large, forget_hash="f1")
    cells += [failed("scrub", 0, overrides=f"{large} method.call.epochs=3")]
    found = {title: list(table["method"]) for title, table in tables(pd.DataFrame(cells))}
    assert [(title.split(" · ")[-1], lines) for title, lines in found.items()] == [
        (small, ["finetune"]),
        (large, ["finetune", "scrub method.call.epochs=3"]),
    ]


def test_where_all_failed_there_is_no_table() -> None:
    assert list(tables(pd.DataFrame([failed("finetune", 0, test_acc=np.nan)]))) == []


def test_a_mean_over_fewer_seeds_than_the_line_says_so() -> None:
    cells = over_seeds("finetune", 0.5, 0.6, 0.7)
    for one, mia in zip(cells, (0.6, np.nan, 0.6), strict=True):
        one["mia_test"] = mia
    cells[1]["status"] = "failed"  # the attack on this seed
    line = only(cells).loc["finetune"]
    assert line["MIA % →50"] == "60.0 ± 0.0 (2)"
    assert "(" not in line["TA %"]
    assert line["n"] == "3"


def test_a_skipped_attack_leaves_the_utility_and_its_n() -> None:
    cells = over_seeds("finetune", 0.5, 0.6, status="skipped", reason="too few", mia_test=np.nan)
    line = only(cells).loc["finetune"]
    assert list(line.index) == ["TA %", "n"]
    assert line["n"] == "2"


def test_overrides_are_lines_of_their_own() -> None:
    cells = over_seeds("finetune", 0.5, 0.6)
    cells += over_seeds("finetune", 0.7, 0.8, overrides="method.call.epochs=1")
    assert list(only(cells).index) == ["finetune", "finetune method.call.epochs=1"]


def test_a_setting_is_a_table() -> None:
    cells = [
        cell("finetune", 0, test_acc=0.5),
        cell("finetune", 0, test_acc=0.5, forget_hash="f1"),
        cell("finetune", 0, mia_test=0.5, dataset="wine", defense="round"),
        cell("finetune", 0, mia_test=0.5, dataset="wine"),
    ]
    titles = [title for title, _ in tables(pd.DataFrame(cells))]
    assert sorted(titles) == [
        "dataset digits · model cnn · train default · forget random · attack umia",
        "dataset digits · model cnn · train default · forget random · attack umia",
        "dataset wine · model cnn · train default · forget random · attack umia",
        "dataset wine · model cnn · train default · forget random · defense round · attack umia",
    ]


def test_attacks_on_a_method_stand_in_one_line() -> None:
    found = [
        cell("finetune", 0, test_acc=0.5, mia_test=0.6),
        cell("finetune", 0, test_acc=0.5, attack="none"),
        cell("finetune", 0, test_acc=0.5, attack="ulira", ulira_auc=0.7, overrides="attack.x=3"),
    ]
    ((title, table),) = tables(pd.DataFrame(found))
    assert title.endswith("attack ulira, umia · attack.x=3")
    expected = {"TA %": "50.0", "MIA % →50": "60.0", "U-LiRA AUC": "0.700", "n": "1"}
    assert table.set_index("method").loc["finetune"].to_dict() == expected


def test_an_attack_set_up_in_two_ways_is_two_tables() -> None:
    found = [
        cell("finetune", 0, attack="ulira", ulira_auc=auc, overrides=f"attack.x={auc}")
        for auc in (0.6, 0.7)
    ]
    told = {title: table["U-LiRA AUC"].tolist() for title, table in tables(pd.DataFrame(found))}
    assert [title[-12:] for title in told] == ["attack.x=0.6", "attack.x=0.7"]
    assert list(told.values()) == [["0.600"], ["0.700"]]


def test_a_defense_shows_what_it_changes() -> None:
    found = [cell("finetune", 0, test_acc=0.5, rte=2.0, mia_test=0.6, defense="round")]
    assert only(found).loc["finetune"].to_dict() == {"MIA % →50": "60.0", "n": "1"}


def gaps(method: str, *gaps: tuple[float, float, float], detectable: float = 0.1) -> list[Any]:
    names = "ulira_auc_gap", "ulira_auc_gap_low", "ulira_auc_gap_high"
    return [
        cell(
            method,
            seed,
            attack="ulira",
            ulira_auc=0.5 + gap[0],
            ulira_auc_detectable=detectable,
            **dict(zip(names, gap, strict=True)),
        )
        for seed, gap in enumerate(gaps)
    ]


def test_what_cannot_be_told_from_retraining_is_marked() -> None:
    found = pd.DataFrame(
        gaps("retrain", (0.0, 0.0, 0.0), detectable=0.0)
        + gaps("second_retrain", (0.03, 0.0, 0.06))
        + gaps("leaks", (0.2, 0.1, 0.3))
        + gaps("within_its_interval", (0.05, -0.02, 0.12))
        + gaps("within_the_noise_floor", (-0.02, -0.03, -0.01))
    )
    ((_, table),) = tables(found)
    assert table.set_index("method")["U-LiRA AUC"].to_dict() == {
        "retrain": "0.500",
        "second_retrain": "0.530",
        "leaks": "0.700",
        "within_its_interval": "0.550≈",
        "within_the_noise_floor": "0.480≈",
    }
    told = leaderboard.note(found)
    assert told is not None
    assert told.endswith("found in 4 of 5 runs: U-LiRA AUC 0.100")


def test_seeds_together_tell_more_than_each() -> None:
    """Four intervals of ± .1 about .08 make one of ± .05."""
    one, four = ((0.08, -0.02, 0.18),), ((0.08, -0.02, 0.18),) * 4
    for each, marked in ((one, True), (four, False)):
        found = pd.DataFrame(gaps("some", *each))
        ((_, table),) = tables(found)
        assert ("≈" in table["U-LiRA AUC"].iloc[0]) == marked
        power = 0.1 / math.sqrt(len(each))
        assert str(leaderboard.note(found)).endswith(f"U-LiRA AUC {power:.3f}")


def test_a_regression_shows_its_errors() -> None:
    values = {"rmse_retain": 0.5, "rmse_forget": 0.6, "rmse_val": 9.0, "rmse_test": 0.7}
    table = only([cell("finetune", 0, **values, r2_test=0.25, test_acc=np.nan, ret_dev=np.nan)])
    assert table.loc["finetune"].to_dict() == {
        "RMSE retain": "0.500",
        "RMSE forget": "0.600",
        "RMSE test": "0.700",
        "R² test": "0.250",
        "n": "1",
    }


def test_every_column_is_shown_under_its_heading() -> None:
    values = dict.fromkeys(columns.COLUMNS, 0.123456)
    line = only([cell("finetune", 0, **values)]).loc["finetune"].drop("n")
    for heading, unit, places in columns.COLUMNS.values():
        assert line[heading] == f"{0.123456 * unit:.{places}f}"
    assert len(line) == len(columns.COLUMNS)


GOLDEN = """\
### dataset digits · model cnn · train default · forget random · attack umia

| method | RA % | TA % | RetDev ↓ | MIA % →50 | RTE ↑ | n |
| --- | --- | --- | --- | --- | --- | --- |
| original | 100.0 ± 0.0 | 97.0 ± 2.5 | 0.040 ± 0.025 | 60.0 ± 12.4 | – | 3 |
| retrain | 100.0 ± 0.0 | 96.0 ± 2.5 | 0.000 ± 0.000 | 50.0 ± 2.5 | 1.0 ± 0.0 | 3 |
| scrub | 98.5 ± 6.4 | 94.5 ± 6.4 | 0.150 ± 0.635 | 52.0 (1) | 4.5 ± 6.4 | 2 of 3 |
| finetune method.call.epochs=3 | 99.0 ± 2.5 | 95.0 ± 2.5 | 0.200 ± 0.248 | 55.0 ± 6.4 (2) | 4.0 ± 2.5 | 3 |
| broken | – | – | – | – | – | 0 of 3 |

Mean ± half of the 95 % t-interval over n seeds, or over (k) of them. Controls first, then by RetDev.
"""  # noqa: E501


def test_markdown_to_the_byte() -> None:
    """A change of this table is a change that readers of reports see."""
    nan = np.nan
    names = ("retain_acc", "test_acc", "ret_dev", "mia_test", "rte")
    values = {
        "finetune": [
            (0.98, 0.94, 0.1, 0.545, 3),
            (0.99, 0.95, 0.2, 0.555, 4),
            (1, 0.96, 0.3, nan, 5),
        ],
        "original": [
            (1, 0.96, 0.03, 0.55, nan),
            (1, 0.97, 0.04, 0.6, nan),
            (1, 0.98, 0.05, 0.65, nan),
        ],
        "retrain": [(1, 0.95, 0, 0.49, 1), (1, 0.96, 0, 0.5, 1), (1, 0.97, 0, 0.51, 1)],
        "scrub": [(0.98, 0.94, 0.1, 0.52, 4), (0.99, 0.95, 0.2, nan, 5)],
    }
    overrides = {"finetune": "method.call.epochs=3"}
    cells = [
        cell(
            method, seed, **dict(zip(names, one, strict=True)), overrides=overrides.get(method, "")
        )
        for method, seeds in values.items()
        for seed, one in enumerate(seeds)
    ]
    cells += [failed("scrub", 2), *(failed("broken", seed) for seed in range(3))]
    assert markdown(pd.DataFrame(cells)) == GOLDEN


def test_what_looks_at_validation_rows_is_marked_and_said() -> None:
    cells = [cell("kde", 0, test_acc=0.9), cell("scrub", 0, test_acc=0.9, traits="uses_val")]
    assert list(only(cells).index) == ["kde", "scrub†"]
    assert markdown(pd.DataFrame(cells)).rstrip().endswith("† looks at validation rows.")
    assert leaderboard.note(pd.DataFrame(cells[:1])) is None


@pytest.mark.tried("one seed of ten trains to 37 %, the others to 97 %", "named under the table")
def test_a_training_that_went_wrong_is_named() -> None:
    accuracies = [0.97, 0.98, 0.37, 0.97, 0.975, 0.98]
    cells = over_seeds("original", *accuracies) + over_seeds("scrub", *accuracies)
    message = "outlier: original of seed 2 has test accuracy 37.0%, the median over seeds is 97.2%"
    assert leaderboard.note(pd.DataFrame(cells)).startswith(message)
    assert leaderboard.note(pd.DataFrame(over_seeds("original", *sorted(accuracies)[1:]))) is None


@pytest.mark.tried("one of 64 trainings of a population went wrong", "named under the table")
def test_a_population_with_a_training_that_went_wrong_is_named() -> None:
    figures = {"shadow_models_acc_min": 0.374, "shadow_models_acc_median": 0.97}
    methods = [cell(name, 0, ulira_auc=0.5, **figures) for name in ("retrain", "scrub")]
    none = pd.DataFrame(methods).assign(shadow_models_outliers=0.0)
    assert leaderboard.note(none) is None
    message = "outlier: 1 of the shadow models went wrong: the lowest accuracy on unseen"
    note = leaderboard.note(none.assign(shadow_models_outliers=1.0))
    assert note == f"{message} records is 37.4%, the median 97.0%"


def test_costs_of_several_devices_are_left_out_and_said_to_be() -> None:
    cells = [cell("a", 0, test_acc=0.9, rte=2.0), cell("b", 0, test_acc=0.9, rte=3.0)]
    assert "RTE ↑" in only(cells)
    assert leaderboard.note(pd.DataFrame(cells)) is None
    cells[1]["measured_on"] = "NVIDIA H200"
    assert "RTE ↑" not in only(cells)
    told = leaderboard.note(pd.DataFrame(cells))
    assert told == "costs of tasks that were measured on several devices are left out"


def test_a_mean_gap_has_no_interval_where_one_seed_has_none() -> None:
    frame = pd.DataFrame(
        {"u_gap": [0.1, 0.2], "u_gap_low": [0.05, np.nan], "u_gap_high": [0.15, np.nan]}
    )
    mean, half = leaderboard._gap(frame, "u")
    assert mean == pytest.approx(0.15)
    assert np.isnan(half)
    assert leaderboard._gap(frame[:1], "u")[1] == pytest.approx(0.05)
