"""What a study says in words: who is closest at what cost, whether that is real, what leaks."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_study import make, rows

from unlearnbench.report.analysis import compare
from unlearnbench.report.page import verdict
from unlearnbench.report.page.verdict import Verdict
from unlearnbench.results import schema


def told(frame: pd.DataFrame) -> dict[str, Verdict]:
    given = compare.runs(frame)
    found = compare.values(given)
    return {
        one.block: one for one in verdict.verdicts(given, found, compare.compared(given, found))
    }


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return make(tmp_path_factory.mktemp("results")).frame


def changed(frame: pd.DataFrame, method: str, **values: Any) -> pd.DataFrame:
    """The rows with other values of some metrics of a method."""
    out = frame.copy()
    for metric, value in values.items():
        chosen = (out["method"] == method) & (out["metric"] == metric)
        out.loc[chosen, "value"] = value(out.loc[chosen]) if callable(value) else value
    return out


def test_the_closest_and_its_cost(frame: pd.DataFrame) -> None:
    both = told(frame)
    assert list(both) == ["digits · cnn", "mnist · cnn"]
    one = both["digits · cnn"]
    assert one.best == "near"
    assert one.cost.startswith(
        "RetDev 0.020, test accuracy 93.0% (retraining 94.0%), 2.0 times as fast as retraining."
    )


def test_a_faster_one_is_named_only_if_it_is_as_close_as_retrainings_are(
    frame: pd.DataFrame,
) -> None:
    # near has .02, two retrainings .01 between them, fast .04
    assert "About as close" not in told(frame)["digits · cnn"].cost
    spread = {0: 0.029, 1: 0.02, 2: 0.032}  # .027 on average, now above near's, now below
    close = changed(frame, "fast", ret_dev=lambda r: r["seed"].map(spread))
    assert "About as close is fast, 50.0 times as fast" in told(close)["digits · cnn"].cost
    idle = changed(close, "original", ret_dev=0.03)  # nearer to that than to the best
    assert "About as close" not in told(idle)["digits · cnn"].cost
    # with few seeds a test alone tells nothing: a huge distance that varies is not close
    far = changed(frame, "fast", ret_dev=lambda r: r["seed"].map({0: 0.0, 1: 3.0, 2: 9.0}))
    assert "fast" in told(far)["digits · cnn"].real
    assert "About as close" not in told(far)["digits · cnn"].cost


@pytest.mark.parametrize("rte", [0.5, 1.1, 2.0])
def test_times_are_doubted_where_two_retrainings_differ_in_them(
    frame: pd.DataFrame, rte: float
) -> None:
    times = frame[(frame["method"] == "near") & (frame["metric"] == "rte")]
    noise = times.assign(method="second_retrain", value=rte)
    noisy = told(pd.concat([frame, noise]))["digits · cnn"].cost
    doubt = f"Times vary: a second retraining is {verdict.speed(rte)}."
    assert noisy.endswith(doubt) == (rte != 1.1)


def test_it_may_be_slower_than_retraining() -> None:
    assert verdict.speed(0.5) == "slower than retraining (2.0 times its time)"
    assert verdict.speed(1.0) == "1.0 times as fast as retraining"


def test_a_lead_is_tested_seed_by_seed(frame: pd.DataFrame) -> None:
    # all methods move with the seed alike, so that their differences do not vary by it
    assert "all 2 others are further off by more than chance" in told(frame)["digits · cnn"].real
    close = changed(frame, "fast", ret_dev=lambda r: r["seed"].map({0: 0.029, 1: 0.02, 2: 0.032}))
    said = told(close)["digits · cnn"].real
    assert (
        "Over 3 seeds 1 of the 2 other methods cannot be told apart from it by RetDev: fast."
        in said
    )
    assert "With so few seeds hardly any difference passes the test, however large." in said


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ({0: 0.020, 1: 0.0205, 2: 0.023}, "is further off"),
        ({0: 0.001, 1: 0.0015, 2: 0.002}, "is closer"),
        ({0: 0.001, 1: 0.03, 2: 0.004}, "cannot be told from it"),
    ],
)
@pytest.mark.parametrize("control", ["original", "second_retrain"])
def test_the_closest_is_held_to_doing_nothing_and_to_a_second_retraining(
    frame: pd.DataFrame, control: str, seeds: dict[int, float], says: str
) -> None:
    level = frame[(frame["method"] == "second_retrain") & (frame["metric"] == "ret_dev")]
    level = level.groupby("seed")["value"].first()
    moved = changed(frame, "near", ret_dev=lambda r: r["seed"].map(seeds))
    moved = changed(moved, control, ret_dev=lambda r: r["seed"].map(level))
    _, _, said = told(moved)["digits · cnn"].real.partition(verdict.CONTROLS[control])
    assert says in said.partition(" A second")[0]


def test_one_seed_tells_nothing_apart(frame: pd.DataFrame) -> None:
    said = told(frame[frame["seed"] == 0])["digits · cnn"].real
    assert said.startswith("One seed was run")
    assert "p =" not in said


def test_what_leaks_to_whom(frame: pd.DataFrame) -> None:
    leaks = {leak.attack: leak for leak in told(frame)["digits · cnn"].leaks}
    assert list(leaks) == ["U-MIA", "U-LiRA", "double output"]
    one = leaks["U-LiRA"]
    assert one.threat.startswith("outputs of one model; shadow models that forgot")
    assert "U-LiRA AUC 0.52 (retraining 0.50, the original 0.70)" in one.says
    assert "Farthest from a guess is worse: 0.90." in one.says


def test_below_a_half_is_as_far_from_a_guess(frame: pd.DataFrame) -> None:
    moved = changed(frame, "fast", ulira_auc=0.05)
    leaks = {leak.attack: leak for leak in told(moved)["digits · cnn"].leaks}
    told_of_it = "Farthest from a guess is fast: 0.05, which below ½ gives away as much."
    assert told_of_it in leaks["U-LiRA"].says


def test_below_nothing_is_not_below_a_half(frame: pd.DataFrame) -> None:
    moved = changed(frame, "fast", ulira_auc=-0.95)
    moved = moved.assign(metric=moved["metric"].astype(str).replace("ulira_auc", "hrec_cos"))
    assert any(one.says.endswith("fast: -0.95.") for one in told(moved)["digits · cnn"].leaks)


def test_without_methods_it_says_what_retraining_leaks(frame: pd.DataFrame) -> None:
    controls = frame[frame["method"].isin(["original", "retrain", "second_retrain"])]
    one = told(controls)["digits · cnn"]
    assert one.best is None
    assert one.leaks[0].says == "U-MIA AUC 0.50."


def test_where_ret_dev_has_no_value_methods_are_held_by_tug_of_war() -> None:
    accuracies = {"retrain": (1.0, 0.0, 0.9), "near": (1.0, 0.0, 0.8), "worse": (0.8, 0.5, 0.8)}
    about = next(iter(rows()))
    made = []
    for method, values in accuracies.items():
        for metric, value in zip(("retain_acc", "forget_acc", "test_acc"), values, strict=True):
            one = {**about, "method": method, "key": method, "utility_key": method, "seed": 0}
            made.append({**one, "metric": metric, "value": value})
    frame = pd.DataFrame(made, columns=schema.ROWS.names)
    (one,) = told(frame).values()
    assert one.best == "near"
    assert one.cost.startswith("1 − ToW 0.100")  # 1 − 1 · 1 · (1 − .1)


def test_an_attack_whose_threat_no_row_says_has_that_of_its_option(tmp_path: Path) -> None:
    frame = make(tmp_path).frame.assign(threat=None)
    leaks = {leak.attack: leak.threat for leak in told(frame)["digits · cnn"].leaks}
    assert leaks["U-MIA"] == "outputs of one model; records known to be forgotten or unseen"


@pytest.mark.parametrize(
    ("result", "mine", "retrain", "said"),
    [
        (compare.DIFFERS, 0.60, 0.52, ", farther from a guess than it is"),
        (compare.DIFFERS, 0.40, 0.52, ", farther from a guess than it is"),
        (compare.ALONE, 0.50, 0.46, ", nearer to a guess than it is"),
        (compare.ALIKE, 0.60, 0.52, ""),
        (compare.DIFFERS, 0.60, None, ""),
    ],
)
def test_a_difference_is_said_to_be_towards_a_guess_or_away_from_it(
    result: str, mine: float, retrain: float | None, said: str
) -> None:
    assert verdict._side(result, abs(mine - 0.5), retrain, 0.5) == said
