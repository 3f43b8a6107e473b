"""The leaderboard: mean ± interval over seeds, with n, controls first."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

CONTROLS = ("original", "retrain", "second_retrain")

SETTING = ["dataset", "model", "train", "forget", "setup", "forget_hash", "defense", "attack"]
"""What makes a table; within it a line is a method with its own overrides, over seeds."""

COLUMNS = {
    "retain_acc": ("RA %", 100, 1),
    "forget_acc": ("FA %", 100, 1),
    "val_acc": ("VA %", 100, 1),
    "test_acc": ("TA %", 100, 1),
    "ret_dev": ("RetDev ↓", 1, 3),
    "mia_test": ("MIA % →50", 100, 1),
    "mia_test_auc": ("MIA AUC", 1, 3),
    "indisc_test": ("Indisc ↑", 1, 3),
    "ulira_auc": ("U-LiRA AUC", 1, 3),
    "lira_auc": ("LiRA AUC", 1, 3),
    "rmia_auc": ("RMIA AUC", 1, 3),
    "rte": ("RTE ↑", 1, 1),
    "rmse_retain": ("RMSE retain", 1, 3),
    "rmse_forget": ("RMSE forget", 1, 3),
    "rmse_test": ("RMSE test", 1, 3),
    "r2_test": ("R² test", 1, 3),
}
"""Metric to its heading, the unit it is shown in, and its decimal places."""


USES_VAL = "†"
"""Marks a method that looks at validation rows: what is measured on them is not unseen to it."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half of its 95 % t-interval; the half is NaN below two values."""
    given = np.asarray([v for v in values if np.isfinite(v)])
    if not len(given):
        return float("nan"), float("nan")
    if len(given) == 1:
        return float(given[0]), float("nan")
    half = stats.t.ppf(0.975, len(given) - 1) * given.std(ddof=1) / np.sqrt(len(given))
    return float(given.mean()), float(half)


def tables(wide: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """One table for each setting: its title, and its lines.

    Args:
        wide: one row a cell, as ``load_results(wide=True)`` gives it.

    Yields:
        title and frame: one line a method, controls first and the others by RetDev; one column a
        metric with ``mean ± interval``, and ``n``, the number of seeds that gave values, with
        the number asked for where some are missing. A mean over fewer than ``n`` says so.
    """
    own = wide["overrides"].map(lambda words: [w for w in words.split() if w.startswith("method.")])
    rest = wide["overrides"].map(lambda words: [w for w in words.split() if w[:7] != "method."])
    wide = wide.assign(overrides=own.str.join(" "), setup=rest.str.join(" "))
    wide["forget_hash"] = _forget_sets(wide)
    shown = [name for name in COLUMNS if name in wide]
    for setting, cells in wide.groupby(SETTING, dropna=False, sort=True):
        named = dict(zip(SETTING, map(str, setting), strict=True))
        if cells["forget_hash"].isna().all():
            continue  # cells that failed before there was a forget set; they are told beside
        seeds = cells["seed"].nunique()
        lines = []
        for (method, overrides), runs in cells.groupby(["method", "overrides"], dropna=False):
            marked = f"{method}{USES_VAL}" if _uses_val(runs) else str(method)
            line: dict[str, str | None] = {"method": f"{marked} {overrides}".strip()}
            means = {name: interval(runs[name].tolist()) for name in shown}
            counts = {name: int(np.isfinite(runs[name]).sum()) for name in shown}
            works = max(counts.values(), default=0)
            line |= {
                COLUMNS[name][0]: written(name, *mean, "" if works == count else f" ({count})")
                for (name, mean), count in zip(means.items(), counts.values(), strict=True)
            }
            line["n"] = f"{works}" if works == seeds else f"{works} of {seeds}"
            name = str(method)
            order = CONTROLS.index(name) if name in CONTROLS else len(CONTROLS)
            lines.append((order, means.get("ret_dev", (0.0, 0.0))[0], name, line))
        lines.sort(key=lambda line: (line[0], np.nan_to_num(line[1], nan=np.inf), line[2]))
        yield title(named), pd.DataFrame([line for *_, line in lines]).dropna(axis=1, how="all")


def _uses_val(cells: pd.DataFrame) -> bool:
    return bool(cells["traits"].fillna("").str.contains(r"\buses_val\b").any())


def note(wide: pd.DataFrame) -> str | None:
    """What the marks in the tables mean; None where there are none."""
    return f"{USES_VAL} looks at validation rows" if _uses_val(wide) else None


def _forget_sets(wide: pd.DataFrame) -> pd.Series:
    """Hash of each cell's forget set; a cell that failed has that of those set up alike."""
    alike = [wide[axis] for axis in ("dataset", "model", "train", "forget", "setup")]
    known = wide["forget_hash"].groupby(alike, dropna=False).transform("first")
    return wide["forget_hash"].fillna(known)


def title(named: dict[str, str]) -> str:
    """The setting in words."""
    parts = [f"{axis} {named[axis]}" for axis in ("dataset", "model", "train", "forget")]
    parts += [f"{axis} {named[axis]}" for axis in ("defense", "attack") if named[axis] != "none"]
    return " · ".join([*parts, *named["setup"].split()])


def written(metric: str, mean: float, half: float, mark: str = "") -> str | None:
    """A metric's mean and interval as a table shows them; None where there is no value."""
    if not np.isfinite(mean):
        return None
    _, unit, places = COLUMNS[metric]
    spread = f" ± {half * unit:.{places}f}" if np.isfinite(half) else ""
    return f"{mean * unit:.{places}f}{spread}{mark}"


def markdown(wide: pd.DataFrame) -> str:
    """All tables as Markdown."""
    parts = []
    for heading, table in tables(wide):
        lines = [list(table.columns), ["---"] * table.shape[1], *table.fillna("–").to_numpy()]
        parts.append(f"### {heading}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    told = (
        "Mean ± half of the 95 % t-interval over n seeds, or over (k) of them. "
        "Controls first, then by RetDev."
    )
    marks = note(wide)
    return "\n\n".join([*parts, f"{told} {marks}." if marks else told]) + "\n"
