"""The leaderboard of the page: columns in groups, lines, cells with what is to be said of them."""

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
"""Columns beside the method, and their headings."""

ALWAYS = ("dataset", "model", "forget", "defense")
"""Axes that have a column whether they vary or not."""

MAIN = (
    *("test_acc", "ret_dev", "rte", "rte_prepared"),
    *("mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc", "double_output_auc"),
    *("class_shadow_auc", "hrec_cos", "inversion_centred_cosine_forgotten"),
    *("rmse_test", "rmse_forget"),
)
"""Metrics that are shown before a reader asks for others."""


@dataclass(frozen=True)
class Column:
    """A metric's column.

    Attributes:
        metric: its name in the rows.
        heading: above it.
        attack: whose it is.
        main: whether it is shown at first.
        tip: what it means.
        down: whether the highest comes first when a reader sorts by it, for that is the best.
    """

    metric: str
    heading: str
    attack: str
    main: bool
    tip: str
    down: bool

    @property
    def last(self) -> str:
        """What stands for no number: it is sorted behind all others."""
        return "-1e308" if self.down else "1e308"


def board(
    numbers: pd.DataFrame,
    given: Sequence[Record],
    held: Mapping[str, str],
    looks: Collection[str],
) -> dict[str, Any]:
    """Columns in groups, one an attack, and lines of cells.

    Args:
        numbers: what ``compare.compared`` makes of a study.
        given: their ``records``.
        held: what each attack's attacker holds.
        looks: methods that look at validation rows.
    """
    attacks = {one["metric"]: one["attack"] for one in given}
    there = set(attacks)
    columns = [_column(name) for name in ORDER if name in there]
    columns.sort(key=lambda column: list(glossary.GROUPS).index(column.attack))
    apart = needed(numbers, list(AXES))
    axes = [name for name in AXES if name in ALWAYS or name in apart]
    groups: list[dict[str, Any]] = []
    for column in columns:
        if not groups or groups[-1]["attack"] != column.attack:
            holds = held.get(attacks[column.metric], "")
            tip = f"The attacker holds: {holds}." if holds else ""
            heading = glossary.GROUPS[column.attack]
            groups.append({"attack": column.attack, "heading": heading, "tip": tip, "columns": []})
        groups[-1]["columns"].append(column)
    return {
        "axes": {name: AXES[name] for name in axes},
        "groups": groups,
        "columns": columns,
        "lines": list(_lines(given, axes, columns, looks)),
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
    """By block, then by the first of these metrics that there is."""
    by = [1 + axes.index(name) for name in ("dataset", "model", "forget", "defense")]
    names = [column.metric for column in columns]
    last = next((names.index(name) for name in ("ret_dev", "rmse_test") if name in names), None)
    if last is not None:
        by.append(1 + len(axes) + last)
    return json.dumps([[place, "asc"] for place in by])


NUMBER = ["metric", "attack", "records", "seeds", "asked", "mean", "half", "verdict"]
NUMBER += ["gap", "t_low", "t_high", "over"]
"""What a cell is made of."""


def records(numbers: pd.DataFrame) -> list[Record]:
    """The rows of ``compare.compared`` that the page shows; overrides in short under ``short``."""
    shown = numbers[numbers["metric"].isin(list(COLUMNS)) & numbers["mean"].notna()]
    short = shown[[*SETTING, *LINE]].assign(
        setup=differing(shown, "setup", BLOCK[:4]),
        variant=differing(shown, "variant", BLOCK[:4]),
        own=differing(shown, "own", ["method"]),
    )
    columns = [*SETTING, *LINE, *NUMBER]
    told = zip(*(shown[name].tolist() for name in columns), strict=True)
    briefs = (dict(zip(short, one, strict=True)) for one in short.itertuples(index=False))
    return [
        {**dict(zip(columns, one, strict=True)), "short": brief}
        for one, brief in zip(told, briefs, strict=True)
    ]


def _lines(
    given: Sequence[Record],
    axes: Sequence[str],
    columns: Sequence[Column],
    looks: Collection[str],
) -> Iterator[dict[str, Any]]:
    """A line for each method under each defense; a model's utility stands under every defense."""
    line = [*SETTING, *LINE]
    found: dict[tuple[str, ...], dict[str, Record]] = {}
    for one in given:
        found.setdefault(tuple(str(one[part]) for part in line), {})[one["metric"]] = one
    for key in sorted(found):
        first = next(iter(found[key].values()))
        bare = found.get((*key[: len(BLOCK)], "none", "", *key[len(SETTING) :]), {})
        utility = {name: one for name, one in bare.items() if one["attack"] == "none"}
        cells = {**utility, **found[key]}
        yield {
            "method": first["method"],
            "mark": USES_VAL if first["method"] in looks else "",
            "own": first["short"]["own"],
            "control": first["method"] in CONTROLS,
            "axes": [str(first["short"][name]) or "–" for name in axes],
            "cells": [cell(cells.get(column.metric)) for column in columns],
        }


def cell(one: Record | None) -> dict[str, str] | None:
    """A number as it is shown, what it is sorted by, and what is to be said of it."""
    if one is None:
        return None
    seeds = f"n = {one['seeds']}" + ("" if one["seeds"] == one["asked"] else f" of {one['asked']}")
    said = [f"{seeds} seed{'s' if one['seeds'] != 1 else ''}"]
    if one["records"] > 1:
        said.append(f"each value is of {one['records']:,.0f} cases")
    if np.isfinite(one["half"]):
        said.append("± is half of the 95 % interval (Student)")
    if one["verdict"] in WORDS:
        said.append(WORDS[one["verdict"]])
    if np.isfinite(one["t_low"]):
        gap, low, high = (
            tables.written(one["metric"], one[name], np.nan, "+")
            for name in ("gap", "t_low", "t_high")
        )
        said.append(f"difference to retraining {gap} (95 %: {low} to {high}, over {one['over']})")
    mean, _, half = tables.written(one["metric"], one["mean"], one["half"]).partition(" ± ")
    return {
        "sort": f"{one['mean']:.9g}",
        "mean": mean,
        "half": half,
        "mark": MARKS.get(one["verdict"], ""),
        "tip": "; ".join(said),
    }
