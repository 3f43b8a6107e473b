"""What is not there of a grid: cells that failed, were skipped, or have no rows yet."""

import pandas as pd

from unlearnbench.report.analysis.compare import BLOCK, LINE

SHOWN = 5
"""Methods that are named; of the others their number."""


def troubles(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a block, method and seed that has not all it should: ``trouble`` in words.

    Args:
        rows: as ``runs`` gives them.

    Returns:
        block, ``method``, ``own``, ``seed``, ``status`` (failed, skipped or missing), ``reason``.
    """
    index = [*BLOCK, *LINE, "seed"]
    bad = rows[rows["status"] != "ok"]
    bad = bad.drop_duplicates([*index, "status", "reason"])[[*index, "status", "reason"]]
    there = rows.drop_duplicates(index)[index]
    lines = there.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    asked = there.drop_duplicates([*BLOCK, "seed"])[[*BLOCK, "seed"]]
    whole = lines.merge(asked, on=BLOCK).merge(there, on=index, how="left", indicator=True)
    missing = whole.loc[whole["_merge"] == "left_only", index]
    return pd.concat(
        [bad, missing.assign(status="missing", reason="no rows yet")], ignore_index=True
    ).sort_values([*index, "status"], ignore_index=True)


def sentence(rows: pd.DataFrame, keys: pd.DataFrame) -> str:
    """Whether the grid is complete, in words.

    Args:
        rows: as ``runs`` gives them.
        keys: of the sweep, as ``load.load_sweep`` gives them.
    """
    found = rows[["key", "status", "method"]].drop_duplicates("key")
    asked = len(keys)
    gone = int((~keys["key"].isin(found["key"])).sum())
    found = found[found["key"].isin(keys["key"])]
    parts = [f"{gone:,} have no rows yet"] if gone else []
    for status in ("failed", "skipped"):
        same = found[found["status"] == status]
        if len(same):
            names = sorted(set(same["method"]))
            shown = ", ".join(names[:SHOWN]) + (
                f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            )
            parts.append(f"{len(same):,} {status} ({shown})")
    if not parts:
        return f"The grid is complete: all {asked:,} cells have rows."
    told = "The grid is incomplete" if gone or "failed" in " ".join(parts) else "The grid has gaps"
    return f"{told}: of {asked:,} cells {', '.join(parts)}. Whatever is over fewer seeds says so."
