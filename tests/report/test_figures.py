"""What figures show, read back from their axes; by hand where something is computed for them."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from small_study import FIGURES, make

from unlearnbench.report import figures
from unlearnbench.report.analysis import compare, ranking
from unlearnbench.report.analysis.runs import names, placed, runs
from unlearnbench.report.analysis.statistics import Friedman
from unlearnbench.report.analysis.study import Study
from unlearnbench.report.figures import leakage, methods, ranks, training
from unlearnbench.report.page.captions import SAYS


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def digits(study: Study) -> pd.DataFrame:
    found = runs(study.cells)
    return found[found["dataset"] == "digits"]


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return found + [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]


def legend(figure: Figure) -> list[str]:
    holders = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for one in holders if one is not None for text in one.get_texts()]


# ---------------------------------------------------------------------------------------------
# Which runs stand together.


def test_a_run_has_what_all_attacks_found_on_its_model(digits: pd.DataFrame) -> None:
    assert len(digits) == 6 * 3  # methods and seeds; `broken` gave nothing
    one = digits[(digits["method"] == "near") & (digits["seed"] == 1)].iloc[0]
    assert (one["test_acc"], one["ulira_auc"], one["double_output_auc"]) == (0.93, 0.52, 0.8)


def settings(**columns: list[str]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    usual = {"dataset": "digits", "model": "cnn", "train": "default", "forget": "random"}
    usual |= {"setup": "", "forget_hash": "f", "defense": "none", "variant": ""}
    return pd.DataFrame({name: columns.get(name, [value] * n) for name, value in usual.items()})


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"dataset": ["digits", "mnist"]}, ["digits · cnn", "mnist · cnn"]),
        (  # the data sets say it already
            {"dataset": ["digits", "mnist"], "forget_hash": ["f", "g"], "setup": ["", "a=1"]},
            ["digits · cnn", "mnist · cnn"],
        ),
        ({"setup": ["a=1 b=2", "a=1 b=3"]}, ["digits · cnn · b=2", "digits · cnn · b=3"]),
        ({"forget_hash": ["f", "g"]}, ["digits · cnn · f", "digits · cnn · g"]),
        (
            {"setup": ["a=1", "a=2"], "forget_hash": ["f", "g"]},
            ["digits · cnn · a=1", "digits · cnn · a=2"],
        ),
        ({"defense": ["none", "top_k"]}, ["digits · cnn", "digits · cnn · top_k"]),
    ],
)
def test_a_setting_is_named_by_what_tells_it_from_the_others(
    columns: dict[str, list[str]], said: list[str]
) -> None:
    assert names(settings(**columns), compare.SETTING) == said


def test_a_line_names_the_overrides_that_its_method_has_not_always(study: Study) -> None:
    wide = study.wide[study.wide["method"].isin(["near", "fast"])].copy()
    wide["overrides"] = [
        f"method.call.epochs=3 method.call.lr={seed}" if method == "near" else "method.call.lr=9"
        for method, seed in zip(wide["method"], wide["seed"], strict=True)
    ]
    lines = set(placed(wide)["line"])
    assert lines == {"fast", *(f"near method.call.lr={seed}" for seed in (0, 1, 2))}


# ---------------------------------------------------------------------------------------------
# Forgetting against utility against time.


def test_the_front_is_who_is_beaten_by_nobody_in_all_three() -> None:
    points = [
        [1, 1, 1],
        [2, 0, 0],  # best in the first
        [1, 1, 0],  # beaten by the first point in the third
        [0, 0, 5],  # best in the third
        [1, 1, 1],  # the first again: neither beats the other
    ]
    assert methods.front(np.array(points, float)).tolist() == [True, True, False, True, True]


def test_the_distance_is_to_retraining_of_the_same_seed(digits: pd.DataFrame) -> None:
    table = methods.against(digits)
    assert table is not None
    assert table.attrs == {"forgetting": "ulira_auc", "utility": "test_acc"}
    # near: .519, .520, .521 where retraining has .5 on every seed
    assert table.at["near", "distance"] == pytest.approx(0.02)
    assert table.at["worse", "distance"] == pytest.approx(0.4)
    assert table.at["second_retrain", "distance"] == pytest.approx(0.01)
    # worse is beaten by near everywhere; near is closer, fast is faster
    assert table["front"].to_dict() == {
        "fast": True, "near": True, "worse": False,
        "original": False, "retrain": False, "second_retrain": False,
    }  # fmt: skip


def test_seeds_are_not_averaged_before_they_are_compared() -> None:
    rows = [
        {"method": method, "line": method, "seed": seed, "mia_test_auc": value, "test_acc": 0.9}
        for method, values in {"retrain": (0.4, 0.6), "a": (0.6, 0.4), "b": (0.5, 0.5)}.items()
        for seed, value in enumerate(values)
    ]
    table = methods.against(pd.DataFrame(rows).assign(rte=2.0))
    assert table is not None
    assert table["distance"].to_dict() == pytest.approx({"a": 0.2, "b": 0.1, "retrain": 0.0})


def test_the_front_is_ringed_and_named(digits: pd.DataFrame) -> None:
    figure = methods.pareto(digits)
    assert figure is not None
    axes = figure.axes[0]
    dots, rings, star = axes.collections
    assert len(dots.get_offsets()) == 3
    assert sorted(rings.get_offsets()[:, 0]) == pytest.approx([0.07, 0.08])  # errors of near, fast
    assert star.get_offsets().tolist() == [[pytest.approx(0.06), 0.0]]
    named = {text.get_text() for text in axes.texts}
    assert named == {"near", "fast", "retrain", "a second retraining"}
    assert dots.get_array().tolist() == pytest.approx([50, 2, 1])
    assert axes.lines[0].get_ydata()[0] == pytest.approx(0.01)


@pytest.mark.parametrize("lacking", ["rte", "test_acc"])
def test_without_one_of_the_three_there_is_no_figure(digits: pd.DataFrame, lacking: str) -> None:
    assert methods.pareto(digits.drop(columns=lacking)) is None


def test_without_retraining_there_is_nothing_to_hold_methods_to(digits: pd.DataFrame) -> None:
    assert methods.pareto(digits[digits["method"] != "retrain"]) is None


def test_names_beside_keep_their_distance_and_stay_inside() -> None:
    found = methods.spaced(np.array([0.1, 0.11, 0.5, 0.98, 0.99]), 0.1)
    assert (np.diff(found) >= 0.1 - 1e-9).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert methods.spaced(np.array([0.1, 0.4]), 0.1).tolist() == [0.1, 0.4]


# ---------------------------------------------------------------------------------------------
# Seeds, settings, ranks.


def test_each_seed_is_a_point(digits: pd.DataFrame) -> None:
    figure = methods.spread(digits)
    assert figure is not None
    first = figure.axes[0]
    lines = [label.get_text() for label in first.get_yticklabels()]
    assert lines == ["retrain", "second_retrain", "near", "fast", "worse"]
    assert [len(line.get_xdata()) for line in first.lines] == [3] * 5
    assert sorted(first.lines[2].get_xdata()) == pytest.approx([0.019, 0.02, 0.021])


def test_one_seed_has_no_spread(digits: pd.DataFrame) -> None:
    assert methods.spread(digits[digits["seed"] == 0]) is None


def test_the_heatmap_has_a_field_for_each_method_and_setting(study: Study) -> None:
    figure = methods.heatmap(runs(study.cells))
    assert figure is not None
    axes = figure.axes[0]
    assert axes.collections[0].get_array().shape == (6, 2)
    written = [text.get_text() for text in axes.texts]
    assert written[-2:] == ["0.300", "0.300"]  # worse, the last by RetDev
    assert [t.get_text() for t in axes.get_xticklabels()] == ["digits\ncnn", "mnist\ncnn"]


def test_one_setting_is_no_heatmap(digits: pd.DataFrame) -> None:
    assert methods.heatmap(digits) is None


def test_bars_are_over_mean_ranks_closer_than_the_critical_difference() -> None:
    means = pd.Series([1.0, 1.5, 2.4, 4.0])
    assert ranks.alike(means, 1.0) == [(1.0, 1.5), (1.5, 2.4)]
    assert ranks.alike(means, 0.5) == []  # exactly as far apart is told apart
    assert ranks.alike(means, 9.0) == [(1.0, 4.0)]


def rank_table(**means: float) -> pd.DataFrame:
    return pd.DataFrame({"method": list(means), "own": "", "mean_rank": list(means.values())})


def test_ranks_and_their_critical_difference() -> None:
    test = Friedman(9.0, 0.01, 1.1, 6, 3)
    figure = ranks.critical(rank_table(b=2.9, a=1.1, c=2.0), test)
    assert figure is not None
    assert {"a 1.1 ", "c 2.0 ", " 2.9 b"} <= set(texts(figure))
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() > 2]
    ends = [tuple(np.round(bar.get_xdata(), 2)) for bar in bars]
    assert ends == [(1.04, 2.06), (1.94, 2.96)]
    assert "p = 0.010" in figure.get_suptitle()


def test_too_few_blocks_are_said_to_tell_nothing_apart() -> None:
    test = Friedman(np.nan, np.nan, 3.3, 1, 3)
    figure = ranks.critical(rank_table(a=1.0, b=2.0, c=3.0), test)
    assert figure is not None
    assert "Too few to tell any two of 3 methods apart" in said(figure)
    (bar,) = [line for line in figure.axes[0].lines if line.get_linewidth() > 2]
    assert bar.get_xdata().tolist() == pytest.approx([0.94, 3.06])


def test_a_method_that_failed_is_ranked_last_and_nothing_is_tested(study: Study) -> None:
    rows = compare.runs(study.frame)
    figure = ranks.critical(*ranking.ranked(rows, compare.values(rows), "ret_dev"))
    assert figure is not None
    assert "nothing is tested" in said(figure)
    assert " 4.0 broken" in texts(figure)
    assert not [line for line in figure.axes[0].lines if line.get_linewidth() > 1]


def said(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


# ---------------------------------------------------------------------------------------------
# What attacks find.


def curve(key: str, line: str, fpr: list[float], tpr: list[float]) -> pd.DataFrame:
    about = {"key": key, "line": line, "method": line.split()[0], "attack": "ulira"}
    return pd.DataFrame({"fpr": fpr, "tpr": tpr, **about})


def test_the_curve_of_seeds_is_their_mean_where_all_of_them_have_one() -> None:
    two = [curve("a", "m", [0.01, 1], [0.2, 1]), curve("b", "m", [0.1, 1], [0.6, 1])]
    fpr, tpr = leakage.over_seeds(pd.concat(two))
    assert fpr[0] == pytest.approx(0.1)  # below, one of them has nothing
    assert tpr[0] == pytest.approx((0.6 + (0.2 + 1) / 2) / 2)  # 0.1 is halfway from 0.01 to 1
    assert (fpr[-1], tpr[-1]) == (1, 1)


def test_of_many_methods_those_that_leak_most_are_named_beside_floor_and_ceiling() -> None:
    power = {"retrain": 1.0, "original": 0.2, **{f"m{k}": 0.3 + k / 10 for k in range(6)}}
    fpr = np.geomspace(0.001, 1, 50)
    each = [curve(m, m, fpr.tolist(), (fpr**p).tolist()) for m, p in power.items()]
    figure = leakage.roc(pd.concat(each), "digits")
    assert figure is not None
    assert legend(figure) == ["m0", "m1", "m2", "m3", "retrain", "original"]
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert len(axes.collections[0].get_paths()) == 2  # m4 and m5, grey


def test_a_panel_for_each_attack() -> None:
    one = curve("a", "retrain", [0.1, 1], [0.1, 1])
    figure = leakage.roc(
        pd.concat([one, one.assign(attack="lira"), one.assign(attack="umia")]), "x"
    )
    assert figure is not None
    shown = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert shown == ["LiRA", "U-LiRA", "U-MIA"]


def test_aucs_by_method_and_attack_the_farthest_from_a_guess_last(digits: pd.DataFrame) -> None:
    figure = leakage.leaks(digits)
    assert figure is not None
    axes = figure.axes[0]
    lines = [label.get_text() for label in axes.get_yticklabels()]
    assert lines[:3] == ["original", "retrain", "second_retrain"]
    assert lines[-1] == "worse"
    assert [float(t.get_text()) for t in axes.texts[-4:]] == [0.70, 0.90, 0.60, 0.80]


def test_two_outputs_against_one(digits: pd.DataFrame) -> None:
    ends = digits.assign(double_output_auc_low=0.7, double_output_auc_high=0.9)
    figure = leakage.two_outputs(ends)
    assert figure is not None
    before, both = figure.axes[0].lines[-2:]
    assert before.get_xdata().tolist() == pytest.approx([0.6] * 6)
    assert both.get_xdata().tolist() == pytest.approx([0.8] * 6)
    assert legend(figure) == ["output before alone", "both outputs"]
    strokes = figure.axes[0].collections[1].get_segments()
    assert strokes[0][:, 0].tolist() == pytest.approx([0.7, 0.9])
    assert leakage.two_outputs(digits.drop(columns="classical_auc")) is None


def test_reconstructions_as_distribution_functions() -> None:
    scores = pd.DataFrame(
        [
            {"pool": pool, "method": method, "line": method, "score": score}
            for method in ("ssd", "retrain")
            for pool, values in {"hrec": (0.9, 0.5), "avg": (0.1, 0.2)}.items()
            for score in values
        ]
    )
    figure = leakage.reconstructions(scores, "wine")
    assert figure is not None
    assert legend(figure) == ["retrain", "ssd", "public mean"]
    steps = figure.axes[0].lines[0]
    assert steps.get_xdata()[1:].tolist() == [0.5, 0.9]
    assert steps.get_ydata()[1:].tolist() == [0.5, 1.0]


def test_pictures_are_shown_pixel_by_pixel_under_their_method(tmp_path: Path) -> None:
    files = {}
    for shade, method in enumerate(("retrain", "near")):
        files[method] = tmp_path / f"{method}.png"
        Image.fromarray(np.full((8, 4, 3), shade, np.uint8)).save(files[method])
    figure = leakage.pictures(files, "mnist")
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["retrain", "near"]
    assert figure.axes[1].images[0].get_array().shape == (8, 4, 3)
    assert leakage.pictures({}, "mnist") is None


def test_numbers_stand_in_a_heatmap_while_they_can_be_read(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    for legible, numbers in ((2, True), (1, False)):
        monkeypatch.setattr(methods, "LEGIBLE", legible)
        figure = methods.heatmap(runs(study.cells))
        assert figure is not None
        assert bool(figure.axes[0].texts) == numbers
        assert len(figure.axes[0].get_xticklabels()) == 2


def test_curves_along_a_run(study: Study) -> None:
    steps = placed(study.frame[study.frame["step"].notna()])
    figure = training.along(steps)
    assert figure is not None
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [0, 1, 2]
    assert line.get_ydata().tolist() == [1.0, 0.75, 0.5]
    assert legend(figure) == ["near"]


# ---------------------------------------------------------------------------------------------
# Files.


def test_every_kind_that_is_drawn_says_how_to_read_it(study: Study) -> None:
    assert {kind for kind, *_ in figures.drawings(study)} <= set(SAYS)


def test_long_settings_that_differ_at_their_end_have_files_of_their_own() -> None:
    long = "mnist · cnn · " + "a" * 100
    one, two = figures.named("roc", long + "1"), figures.named("roc", long + "2")
    assert one != two
    assert max(len(one), len(two)) < 100
    assert figures.named("roc", "digits · cnn / x") == "roc-digits-cnn-x"


def test_figures_leave_no_trace_in_other_drawings(digits: pd.DataFrame) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    methods.pareto(digits)
    assert dict(mpl.rcParams) == before


def test_the_made_up_methods_are_what_the_tests_say() -> None:
    told: dict[str, Any] = FIGURES["near"]
    assert told["ulira_auc"] - FIGURES["retrain"]["ulira_auc"] == pytest.approx(0.02)


@pytest.mark.tried("names with `$`, which begins a formula in figures", "drawn as they are")
def test_a_dollar_is_a_dollar(study: Study) -> None:
    wide = study.wide.assign(method=study.wide["method"].replace({"near": "ne$ar$", "fast": "$"}))
    plain = figures.as_text(replace(study, wide=wide))
    assert {r"ne\$ar\$", r"\$"} < set(plain.cells["line"])
    assert figures.as_text(study) is study
    figure = methods.spread(runs(plain.cells[plain.cells["dataset"] == "digits"]))
    assert figure is not None
    with BytesIO() as file:
        figure.savefig(file, format="svg")
        assert b"<!-- ne$ar$ -->" in file.getvalue()
