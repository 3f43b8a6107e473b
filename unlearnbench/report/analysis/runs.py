"""Runs of a study: one row per model and defense, with the metrics of all attacks on it."""

from collections.abc import Sequence

import pandas as pd

from unlearnbench.config.arguments import override_words
from unlearnbench.report.analysis.columns import CONTROLS
from unlearnbench.report.analysis.compare import SETTING, split_words, variants, without_mixed
from unlearnbench.results import schema

ALWAYS = ("dataset", "model")
"""Columns that each setting name contains; other columns are named only if they vary."""

PLACE = ("own", "asked", "shield", "setup", "variant", "line", "setting", "control")
"""Columns that ``placed`` adds."""


def placed(wide: pd.DataFrame) -> pd.DataFrame:
    """Cells with status ``ok``, each with its line and the name of its setting.

    Args:
        wide: one row per cell, as ``load_results(wide=True)`` returns it.

    Returns:
        The same columns and those in ``PLACE``: ``setting`` is the name of the setting, ``line``
        the method with its own overrides.
    """
    cells = wide[(wide["status"] == "ok") & wide["forget_hash"].notna()]
    cells = split_words(cells).assign(control=cells["method"].isin(CONTROLS))
    cells["variant"] = variants(cells)
    cells = without_mixed(cells)
    cells["line"] = (cells["method"] + " " + differing(cells, "own", ["method"])).str.strip()
    cells["setting"] = names(cells, SETTING)
    return cells


def runs(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, method and seed; one column per metric, NaN or None without a value.

    Args:
        cells: cells as ``placed`` returns them.
    """
    about = {*schema.ROWS.names, *PLACE}
    metrics = [name for name in cells if name not in about]
    index = ["setting", *SETTING, "method", "line", "control", "seed"]
    return cells.groupby(index, dropna=False, sort=True)[metrics].first().reset_index()


def differing(cells: pd.DataFrame, column: str, alike: list[str]) -> pd.Series:
    """Overrides in a column without those common to all cells with equal ``alike`` columns."""
    short = {}
    for key, same in cells.groupby(alike, sort=False)[column]:
        each = {text: override_words(text) for text in same.unique()}
        common = set.intersection(*map(set, each.values()))
        short.update(
            {
                (*key, text): " ".join(override for override in overrides if override not in common)
                for text, overrides in each.items()
            }
        )
    keys = zip(*(cells[name].tolist() for name in [*alike, column]), strict=True)
    return pd.Series([short[key] for key in keys], cells.index, dtype=object)


def needed(cells: pd.DataFrame, parts: Sequence[str]) -> list[str]:
    """The ``parts`` that distinguish settings: each varies where the previous ones are equal."""
    columns: list[str] = []
    for name in parts:
        if (
            name in ALWAYS
            or cells.groupby(columns, dropna=False)[name].nunique(dropna=False).max() > 1
        ):
            columns.append(name)
    return columns


def names(cells: pd.DataFrame, parts: Sequence[str]) -> list[str]:
    """Shortest name of each cell's setting that distinguishes it from the others.

    Args:
        cells: cells with a column for each of ``parts``.
        parts: columns in ``SETTING``, in this order.
    """
    said = needed(cells, parts)
    texts = {name: cells[name].astype(str) for name in said}
    before = [name for name in said if name in ("dataset", "model", "train", "forget")]
    for name in {"setup", "variant"} & set(said):
        texts[name] = differing(cells, name, before)
    if "defense" in said:
        texts["defense"] = cells["defense"].where(cells["defense"] != "none", "")
    rows = zip(*texts.values(), strict=True)
    return [" · ".join(filter(None, row)) for row in rows]


def order(table: pd.DataFrame, metric: str | None = None) -> list[str]:
    """Order of the lines: controls first, then by the mean of a metric, then by name.

    Args:
        table: runs as ``runs`` returns them.
        metric: lower is better; None, or a metric that the runs lack, orders by name.
    """
    means: dict[str, float] = {}
    if metric is not None and metric in table:
        each = table.groupby("line")[metric].mean()
        means = dict(zip(map(str, each.index), each, strict=True))
    methods = dict(zip(table["line"], table["method"], strict=True))

    def place(line: str) -> tuple[int, float, str]:
        method = methods[line]
        first = CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)
        mean = means.get(line, 0.0)
        return first, mean if mean == mean else float("inf"), line

    return sorted(methods, key=place)
