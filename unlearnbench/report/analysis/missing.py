"""Incomplete cells of a grid: cells that failed, were skipped, or have no rows yet."""

import pandas as pd

from unlearnbench.report.analysis.compare import BLOCK, LINE

SHOWN = 5
"""Number of methods that a message names; the others are counted."""


def troubles(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per incomplete combination of block, method and seed.

    Args:
        rows: result rows as ``compare.runs`` returns them.

    Returns:
        block columns, ``method``, ``own``, ``seed``, ``status`` (failed, skipped or missing) and
        ``reason``.
    """
    index = [*BLOCK, *LINE, "seed"]
    bad = rows[rows["status"] != "ok"]
    bad = bad.drop_duplicates([*index, "status", "reason"])[[*index, "status", "reason"]]
    present = rows.drop_duplicates(index)[index]
    lines = present.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    requested = present.drop_duplicates([*BLOCK, "seed"])[[*BLOCK, "seed"]]
    grid = lines.merge(requested, on=BLOCK).merge(present, on=index, how="left", indicator=True)
    missing = grid.loc[grid["_merge"] == "left_only", index]
    return pd.concat(
        [bad, missing.assign(status="missing", reason="no rows yet")], ignore_index=True
    ).sort_values([*index, "status"], ignore_index=True)


def sentence(rows: pd.DataFrame, keys: pd.DataFrame) -> str:
    """State whether the grid is complete.

    Args:
        rows: result rows as ``compare.runs`` returns them.
        keys: keys of the sweep as ``load.load_sweep`` returns them.
    """
    statuses = rows[["key", "status", "method"]].drop_duplicates("key")
    total = len(keys)
    n_missing = int((~keys["key"].isin(statuses["key"])).sum())
    statuses = statuses[statuses["key"].isin(keys["key"])]
    parts = [f"{n_missing:,} have no rows yet"] if n_missing else []
    for status in ("failed", "skipped"):
        same = statuses[statuses["status"] == status]
        if len(same):
            names = sorted(set(same["method"]))
            shown = ", ".join(names[:SHOWN]) + (
                f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            )
            parts.append(f"{len(same):,} {status} ({shown})")
    if not parts:
        return f"The grid is complete: all {total:,} cells have rows."
    state = (
        "The grid is incomplete"
        if n_missing or "failed" in " ".join(parts)
        else "The grid has gaps"
    )
    return f"{state}: of {total:,} cells {', '.join(parts)}. Whatever is over fewer seeds says so."
