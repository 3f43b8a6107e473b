"""Tables for people: one report to the byte, what is marked in it, and its LaTeX."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report.studies import frame, rows, trouble

from unlearnbench.report.analysis import compare, missing
from unlearnbench.report.page import glossary
from unlearnbench.report.tables import tables, text

GOLDEN = Path(__file__).parent / "golden"

RETAIN = {
    "original": [1.0, 1.0, 1.0],
    "retrain": [1.0, 0.98, 0.99],
    "second_retrain": [0.98, 0.99, 1.0],
}
FORGET = {
    "original": [1.0, 1.0, 1.0],
    "retrain": [0.80, 0.84, 0.82],
    "second_retrain": [0.84, 0.82, 0.81],
}
TEST = {
    "original": [0.83, 0.84, 0.85],
    "retrain": [0.81, 0.83, 0.82],
    "second_retrain": [0.83, 0.82, 0.80],
}
DEVIATION = {
    "original": [0.27, 0.22, 0.25],
    "retrain": [0.0] * 3,
    "second_retrain": [0.09, 0.05, 0.05],
}
MIA = {
    "original": [0.70, 0.72, 0.71],
    "retrain": [0.49, 0.51, 0.50],
    "second_retrain": [0.51, 0.50, 0.48],
}
for _name, _values in (
    ("scrub", ([0.97, 0.96, 0.97], [0.79, 0.83, 0.81], [0.80, 0.82, 0.81], [0.05, 0.04, 0.05])),
    ("ssd", ([0.90, 0.60, None], [0.70, 0.50, None], [0.70, 0.50, None], [0.36, 1.2, None])),
):
    for _table, _column in zip((RETAIN, FORGET, TEST, DEVIATION), _values, strict=True):
        _table[_name] = list(_column)  # type: ignore[assignment]
MIA |= {"scrub": [0.55, 0.58, 0.56], "ssd": [0.5, 0.6, None]}  # type: ignore[dict-item]


def study() -> pd.DataFrame:
    """Two methods over three seeds, of which one failed at a seed; a third skipped."""
    parts: list[list[dict[str, Any]]] = []
    for name in RETAIN:
        own = {"retain_acc": RETAIN[name], "forget_acc": FORGET[name], "test_acc": TEST[name]}
        traits = "uses_val" if name == "scrub" else ""
        parts.append(rows(name, {**own, "ret_dev": DEVIATION[name]}, traits=traits))
        parts.append(rows(name, {"mia_test_auc": MIA[name]}, "umia", traits=traits))
    parts += [trouble("ssd", 2, reason="weights are not finite")]
    parts += [trouble("unsir", seed, "skipped", reason="classes only") for seed in range(3)]
    return frame(*parts)


def sections(found: pd.DataFrame) -> list[text.Section]:
    given = compare.runs(found)
    values = compare.values(given)
    return tables.sections(given, values, compare.compared(given, values))


def table(found: pd.DataFrame, heading: str, place: int = 0) -> pd.DataFrame:
    (section,) = [one for one in sections(found) if one.heading == heading]
    return section.tables[place][1].set_index("method")


def golden(name: str, told: str) -> None:
    """Compare with the file of that name."""
    path = GOLDEN / name
    assert path.read_text() == told, f"{path} is another; if that is meant, write it anew"


def test_markdown_to_the_byte() -> None:
    found = study()
    keys = found[["key"]].drop_duplicates()
    notes = [missing.sentence(compare.runs(found), keys)]
    golden("leaderboard.md", text.markdown("golden", notes, sections(found)))


def test_latex_to_the_byte() -> None:
    golden("leaderboard.tex", text.latex("golden", sections(study())))


def test_latex_is_balanced_and_has_nothing_that_it_does_not_know() -> None:
    told = text.latex("a_name", sections(study()))
    for name in ("table", "tabular"):
        assert told.count(rf"\begin{{{name}}}") == told.count(rf"\end{{{name}}}") > 2
    assert told.count(r"\toprule") == told.count(r"\bottomrule") == told.count(r"\midrule")
    assert told.isascii()
    assert len(set(re.findall(r"\\label{(.*?)}", told))) == told.count(r"\label")
    body = told.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert len({line.count(" & ") for line in body.strip().splitlines()}) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("50 % & more_of #1", r"50 \% \& more\_of \#1"),
        ("-1.2 ± 0.4≈", r"$-$1.2 $\pm$ 0.4$\approx$"),
        ("scrub_no_rewind", r"scrub\_no\_rewind"),
        ("RTE ↑", r"RTE $\uparrow$"),
    ],
)
def test_latex_text(given: str, expected: str) -> None:
    assert text.latex_text(given) == expected


def test_fewer_seeds_are_marked_everywhere() -> None:
    found = study()
    board = table(found, "Leaderboard")
    assert board["n"].to_dict()["ssd*"] == "2 of 3"
    assert board["n"].to_dict()["unsir*"] == "0 of 3"
    assert board.loc["scrub†", "n"] == "3"
    assert table(found, "Differences to retraining").loc["ssd*", "pairs"] == "2 of 3"
    assert table(found, "Ranks").loc["ssd", "digits cnn"] == "2 F"


def test_a_mean_over_fewer_than_its_line_says_so() -> None:
    found = frame(
        rows("retrain", {"test_acc": [0.5, 0.6], "forget_acc": [0.5, 0.6]}),
        rows("a", {"test_acc": [0.5, 0.7], "forget_acc": [0.5, None]}),
    )
    board, gaps = (table(found, name) for name in ("Leaderboard", "Differences to retraining"))
    assert board.loc["a", "FA %"] == "50.0 (1)"
    assert board.loc["a", "n"] == "2"
    assert gaps.loc["a", "FA %"] == "+0.0? (1)"


def test_a_difference_is_in_the_metrics_unit() -> None:
    gaps = table(study(), "Differences to retraining")
    assert gaps.loc["scrub†", "FA %"].startswith("-1.0")
    assert gaps.loc["scrub†", "MIA AUC"].startswith("+0.063")
    floor = gaps.loc[tables.FLOOR]
    assert floor["FA %"] == "2.6"  # √((.04² + .02² + .01²) / 3)
    assert "retrain" not in gaps.index


def test_every_column_is_explained_on_the_page() -> None:
    assert set(tables.COLUMNS) <= set(glossary.ENTRIES)


def test_controls_first_then_by_ret_dev() -> None:
    board = table(study(), "Leaderboard")
    expected = ["original", "retrain", "second_retrain", "scrub†", "ssd*", "unsir*"]
    assert list(board.index) == expected


def test_a_defense_has_a_table_with_attacks_alone() -> None:
    found = study()
    top_k = frame(*(rows(n, {"mia_test_auc": MIA[n]}, "umia", defense="top_k") for n in MIA))
    (_, second), *_ = sections(pd.concat([found, top_k]))[0].tables[1:]
    assert list(second.columns) == ["method", "MIA AUC", "n"]
    title = sections(pd.concat([found, top_k]))[0].tables[1][0]
    assert "defense top_k" in title


def test_attacks_in_two_set_ups_have_a_table_each_with_the_utility() -> None:
    ways = ("attack.shadow_models.models=8", "attack.shadow_models.models=16")
    extra = [rows("scrub", {"lira_auc": [0.6]}, "lira", overrides=way) for way in ways]
    found = sections(pd.concat([study(), frame(*extra)]))[0].tables
    titles = [title for title, _ in found]
    assert [title.split(" · ")[-1] for title in titles[1:]] == sorted(ways)
    assert all("RA %" in one and "LiRA AUC" in one for _, one in found[1:])
    assert "LiRA AUC" not in found[0][1]


def test_the_sentence_on_ranks_says_what_cannot_be_known() -> None:
    section = next(one for one in sections(study()) if one.heading == "Ranks")
    assert "no block in which all methods have all seeds" in section.notes[2]
    few = [rows(f"m{k}", {"ret_dev": [0.1 * k, 0.2 * k]}) for k in range(6)]
    ranks = next(one for one in sections(frame(*few)) if one.heading == "Ranks")
    assert "no test over blocks could tell any two apart" in ranks.notes[2]
    many = [
        rows(f"m{k}", {"ret_dev": [0.1 * k, 0.2 * k]}, model=f"net{b}")
        for k in range(4)
        for b in range(12)
    ]
    ranks = next(one for one in sections(frame(*many)) if one.heading == "Ranks")
    assert "Friedman's test of 4 methods over 12 of 12 blocks: χ² = 36.0" in ranks.notes[2]
