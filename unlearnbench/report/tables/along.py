"""Metrics along runs as tables: one line per step, one column per method."""

from collections.abc import Iterator

import pandas as pd

from unlearnbench.config.arguments import override_words
from unlearnbench.report.analysis.columns import CONTROLS
from unlearnbench.report.analysis.compare import BLOCK, split_words
from unlearnbench.report.tables.text import markdown_table, markdown_text

SHOWN = [
    *("test_acc_forgotten", "test_acc_others", "retain_acc", "forget_acc", "test_acc"),
    *("rmse_retain", "rmse_forget", "rmse_test"),
]


def tables(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """One table for each setting and metric.

    Args:
        frame: result rows, with or without rows that have no step.

    Yields:
        title and frame: one line per step and one column per method, controls first. A column has
        the mean over seeds; its heading has the number of seeds if it is more than one. The mean is
        NaN at a step that not all seeds of the method reached.
    """
    along = split_words(frame[frame["step"].notna() & frame["value"].notna()])
    along = along.assign(line=(along["method"] + " " + along["own"]).str.strip())
    for setting, rows in along.groupby(BLOCK, dropna=False, sort=True):
        labels = dict(zip(BLOCK, map(str, setting), strict=True))
        title_parts = [f"{axis} {labels[axis]}" for axis in BLOCK[:4]]
        for metric in SHOWN:
            if (rows["metric"] == metric).any():
                title = " · ".join([*title_parts, *override_words(labels["setup"])])
                yield f"{metric}: {title}", _table(rows[rows["metric"] == metric])


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for (method, line), runs in rows.groupby(["method", "line"], sort=True):
        by_seed = runs.pivot(index="step", columns="seed", values="value")
        seeds = by_seed.shape[1]
        place = CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)
        heading = f"{line} (n = {seeds})" if seeds > 1 else str(line)
        columns[place, heading] = by_seed.mean(axis=1, skipna=False)
    ordered = sorted(columns)
    table = pd.concat([columns[key] for key in ordered], axis=1).sort_index()
    table.columns = pd.Index([heading for _, heading in ordered])
    table.index = table.index.astype(int)
    return table


def markdown(frame: pd.DataFrame) -> str | None:
    """All tables as Markdown; None if no row has a step."""
    parts = []
    for title, table in tables(frame):
        shown = table.map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
        shown.insert(0, "step", table.index.astype(str))
        parts.append(f"### {markdown_text(title)}\n\n{markdown_table(shown)}")
    if not parts:
        return None
    caption = "After so many epochs of the method, of all its walks over data; means over seeds."
    return "\n\n".join([*parts, caption]) + "\n"
