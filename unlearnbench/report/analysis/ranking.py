"""Ranks of methods over blocks and a test of their differences, as in Deep Unlearn."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearnbench.metric import utility
from unlearnbench.report.analysis import statistics
from unlearnbench.report.analysis.compare import BLOCK, LINE, named
from unlearnbench.report.analysis.statistics import Array

Mask = NDArray[np.bool_]

RANKED = {"ret_dev": 1, "tow": -1, "indisc_test": -1}
"""Metrics that rank methods → the sign by which they are multiplied so that lower is better."""

UNRANKED = ("original", "retrain", "second_retrain", "sisa_retrain")
"""Controls, which have no rank."""

TOP = (1, 3, 5)


def ranked(
    rows: pd.DataFrame, value_rows: pd.DataFrame, by: str
) -> tuple[pd.DataFrame, statistics.Friedman | None]:
    """Methods by their mean rank over blocks, as in Deep Unlearn; the aggregation is our own.

    In each block methods are ranked by their mean over seeds; ties share the better rank. A method
    with a failed seed is last in that block, because a mean over its other seeds would reward the
    failure. A method that is skipped or missing in a block has no rank there; controls have none.

    Args:
        rows: result rows as ``compare.runs`` returns them.
        value_rows: their ``compare.values``.
        by: a metric in ``RANKED``.

    Returns:
        One row per method: ``mean_rank``, ``low``, ``high`` (95 % interval, bootstrap over seeds),
        ``top_1``, ``top_3``, ``top_5`` (number of blocks with a rank of at most 1, 3, 5), ``best``
        (number of blocks in which it is not distinguishable from the best method: seed-paired t,
        Holm), ``blocks`` (number of blocks with a rank), ``failed`` (number of blocks with a failed
        seed; ``failed_in`` has their names), ``incomplete`` (number of blocks with a missing seed),
        and one column per block with its rank.
        Friedman's test over the blocks in which all methods have all seeds; None if there is no
        such block.
    """
    value_rows = value_rows[(value_rows["metric"] == by) & (value_rows["defense"] == "none")]
    value_rows = value_rows[~value_rows["method"].isin(UNRANKED)]
    value_rows = value_rows.drop_duplicates([*BLOCK, *LINE, "seed"])
    if value_rows.empty:
        return pd.DataFrame(), None
    about = rows[~rows["method"].isin(UNRANKED) & (rows["status"] == "failed")]
    about = about[about["attack"].isin(["none", *value_rows["attack"].unique()])]
    about = about[about["defense"] == "none"]
    failed = about.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    lines = pd.concat([value_rows[[*BLOCK, *LINE]], failed]).drop_duplicates()
    blocks = lines.drop_duplicates(BLOCK)[BLOCK].sort_values(BLOCK, ignore_index=True)
    methods = lines.drop_duplicates(LINE)[LINE].sort_values(LINE, ignore_index=True)
    seeds = np.unique(value_rows["seed"])
    shape = len(blocks), len(methods), len(seeds)

    def places(frame: pd.DataFrame) -> list[NDArray[np.int64]]:
        at_B = frame.merge(blocks.reset_index(), on=BLOCK, how="left")["index"]
        at_K = frame.merge(methods.reset_index(), on=LINE, how="left")["index"]
        return [at_B.to_numpy(), at_K.to_numpy()]

    values_BKS = np.full(shape, np.nan)
    values_BKS[(*places(value_rows), np.searchsorted(seeds, value_rows["seed"]))] = (
        RANKED[by] * value_rows["value"].to_numpy()
    )
    has_rank_BK = np.zeros(shape[:2], bool)
    has_rank_BK[tuple(places(lines))] = True
    failed_BK = np.zeros(shape[:2], bool)
    failed_BK[tuple(places(failed))] = True
    return _ranked(values_BKS, has_rank_BK, failed_BK, blocks, methods)


def _ranked(
    values_BKS: Array,
    has_rank_BK: Mask,
    failed_BK: Mask,
    blocks: pd.DataFrame,
    methods: pd.DataFrame,
) -> tuple[pd.DataFrame, statistics.Friedman | None]:
    values_BKS = np.where(failed_BK[..., None], np.nan, values_BKS)
    counts_BK = np.isfinite(values_BKS).sum(axis=2)
    seeds_B = counts_BK.max(axis=1, initial=0)
    means_BK = np.stack([statistics.mean(values_KS) for values_KS in values_BKS])
    rank_BK = np.where(has_rank_BK, statistics.ranks(means_BK, "min"), np.nan)
    low_K, high_K = statistics.rank_intervals(values_BKS, has_rank_BK)
    incomplete_BK = has_rank_BK & ~failed_BK & (counts_BK < seeds_B[:, None])
    best_BK = np.stack([like_the_best(values_KS) for values_KS in values_BKS])
    table = methods.assign(
        mean_rank=statistics.mean(rank_BK.T),
        low=low_K,
        high=high_K,
        **{f"top_{k}": ((rank_BK <= k) & ~np.isnan(means_BK)).sum(axis=0) for k in TOP},
        best=best_BK.sum(axis=0),
        blocks=has_rank_BK.sum(axis=0),
        failed=failed_BK.sum(axis=0),
    )
    names = named(blocks)
    table["failed_in"] = [
        tuple(name for name, failed in zip(names, failed_BK[:, k], strict=True) if failed)
        for k in range(len(methods))
    ]
    table["incomplete"] = incomplete_BK.sum(axis=0)
    for place, name in enumerate(names):
        table[name] = rank_BK[place]
    table = table.sort_values(["mean_rank", *LINE], ignore_index=True)
    complete_B = (has_rank_BK & (counts_BK == seeds_B[:, None])).all(axis=1)
    test = statistics.friedman(means_BK[complete_B]) if complete_B.any() else None
    return table, test


def like_the_best(values_KS: Array) -> Mask:
    """Methods (K,) not distinguishable from the best of a block: seed-paired t, Holm."""
    means_K = statistics.mean(values_KS)
    if np.isnan(means_K).all():
        return np.zeros(len(means_K), bool)
    best = int(np.nanargmin(means_K))
    p_K = statistics.t_test(utility.gap(values_KS, values_KS[best]))
    p_K[best] = np.nan
    like_K: Mask = statistics.holm(p_K) >= 1 - statistics.LEVEL  # NaN, no test, compares as False
    like_K[best] = True
    return like_K
