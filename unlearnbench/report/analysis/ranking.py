"""Ranks of methods over blocks, and whether they mean anything. As in Deep Unlearn."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearnbench.metric import utility
from unlearnbench.report.analysis import statistics
from unlearnbench.report.analysis.compare import BLOCK, LINE, named
from unlearnbench.report.analysis.statistics import Array

Mask = NDArray[np.bool_]

RANKED = {"ret_dev": 1, "tow": -1, "indisc_test": -1}
"""What methods are ranked by, and the sign under which lower is better."""

UNRANKED = ("original", "retrain", "second_retrain", "sisa_retrain")
"""Controls: no methods."""

TOP = (1, 3, 5)


def ranked(
    rows: pd.DataFrame, found: pd.DataFrame, by: str
) -> tuple[pd.DataFrame, statistics.Friedman | None]:
    """Methods by their mean rank over blocks, as in Deep Unlearn; the aggregation is ours.

    In each block methods are ranked by their mean over seeds, ties share the better rank. A method
    of which a seed failed is last there: a mean over what survived would reward the failure. One
    that was skipped or is missing has no rank there, and a control has none at all.

    Args:
        rows: as ``compare.runs`` gives them.
        found: their ``compare.values``.
        by: a metric in ``RANKED``.

    Returns:
        A row a method: ``mean_rank``, ``low``, ``high`` (95 % interval, bootstrap over seeds),
        ``top_1``, ``top_3``, ``top_5`` (blocks in which it is among them), ``best`` (blocks in
        which it cannot be told from the best one: seed-paired t, Holm), ``blocks`` it has a rank
        in, ``failed`` (blocks in which a seed failed, ``failed_in`` their names), ``incomplete``
        (blocks in which a seed is missing), and a column a block with its rank.
        And Friedman's test over the blocks in which all methods have all seeds; None where there is
        no such block.
    """
    found = found[(found["metric"] == by) & (found["defense"] == "none")]
    found = found[~found["method"].isin(UNRANKED)]
    found = found.drop_duplicates([*BLOCK, *LINE, "seed"])
    if found.empty:
        return pd.DataFrame(), None
    about = rows[~rows["method"].isin(UNRANKED) & (rows["status"] == "failed")]
    about = about[about["attack"].isin(["none", *found["attack"].unique()])]
    about = about[about["defense"] == "none"]
    failed = about.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    lines = pd.concat([found[[*BLOCK, *LINE]], failed]).drop_duplicates()
    blocks = lines.drop_duplicates(BLOCK)[BLOCK].sort_values(BLOCK, ignore_index=True)
    methods = lines.drop_duplicates(LINE)[LINE].sort_values(LINE, ignore_index=True)
    seeds = np.unique(found["seed"])
    shape = len(blocks), len(methods), len(seeds)

    def places(frame: pd.DataFrame) -> list[NDArray[np.int64]]:
        at_B = frame.merge(blocks.reset_index(), on=BLOCK, how="left")["index"]
        at_K = frame.merge(methods.reset_index(), on=LINE, how="left")["index"]
        return [at_B.to_numpy(), at_K.to_numpy()]

    values_BKS = np.full(shape, np.nan)
    values_BKS[(*places(found), np.searchsorted(seeds, found["seed"]))] = (
        RANKED[by] * found["value"].to_numpy()
    )
    there_BK = np.zeros(shape[:2], bool)
    there_BK[tuple(places(lines))] = True
    failed_BK = np.zeros(shape[:2], bool)
    failed_BK[tuple(places(failed))] = True
    return _ranked(values_BKS, there_BK, failed_BK, blocks, methods)


def _ranked(
    values_BKS: Array,
    there_BK: Mask,
    failed_BK: Mask,
    blocks: pd.DataFrame,
    methods: pd.DataFrame,
) -> tuple[pd.DataFrame, statistics.Friedman | None]:
    values_BKS = np.where(failed_BK[..., None], np.nan, values_BKS)
    counts_BK = np.isfinite(values_BKS).sum(axis=2)
    seeds_B = counts_BK.max(axis=1, initial=0)
    means_BK = np.stack([statistics.mean(one) for one in values_BKS])
    rank_BK = np.where(there_BK, statistics.ranks(means_BK, "min"), np.nan)
    low_K, high_K = statistics.rank_intervals(values_BKS, there_BK)
    incomplete_BK = there_BK & ~failed_BK & (counts_BK < seeds_B[:, None])
    best_BK = np.stack([like_the_best(one) for one in values_BKS])
    told = methods.assign(
        mean_rank=statistics.mean(rank_BK.T),
        low=low_K,
        high=high_K,
        **{f"top_{k}": ((rank_BK <= k) & ~np.isnan(means_BK)).sum(axis=0) for k in TOP},
        best=best_BK.sum(axis=0),
        blocks=there_BK.sum(axis=0),
        failed=failed_BK.sum(axis=0),
    )
    names = named(blocks)
    told["failed_in"] = [
        tuple(name for name, failed in zip(names, failed_BK[:, k], strict=True) if failed)
        for k in range(len(methods))
    ]
    told["incomplete"] = incomplete_BK.sum(axis=0)
    for place, name in enumerate(names):
        told[name] = rank_BK[place]
    told = told.sort_values(["mean_rank", *LINE], ignore_index=True)
    whole_B = (there_BK & (counts_BK == seeds_B[:, None])).all(axis=1)
    test = statistics.friedman(means_BK[whole_B]) if whole_B.any() else None
    return told, test


def like_the_best(values_KS: Array) -> Mask:
    """Which methods (K,) cannot be told from the best of a block: seed-paired t, Holm."""
    means_K = statistics.mean(values_KS)
    if np.isnan(means_K).all():
        return np.zeros(len(means_K), bool)
    best = int(np.nanargmin(means_K))
    p_K = statistics.t_test(utility.gap(values_KS, values_KS[best]))
    p_K[best] = np.nan
    like_K: Mask = statistics.holm(p_K) >= 1 - statistics.LEVEL  # untested is not alike
    like_K[best] = True
    return like_K
