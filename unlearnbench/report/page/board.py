"""The leaderboard of the page: column groups, lines, and cells with their tooltips."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unlearnbench.report.analysis.columns import CONTROLS, USES_VAL
from unlearnbench.report.analysis.compare import BLOCK, LINE, SETTING
from unlearnbench.report.analysis.runs import differing, needed
from unlearnbench.report.page import glossary
from unlearnbench.report.page.verdict import WORDS, Record
from unlearnbench.report.tables import tables
from unlearnbench.report.tables.tables import COLUMNS, MARKS, ORDER

AXES = {
    "dataset": "Data set",
    "model": "Model",
    "train": "Training",
    "forget": "Forget set",
    "setup": "Settings",
    "forget_hash": "Forget rows",
    "defense": "Defense",
    "variant": "Attack and defense settings",
}
"""Columns other than the method, and their headings."""

ALWAYS = ("dataset", "model", "forget", "defense")
"""Axes that always have a column, even where all rows have the same value."""

MAIN = (
    *("test_acc", "ret_dev", "rte", "rte_prepared"),
    *("mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc", "double_output_auc"),
    *("class_shadow_auc", "hrec_cos", "inversion_centred_cosine_forgotten"),
    *("rmse_test", "rmse_forget"),
)
"""Metrics that are shown when the page opens."""


@dataclass(frozen=True)
class Column:
    """A metric's column.

    Attributes:
        metric: name of the metric in the rows.
        heading: text above the column.
        attack: group that the metric belongs to, a key of ``glossary.GROUPS``.
        main: whether the column is shown when the page opens.
        tip: tooltip of the heading: definition and direction.
        down: whether the first sort is descending, which is so where higher is better.
    """

    metric: str
    heading: str
    attack: str
    main: bool
    tip: str
    down: bool

    @property
    def last(self) -> str:
        """Sort key of an empty cell: it is sorted after all numbers."""
        return "-1e308" if self.down else "1e308"


def board(
    numbers: pd.DataFrame,
    compared_rows: Sequence[Record],
    threat_by_attack: Mapping[str, str],
    looks: Collection[str],
) -> dict[str, Any]:
    """Columns in groups, one group per attack, and lines of cells.

    Args:
        numbers: frame that ``compare.compared`` returns for a study.
        compared_rows: ``records`` of ``numbers``.
        threat_by_attack: description of what the attacker has, by attack.
        looks: methods that use validation rows.
    """
    attacks = {row["metric"]: row["attack"] for row in compared_rows}
    metrics = set(attacks)
    columns = [_column(name) for name in ORDER if name in metrics]
    columns.sort(key=lambda column: list(glossary.GROUPS).index(column.attack))
    apart = needed(numbers, list(AXES))
    axes = [name for name in AXES if name in ALWAYS or name in apart]
    groups: list[dict[str, Any]] = []
    for column in columns:
        if not groups or groups[-1]["attack"] != column.attack:
            holds = threat_by_attack.get(attacks[column.metric], "")
            tip = f"The attacker holds: {holds}." if holds else ""
            heading = glossary.GROUPS[column.attack]
            groups.append({"attack": column.attack, "heading": heading, "tip": tip, "columns": []})
        groups[-1]["columns"].append(column)
    return {
        "axes": {name: AXES[name] for name in axes},
        "groups": groups,
        "columns": columns,
        "lines": list(_lines(compared_rows, axes, columns, looks)),
        "order": _first_order(axes, columns),
    }


def _column(name: str) -> Column:
    entry = glossary.ENTRIES[name]
    parts = [
        entry.definition,
        f"{entry.better[:1].upper()}{entry.better[1:]}." * bool(entry.better),
    ]
    tip, down = " ".join(filter(None, parts)), entry.better == glossary.HIGHER
    return Column(name, COLUMNS[name][0], glossary.attack_of(name), name in MAIN, tip, down)


def _first_order(axes: Sequence[str], columns: Sequence[Column]) -> str:
    """Initial sort order as JSON: by block, then by ``ret_dev`` or, without it, ``rmse_test``."""
    by = [1 + axes.index(name) for name in ("dataset", "model", "forget", "defense")]
    names = [column.metric for column in columns]
    last = next((names.index(name) for name in ("ret_dev", "rmse_test") if name in names), None)
    if last is not None:
        by.append(1 + len(axes) + last)
    return json.dumps([[place, "asc"] for place in by])


NUMBER = ["metric", "attack", "records", "seeds", "asked", "mean", "half", "verdict"]
NUMBER += ["gap", "t_low", "t_high", "over"]
"""Columns of ``compare.compared`` that a cell is made of."""


def records(numbers: pd.DataFrame) -> list[Record]:
    """The rows of ``compare.compared`` on the page, with overrides that differ in ``short``."""
    shown = numbers[numbers["metric"].isin(list(COLUMNS)) & numbers["mean"].notna()]
    short = shown[[*SETTING, *LINE]].assign(
        setup=differing(shown, "setup", BLOCK[:4]),
        variant=differing(shown, "variant", BLOCK[:4]),
        own=differing(shown, "own", ["method"]),
    )
    columns = [*SETTING, *LINE, *NUMBER]
    value_rows = zip(*(shown[name].tolist() for name in columns), strict=True)
    briefs = (
        dict(zip(short, row_values, strict=True)) for row_values in short.itertuples(index=False)
    )
    return [
        {**dict(zip(columns, row_values, strict=True)), "short": brief}
        for row_values, brief in zip(value_rows, briefs, strict=True)
    ]


def _lines(
    compared_rows: Sequence[Record],
    axes: Sequence[str],
    columns: Sequence[Column],
    looks: Collection[str],
) -> Iterator[dict[str, Any]]:
    """One line per method and defense; a model's utility is repeated under every defense."""
    line = [*SETTING, *LINE]
    rows_by_line: dict[tuple[str, ...], dict[str, Record]] = {}
    for row in compared_rows:
        rows_by_line.setdefault(tuple(str(row[name]) for name in line), {})[row["metric"]] = row
    for key in sorted(rows_by_line):
        first = next(iter(rows_by_line[key].values()))
        bare = rows_by_line.get((*key[: len(BLOCK)], "none", "", *key[len(SETTING) :]), {})
        utility = {name: row for name, row in bare.items() if row["attack"] == "none"}
        cells = {**utility, **rows_by_line[key]}
        yield {
            "method": first["method"],
            "mark": USES_VAL if first["method"] in looks else "",
            "own": first["short"]["own"],
            "control": first["method"] in CONTROLS,
            "axes": [str(first["short"][name]) or "–" for name in axes],
            "cells": [cell(cells.get(column.metric)) for column in columns],
        }


def cell(row: Record | None) -> dict[str, str] | None:
    """The cell of a row: sort key, mean, half-width of the interval, mark and tooltip."""
    if row is None:
        return None
    seeds = f"n = {row['seeds']}" + ("" if row["seeds"] == row["asked"] else f" of {row['asked']}")
    said = [f"{seeds} seed{'s' if row['seeds'] != 1 else ''}"]
    if row["records"] > 1:
        said.append(f"each value is of {row['records']:,.0f} cases")
    if np.isfinite(row["half"]):
        said.append("± is half of the 95 % interval (Student)")
    if row["verdict"] in WORDS:
        said.append(WORDS[row["verdict"]])
    if np.isfinite(row["t_low"]):
        gap, low, high = (
            tables.written(row["metric"], row[name], np.nan, "+")
            for name in ("gap", "t_low", "t_high")
        )
        said.append(f"difference to retraining {gap} (95 %: {low} to {high}, over {row['over']})")
    mean, _, half = tables.written(row["metric"], row["mean"], row["half"]).partition(" ± ")
    return {
        "sort": f"{row['mean']:.9g}",
        "mean": mean,
        "half": half,
        "mark": MARKS.get(row["verdict"], ""),
        "tip": "; ".join(said),
    }
