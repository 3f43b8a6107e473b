"""Metrics along runs as tables: a line a step, a column a method."""

from collections.abc import Iterator

import pandas as pd

from unlearnbench.report.leaderboard import CONTROLS, OWN

SHOWN = [
    *("test_acc_forgotten", "test_acc_others", "retain_acc", "forget_acc", "test_acc"),
    *("rmse_retain", "rmse_forget", "rmse_test"),
]

SETTING = ["dataset", "model", "train", "forget", "setup", "forget_hash"]


def tables(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """One table for each setting and metric: its title, and its lines.

    Args:
        frame: result rows, those without a step among them or not.

    Yields:
        title and frame: one line a step, controls first; each column a method's mean over seeds,
        with their number in its heading where it is more than one. A step that not all of a
        method's seeds reached has no mean.
    """
    along = frame[frame["step"].notna() & frame["value"].notna()]
    words = along["overrides"].str.split()
    own = words.map(lambda each: [w for w in each if w.startswith(OWN)])
    setup = words.map(lambda each: [w for w in each if not w.startswith((*OWN, "attack."))])
    along = along.assign(
        setup=setup.str.join(" "), line=(along["method"] + " " + own.str.join(" ")).str.strip()
    )
    for setting, rows in along.groupby(SETTING, dropna=False, sort=True):
        told = dict(zip(SETTING, map(str, setting), strict=True))
        named = [f"{axis} {told[axis]}" for axis in SETTING[:4]]
        for metric in SHOWN:
            if (rows["metric"] == metric).any():
                title = " · ".join([*named, *told["setup"].split()])
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
        lines = [["step", *table.columns], ["---"] * (table.shape[1] + 1)]
        for step, values in zip(table.index, table.to_numpy(), strict=True):
            lines.append([str(step), *("–" if pd.isna(v) else f"{v:.3f}" for v in values)])
        parts.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    if not parts:
        return None
    told = "After so many epochs of the method, of all its walks over data; means over seeds."
    return "\n\n".join([*parts, told]) + "\n"
