"""Runs of a study: one row a model under one defense, what all attacks found on it beside it."""

from collections.abc import Sequence

import pandas as pd

from unlearnbench.config.arguments import override_words
from unlearnbench.report.analysis.columns import CONTROLS
from unlearnbench.report.analysis.compare import SETTING, split_words, variants, without_mixed
from unlearnbench.results import schema

ALWAYS = ("dataset", "model")
"""Parts of a setting that its name always has; of the others those that vary in the study."""

PLACE = ("own", "asked", "shield", "setup", "variant", "line", "setting", "control")
"""What ``placed`` adds."""


def placed(wide: pd.DataFrame) -> pd.DataFrame:
    """The cells that gave something, each with its line and its setting's name.

    Args:
        wide: one row a cell, as ``load_results(wide=True)`` gives it.

    Returns:
        The same columns and those of ``PLACE``: ``setting`` is its name, ``line`` the method with
        its own overrides.
    """
    cells = wide[(wide["status"] == "ok") & wide["forget_hash"].notna()]
    cells = split_words(cells).assign(control=cells["method"].isin(CONTROLS))
    cells["variant"] = variants(cells)
    cells = without_mixed(cells)
    cells["line"] = (cells["method"] + " " + differing(cells, "own", ["method"])).str.strip()
    cells["setting"] = names(cells, SETTING)
    return cells


def runs(cells: pd.DataFrame) -> pd.DataFrame:
    """One row a setting, method and seed; one column a metric, as far as anything gave a value.

    Args:
        cells: as ``placed`` gives them.
    """
    about = {*schema.ROWS.names, *PLACE}
    metrics = [name for name in cells if name not in about]
    one = ["setting", *SETTING, "method", "line", "control", "seed"]
    return cells.groupby(one, dropna=False, sort=True)[metrics].first().reset_index()


def differing(cells: pd.DataFrame, column: str, alike: list[str]) -> pd.Series:
    """The words of a column without those that all cells have that are alike in other columns."""
    short = {}
    for key, same in cells.groupby(alike, sort=False)[column]:
        each = {text: override_words(text) for text in same.unique()}
        common = set.intersection(*map(set, each.values()))
        short.update(
            {
                (*key, text): " ".join(w for w in words if w not in common)
                for text, words in each.items()
            }
        )
    keys = zip(*(cells[name].tolist() for name in [*alike, column]), strict=True)
    return pd.Series([short[key] for key in keys], cells.index, dtype=object)


def needed(cells: pd.DataFrame, parts: Sequence[str]) -> list[str]:
    """The parts that tell settings apart: each that varies where those before it are the same."""
    kept: list[str] = []
    for name in parts:
        if (
            name in ALWAYS
            or cells.groupby(kept, dropna=False)[name].nunique(dropna=False).max() > 1
        ):
            kept.append(name)
    return kept


def names(cells: pd.DataFrame, parts: Sequence[str]) -> list[str]:
    """The setting of each cell in as few words as tell it from the others.

    Args:
        cells: with a column for each part.
        parts: of ``SETTING``, in this order.
    """
    said = needed(cells, parts)
    words = {name: cells[name].astype(str) for name in said}
    before = [name for name in said if name in ("dataset", "model", "train", "forget")]
    for name in {"setup", "variant"} & set(said):
        words[name] = differing(cells, name, before)
    if "defense" in said:
        words["defense"] = cells["defense"].where(cells["defense"] != "none", "")
    rows = zip(*words.values(), strict=True)
    return [" · ".join(filter(None, row)) for row in rows]


def order(found: pd.DataFrame, metric: str | None = None) -> list[str]:
    """Lines as a reader looks for them: controls first, then by the mean of a metric, by name.

    Args:
        found: runs.
        metric: lower is better; none, or one that the runs lack, orders by name.
    """
    means: dict[str, float] = {}
    if metric is not None and metric in found:
        each = found.groupby("line")[metric].mean()
        means = dict(zip(map(str, each.index), each, strict=True))
    methods = dict(zip(found["line"], found["method"], strict=True))

    def place(line: str) -> tuple[int, float, str]:
        method = methods[line]
        first = CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)
        mean = means.get(line, 0.0)
        return first, mean if mean == mean else float("inf"), line

    return sorted(methods, key=place)
