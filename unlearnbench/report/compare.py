"""Methods held to retraining: a line a method, setting and metric, as numbers. Imports no torch.

What ``leaderboard.csv`` holds; tables for people are written from it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from unlearnbench import metric
from unlearnbench.report import statistics
from unlearnbench.report.statistics import Array

BLOCK = ["dataset", "model", "train", "forget", "setup", "forget_hash"]
"""What methods share that can be held to each other: one task, in words."""

SETTING = [*BLOCK, "defense", "variant"]
"""What makes a table: a block, and what stood between it and its attackers."""

LINE = ["method", "own"]
"""A method with its own overrides."""

COMPARED = (
    *("retain_acc", "forget_acc", "test_acc", "val_acc", "rmse_retain", "rmse_forget", "rmse_test"),
    *("mia_test", "mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc", "double_output_auc"),
    *("class_shadow_auc", "hrec_cos"),
)
"""Metrics whose difference to retraining says something; others are such a difference themselves."""

UTILITY = ("retain_acc", "forget_acc", "test_acc")
MIA = ("retain_acc", "mia_test", "test_acc")


def split_words(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with their overrides sorted: the method's ``own``, the attack's, and the ``setup``."""
    texts = frame["overrides"].fillna("")
    known = {text: _sorted(text) for text in texts.unique()}
    parts = pd.DataFrame(texts.map(known).tolist(), columns=["own", "asked", "setup"])
    return frame.assign(**{name: parts[name].to_numpy() for name in parts})


def _sorted(text: str) -> tuple[str, str, str]:
    words: dict[str, list[str]] = {"method": [], "attack": [], "": []}
    for word in text.split():
        axis = word.split(".")[0].split("=")[0]
        words[axis if axis in words else ""].append(word)
    own, asked, setup = (" ".join(words[axis]) for axis in ("method", "attack", ""))
    return own, asked, setup


def runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows at the end of runs, with ``own``, ``setup``, ``variant`` and their forget sets.

    An attack set up in two ways has two variants, in words; everything else has none. A row that
    failed before there was a forget set has that of those set up alike.
    """
    rows = split_words(frame[frame["step"].isna()].reset_index(drop=True))
    rows = rows.assign(asked=rows["asked"].where(rows["attack"] != "none", ""))
    alike = [rows[name] for name in BLOCK[:-1]]
    known = rows["forget_hash"].groupby(alike, dropna=False).transform("first")
    rows = rows.assign(forget_hash=rows["forget_hash"].fillna(known).fillna(""))
    place = rows.groupby([*BLOCK, "attack"], dropna=False, sort=False).ngroup()
    ways = rows["asked"].groupby(place).transform("nunique")
    return rows.assign(variant=rows["asked"].where(ways > 1, ""))


def values(rows: pd.DataFrame) -> pd.DataFrame:
    """The numbers among them, and those that follow from several: ToW and ToW-MIA.

    Args:
        rows: as ``runs`` gives them.
    """
    keep = [*SETTING, *LINE, "attack", "seed", "metric", "value", "n"]
    there = rows.loc[rows["value"].notna(), keep]
    return pd.concat(
        [there, _tug(there, "tow", UTILITY), _tug(there, "tow_mia", MIA)], ignore_index=True
    )


def _tug(there: pd.DataFrame, name: str, of: Sequence[str]) -> pd.DataFrame:
    """Tug of war of each seed, under no defense."""
    chosen = there[there["metric"].isin(of) & (there["defense"] == "none")]
    chosen = chosen.drop_duplicates([*BLOCK, *LINE, "seed", "metric"])
    about = chosen.drop_duplicates([*BLOCK, *LINE, "seed"])
    index = [*BLOCK, *LINE, "seed"]
    each = chosen.pivot(index=index, columns="metric", values="value").reindex(columns=list(of))
    each = each.dropna().reset_index()
    retrain = each[(each["method"] == "retrain") & (each["own"] == "")].drop(columns=LINE)
    both = each.merge(retrain, on=[*BLOCK, "seed"], suffixes=("", "_retrained"))
    ours, theirs = ([both[f"{one}{end}"].to_numpy() for one in of] for end in ("", "_retrained"))
    function = metric.tug_of_war if name == "tow" else metric.tug_of_war_mia
    found = both[index].assign(metric=name, value=function(ours, theirs))
    n = about[[*index, "n"]]
    return found.merge(n, on=index).assign(defense="none", variant="", attack="none")


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a setting, method and metric: its mean over seeds, and how it differs from retrain.

    Args:
        rows: as ``runs`` gives them.

    Returns:
        setting, ``method``, ``own``, ``metric``; ``seeds`` that gave a value, of ``asked``; ``mean``
        and ``half`` of its 95 % interval by Student's t. For the metrics in ``COMPARED``, of the
        differences to ``retrain`` seed by seed: ``pairs``, ``gap`` (their mean), ``abs_gap`` (the
        mean of their sizes), ``t_low``, ``t_high`` and ``boot_low``, ``boot_high`` (95 % intervals
        by Student's t and by a bootstrap over seeds), ``p`` of Student's test, ``p_holm`` (adjusted
        for all methods of the setting in that metric), ``detectable`` (what these seeds would have
        shown with a power of 80 %), ``floor`` (what two retrainings differ by), ``effect`` (gap in
        units of it), ``over`` (what the interval is over) and ``verdict``.

    With one seed, an attack on a population has an interval over its target models, and that stands
    for the one over seeds; its p is by the normal law from that interval's width.
    """
    found = values(rows)
    found = found[~found["metric"].str.contains(OF_GAPS)]
    lines = found.groupby([*SETTING, "metric", *LINE], sort=False, dropna=False)
    seeds, place = np.unique(found["seed"], return_inverse=True)
    table = lines[["attack"]].first().reset_index()
    values_LS = np.full((len(table), len(seeds)), np.nan)
    values_LS[lines.ngroup(), place] = found["value"]
    told = table.assign(
        seeds=statistics.counted(values_LS),
        mean=statistics.mean(values_LS),
        half=statistics.t_half(values_LS),
    )
    told = _with_asked(told, rows)
    return _against_retrain(told, values_LS, _own_gaps(rows)).sort_values(
        [*SETTING, "metric", *LINE], ignore_index=True
    )


