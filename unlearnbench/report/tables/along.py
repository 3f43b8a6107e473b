"""Metrics along runs as tables: a line a step, a column a method."""

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
    """One table for each setting and metric: its title, and its lines.

    Args:
        frame: result rows, those without a step among them or not.

    Yields:
        title and frame: one line a step, controls first; each column a method's mean over seeds,
        with their number in its heading where it is more than one. A step that not all of a
        method's seeds reached has no mean.
    """
    along = split_words(frame[frame["step"].notna() & frame["value"].notna()])
    along = along.assign(line=(along["method"] + " " + along["own"]).str.strip())
    for setting, rows in along.groupby(BLOCK, dropna=False, sort=True):
        told = dict(zip(BLOCK, map(str, setting), strict=True))
        named = [f"{axis} {told[axis]}" for axis in BLOCK[:4]]
        for metric in SHOWN:
            if (rows["metric"] == metric).any():
                title = " · ".join([*named, *override_words(told["setup"])])
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
    """All tables as Markdown; None where no row has a step."""
    parts = []
    for title, table in tables(frame):
        shown = table.map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
        shown.insert(0, "step", table.index.astype(str))
        parts.append(f"### {markdown_text(title)}\n\n{markdown_table(shown)}")
    if not parts:
        return None
    told = "After so many epochs of the method, of all its walks over data; means over seeds."
    return "\n\n".join([*parts, told]) + "\n"