OF_GAPS = r"_(?:gap|gap_low|gap_high|detectable|low|high)$"
"""What an attack says of another of its figures."""


def _with_asked(told: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """With how many seeds of the block there are: who has fewer has them missing."""
    asked = rows.groupby(BLOCK, dropna=False)["seed"].nunique().rename("asked")
    return told.merge(asked, left_on=BLOCK, right_index=True, how="left").reset_index(drop=True)


def _against_retrain(told: pd.DataFrame, values_LS: Array, own: pd.DataFrame) -> pd.DataFrame:
    cell = told.groupby([*SETTING, "metric"], sort=False, dropna=False).ngroup().to_numpy()
    line = np.arange(len(told))

    def of(method: str) -> Array:
        """The values (L, S) of a control in each line's own setting; NaN where it has none."""
        place = np.full(cell.max(initial=-1) + 1, -1)
        chosen = (told["method"] == method).to_numpy() & (told["own"] == "").to_numpy()
        place[cell[chosen]] = line[chosen]
        found: Array = np.where((place[cell] >= 0)[:, None], values_LS[place[cell]], np.nan)
        return found

    retrain_LS = of("retrain")
    chosen = told["metric"].isin(COMPARED).to_numpy() & (told["method"] != "retrain").to_numpy()
    gaps_LS = np.where(chosen[:, None], metric.gap(values_LS, retrain_LS), np.nan)
    half_L = statistics.t_half(gaps_LS)
    low_L, high_L = statistics.bootstrap(gaps_LS)
    told = told.assign(
        pairs=statistics.counted(gaps_LS),
        gap=statistics.mean(gaps_LS),
        abs_gap=statistics.mean(np.abs(gaps_LS)),
        t_low=statistics.mean(gaps_LS) - half_L,
        t_high=statistics.mean(gaps_LS) + half_L,
        boot_low=low_L,
        boot_high=high_L,
        p=np.where(told["method"] == "second_retrain", np.nan, statistics.t_test(gaps_LS)),
        detectable=statistics.detectable(gaps_LS),
        floor=statistics.noise_floor(metric.gap(of("second_retrain"), retrain_LS)),
        over=np.where(statistics.counted(gaps_LS) > 1, "seeds", ""),
    )
    told["floor"] = told["floor"].where(told["metric"].isin(COMPARED))
    told = _over_models(told, own)
    families = told["p"].groupby(cell)
    told["p_holm"] = families.transform(lambda p: statistics.holm(p.to_numpy()))
    told["effect"] = told["gap"] / told["floor"].where(told["floor"] > 0)
    told["verdict"] = np.where(told["gap"].notna(), _verdict(told), "")
    told.loc[told["method"] == "second_retrain", "verdict"] = ""  # it is the floor
    return told


def _verdict(told: pd.DataFrame) -> Array:
    within = told["gap"].abs() <= told["floor"]
    at_5 = 1 - statistics.LEVEL
    return np.select(
        [told["p"].isna(), told["p"] >= at_5, told["p_holm"] >= at_5, within],
        [UNTESTED, ALIKE, ALONE, WITHIN],
        DIFFERS,
    )


UNTESTED, ALIKE, ALONE = "untested", "not told apart", "differs, were it the only method"
WITHIN, DIFFERS = "differs, no more than two retrainings", "differs"


def _own_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """What attacks on populations say of their gap to retraining, where there is one seed."""
    names = {f"{name}_{end}": (name, end) for name in COMPARED for end in OWN}
    chosen = rows[rows["metric"].isin(list(names)) & rows["value"].notna()]
    chosen = chosen.assign(end=chosen["metric"].map({k: v[1] for k, v in names.items()}))
    chosen["metric"] = chosen["metric"].map({k: v[0] for k, v in names.items()})
    index = [*SETTING, *LINE, "metric"]
    only = chosen.groupby(index, dropna=False)["seed"].transform("nunique") == 1
    wide = chosen[only].pivot_table(index=index, columns="end", values="value", aggfunc="first")
    return wide.reindex(columns=list(OWN)).add_prefix("own_").reset_index()


OWN = ("gap", "gap_low", "gap_high", "detectable")


def _over_models(told: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """With intervals over target models in place of those over seeds that are not there."""
    both = told.merge(own, on=[*SETTING, *LINE, "metric"], how="left")
    half = (both["own_gap_high"] - both["own_gap_low"]) / 2
    use = (both["pairs"] == 1) & (half > 0)
    z = both["own_gap"].abs() / (half / statistics.normal(statistics.LEVEL))
    given = {"gap": "own_gap", "t_low": "own_gap_low", "t_high": "own_gap_high"}
    given["detectable"] = "own_detectable"
    for name, theirs in given.items():
        both[name] = both[theirs].where(use, both[name])
    both["p"] = both["p"].where(~use, statistics.normal_p(z.to_numpy(np.float64)))
    both["over"] = both["over"].where(~use, "target models")
    return both[[*told.columns]]


# ---------------------------------------------------------------------------------------------
# What is not there.


def troubles(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a block, method and seed that has not all it should: ``trouble`` in words.

    Args:
        rows: as ``runs`` gives them.

    Returns:
        block, ``method``, ``own``, ``seed``, ``status`` (failed, skipped or missing) and ``reason``.
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


def sentence(rows: pd.DataFrame, keys: pd.DataFrame | None = None) -> str:
    """Whether the grid is complete, in words.

    Args:
        rows: as ``runs`` gives them.
        keys: of the sweep, as ``results.load_sweep`` gives them.
    """
    there = set(rows["key"])
    asked = len(keys) if keys is not None else rows["key"].nunique()
    gone = int((~keys["key"].isin(there)).sum()) if keys is not None else 0
    found = rows.drop_duplicates("key", keep="first")
    found = found if keys is None else found[found["key"].isin(set(keys["key"]))]
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


SHOWN = 5
"""Methods that are named; of the others their number."""


# ---------------------------------------------------------------------------------------------
# Ranks over blocks.

RANKED = {"ret_dev": 1, "tow": -1, "indisc_test": -1}
"""What methods are ranked by, and the sign under which lower is better."""

UNRANKED = ("original", "retrain", "second_retrain", "sisa_retrain")
"""Controls: no methods."""

TOP = (1, 3, 5)


def ranked(rows: pd.DataFrame, by: str) -> tuple[pd.DataFrame, statistics.Friedman | None]:
    """Methods by their mean rank over blocks, as in Deep Unlearn; the aggregation is ours.

    In each block methods are ranked by their mean over seeds, ties share the better rank. A method
    of which a seed failed is last there: a mean over what survived would reward the failure. One
    that was skipped everywhere has no rank, nor has a control.

    Args:
        rows: as ``runs`` gives them.
        by: a metric in ``RANKED``.

    Returns:
        A row a method: ``mean_rank``, ``low``, ``high`` (95 % interval, bootstrap over seeds),
        ``top_1``, ``top_3``, ``top_5`` (blocks in which it is among them), ``blocks``, ``failed``
        (blocks in which a seed failed, ``failed_in`` their names), ``incomplete`` (blocks in which a seed is missing), ``best``
        (blocks in which it cannot be told from the best one: seed-paired t, Holm), and a column a
        block with its rank. Friedman's test over the blocks in which all methods have all seeds;
        None where there is no such block.
    """
    found = values(rows)
    found = found[(found["metric"] == by) & (found["defense"] == "none")]
    found = found[~found["method"].isin(UNRANKED)]
    found = found.drop_duplicates([*BLOCK, *LINE, "seed"])
    if found.empty:
        return pd.DataFrame(), None
    about = rows[~rows["method"].isin(UNRANKED) & (rows["status"] == "failed")]
    failed = about.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    lines = pd.concat([found[[*BLOCK, *LINE]], failed]).drop_duplicates()
    blocks = lines.drop_duplicates(BLOCK)[BLOCK].sort_values(BLOCK, ignore_index=True)
    methods = lines.drop_duplicates(LINE)[LINE].sort_values(LINE, ignore_index=True)
    seeds = np.unique(found["seed"])
    shape = len(blocks), len(methods), len(seeds)

    def places(frame: pd.DataFrame) -> list[Array]:
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
    there_BK: Array,
    failed_BK: Array,
    blocks: pd.DataFrame,
    methods: pd.DataFrame,
) -> tuple[pd.DataFrame, statistics.Friedman | None]:
    values_BKS = np.where(failed_BK[..., None], np.nan, values_BKS)
    counts_BK = np.isfinite(values_BKS).sum(axis=2)
    seeds_B = counts_BK.max(axis=1, initial=0)
    means_BK = np.stack([statistics.mean(one) for one in values_BKS])
    rank_BK = np.where(there_BK, statistics.ranks(means_BK, "min"), np.nan)
    low_K, high_K = statistics.rank_intervals(values_BKS)
    incomplete_BK = there_BK & ~failed_BK & (counts_BK < seeds_B[:, None])
    best_BK = np.stack([_like_the_best(one) for one in values_BKS])
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


def _like_the_best(values_KS: Array) -> Array:
    """Which methods (K,) cannot be told from the best of a block: seed-paired t, Holm."""
    means_K = statistics.mean(values_KS)
    if np.isnan(means_K).all():
        return np.zeros(len(means_K), bool)
    best = int(np.nanargmin(means_K))
    p_K = statistics.t_test(metric.gap(values_KS, values_KS[best]))
    p_K[best] = np.nan
    like_K: Array = statistics.holm(p_K) >= 1 - statistics.LEVEL  # untested is not alike
    like_K[best] = True
    return like_K


def named(blocks: pd.DataFrame) -> list[str]:
    """Blocks in as few words as tell them apart: data set and model, and what else differs."""
    more = [name for name in BLOCK[2:] if blocks[name].nunique() > 1]
    kept = blocks[["dataset", "model", *more]].astype(str)
    return [" ".join(filter(None, line)) for line in kept.itertuples(index=False)]
