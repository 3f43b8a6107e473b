"""Methods held to retraining: a line a method, setting and metric, as numbers. Imports no torch.

What ``leaderboard.csv`` holds; tables for people are written from it.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearnbench.config.arguments import override_words
from unlearnbench.metric import utility
from unlearnbench.report.analysis import statistics
from unlearnbench.report.analysis.statistics import Array

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
"""Metrics whose difference to retraining says something; others are one themselves."""

UTILITY = ("retain_acc", "forget_acc", "test_acc")
MIA = ("retain_acc", "mia_test", "test_acc")


def split_words(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with the names of what they are put together by, one for each content key.

    ``setup`` names what methods share, ``own`` the method's settings, ``shield`` the defense's,
    ``asked`` the attack's. A name is the overrides of the first row with that key, or some digits
    of the key as well where two keys would have one name: rows are of one table, or of one line, by
    content, whatever was typed for it. Rows of schemas before 5 have no such keys; there the
    overrides stand for them.
    """
    place, texts = pd.factorize(frame["overrides"].fillna(""))
    parts = np.array([_sorted(text) for text in texts], object).reshape(-1, len(NAMES))
    told = {}
    for number, (name, axes) in enumerate(NAMES.items()):
        of_text, words = pd.factorize(np.append(parts[:, number], ""))
        codes = of_text[place]
        if axes[-1] in UNDONE:
            codes = np.where(frame[axes[-1]] == "none", of_text[-1], codes)
        told[name] = _named(frame, codes, list(words), KEYS[name], axes)
    return frame.assign(**told)


NAMES = {
    "own": ["method"],
    "asked": ["attack"],
    "shield": ["defense"],
    "setup": ["dataset", "model", "train", "forget"],
}
"""What ``split_words`` adds, each with the options it is the settings of."""

KEYS = {
    "own": "method_key",
    "asked": "attack_key",
    "shield": "defense_key",
    "setup": "setup_key",
}

UNDONE = ("attack", "defense")
"""Axes on which ``none`` has no settings, whatever the cell's other rows have."""


def _sorted(text: str) -> list[str]:
    words: dict[str, list[str]] = {name: [] for name in NAMES}
    of = {"method": "own", "tuned": "own", "attack": "asked", "defense": "shield"}
    for word in override_words(text):
        axis = re.split(r"[.=]", word.lstrip("'\""), maxsplit=1)[0]
        words[of.get(axis, "setup")].append(word)
    return [" ".join(each) for each in words.values()]


def _named(
    frame: pd.DataFrame,
    codes: NDArray[np.integer],
    words: Sequence[str],
    key: str,
    axes: Sequence[str],
) -> pd.Series:
    """The name of each row's key among rows of the same options.

    Args:
        frame: the rows.
        codes: of each, the place of its overrides among the words.
        words: all that there are.
        key: column of the key.
        axes: columns of the options.
    """
    there: pd.Series = frame[key] if key in frame else pd.Series(None, frame.index, dtype=object)
    of_key, keys = pd.factorize(there)
    options = np.zeros(len(frame), np.int64)
    for axis in axes:
        place, distinct = pd.factorize(frame[axis])
        options = options * (len(distinct) + 1) + place + 1
        options, _ = pd.factorize(options)
    content = np.where(of_key < 0, len(keys) + codes, of_key)
    group, _ = pd.factorize(options * (len(keys) + len(words)) + content)
    first = np.flatnonzero(np.diff(np.maximum.accumulate(group), prepend=-1))
    each = pd.DataFrame({"options": options[first], "word": codes[first]})
    shared = each.duplicated(keep=False)
    named = [
        f"{words[word]} #{keys[at][:8]}".strip() if alike and at >= 0 else words[word]
        for word, at, alike in zip(each["word"], of_key[first], shared, strict=True)
    ]
    return pd.Series(np.array(named, object)[group], frame.index, dtype=object)


def runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows at the end of runs, with ``own``, ``setup``, ``variant`` and their forget sets.

    A defense or an attack set up in two ways has two variants, in words; everything else has none.
    A row that failed before there was a forget set has that of those set up alike. What was
    measured on several devices has no value, see ``comparable``.
    """
    rows = split_words(frame[frame["step"].isna()].reset_index(drop=True))
    rows = rows.assign(forget_hash=forget_sets(rows).fillna(""))
    rows = rows.assign(variant=variants(rows))
    mixed = rows["metric"].isin(COSTS) & rows["value"].notna()
    if mixed.any():
        costs = rows[mixed]
        rows.loc[costs.index[~comparable(costs)], "value"] = np.nan
    return rows


def forget_sets(rows: pd.DataFrame) -> pd.Series:
    """Hash of each row's forget set; a row that failed has that of those set up alike."""
    alike = [rows[name] for name in BLOCK[:-1]]
    known = rows["forget_hash"].groupby(alike, dropna=False).transform("first")
    return rows["forget_hash"].fillna(known)


def variants(rows: pd.DataFrame) -> pd.Series:
    """How the attack and the defense of each row are set up, where a block has several ways."""
    told = pd.Series("", rows.index, dtype=object)
    for axis, name in (("defense", "shield"), ("attack", "asked")):
        if (rows[name] == "").all():
            continue
        place = rows.groupby([*BLOCK, axis], dropna=False, sort=False).ngroup()
        ways = rows[name].groupby(place).transform("nunique")
        told = (told + " " + rows[name].where(ways > 1, "")).str.strip()
    return told


COSTS = ("rte", "rte_tuned", "rte_prepared", "peak_bytes", "prepared_seconds")
"""Metrics that mean something else on another device, see ``measured_on`` of the rows."""


def mixed(wide: pd.DataFrame) -> pd.Index:
    """Labels of the cells whose costs are left out: those of their block are of several devices.

    Args:
        wide: one row a cell, with the columns of a block.
    """
    there = [name for name in COSTS if name in wide]
    costs = wide[wide[there].notna().any(axis=1)]
    return costs.index[~comparable(costs)] if len(costs) else costs.index


def without_mixed(wide: pd.DataFrame) -> pd.DataFrame:
    """The same without these costs."""
    labels = mixed(wide)
    if labels.empty:
        return wide
    of_these = wide.index.isin(labels)
    return wide.assign(**{name: wide[name].mask(of_these) for name in COSTS if name in wide})


def comparable(rows: pd.DataFrame) -> pd.Series:
    """Whether the costs of each row's block were all measured on one device.

    Args:
        rows: those that have costs, with the columns of a block.
    """
    device = measured_on(rows)
    if device.nunique() <= 1:
        return pd.Series(True, rows.index)
    blocks = [rows[name] for name in BLOCK]
    different: pd.Series = device.groupby(blocks, dropna=False).transform("nunique")
    return different <= 1


def measured_on(rows: pd.DataFrame) -> pd.Series:
    """The device of each row's costs.

    Rows of schemas before 5 do not say it; there it is taken for the one that computed them.
    """
    told: pd.Series = rows["measured_on"].where(rows["schema"] >= 5, rows["device"])
    return told.fillna("unknown")


def told_once(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and what became of it: enough for all that asks for no number.

    Args:
        rows: as ``runs`` gives them.
    """
    return rows.drop_duplicates(["key", "status", "reason"], ignore_index=True)


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
    function = utility.tug_of_war if name == "tow" else utility.tug_of_war_mia
    found = both[index].assign(metric=name, value=function(ours, theirs))
    n = about[[*index, "n"]]
    return found.merge(n, on=index).assign(defense="none", variant="", attack="none")


def compared(rows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """One row a setting, method and metric: its mean over seeds, and how it differs from retrain.

    Args:
        rows: as ``runs`` gives them.
        found: their ``values``.

    Returns:
        setting, ``method``, ``own``, ``metric``; the ``records`` that a value is of (those of the
        first seed); ``seeds`` that gave a value, of ``asked``;
        ``mean`` and ``half`` of its 95 % interval by t. For the metrics in ``COMPARED``, of the
        differences to ``retrain`` seed by seed: ``pairs``, ``gap`` (their mean), ``abs_gap`` (the
        mean of their sizes), ``t_low``, ``t_high`` and ``boot_low``, ``boot_high`` (95 % intervals
        by Student's t and by a bootstrap over seeds), ``p`` of Student's test, ``p_holm`` (adjusted
        for all methods of the setting in that metric), ``detectable`` (what these seeds would have
        shown with a power of 80 %), ``floor`` (what two retrainings differ by), ``effect`` (gap in
        units of it), ``over`` (what the interval is over) and ``verdict``.

    With one seed, an attack on a population has an interval over its target models, and that stands
    for the one over seeds; its p is by the normal law from that interval's width.
    """
    names = pd.Series(found["metric"].unique())
    found = found[found["metric"].isin(names[~names.str.contains(OF_GAPS)])]
    whose = [*SETTING, "metric", *LINE]
    line = found.groupby(whose, sort=False, dropna=False).ngroup()
    first = found.loc[~line.duplicated(), [*whose, "attack", "n"]].reset_index(drop=True)
    seeds, place = np.unique(found["seed"], return_inverse=True)
    values_LS = np.full((len(first), len(seeds)), np.nan)
    values_LS[line, place] = found["value"]
    told = first.rename(columns={"n": "records"}).assign(
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
    gaps_LS = np.where(chosen[:, None], utility.gap(values_LS, retrain_LS), np.nan)
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
        floor=statistics.noise_floor(utility.gap(of("second_retrain"), retrain_LS)),
        over=np.where(statistics.counted(gaps_LS) > 1, "seeds", ""),
    )
    told["floor"] = told["floor"].where(told["metric"].isin(COMPARED))
    told = _over_models(told, own)
    told["p_holm"] = _holm_within(told["p"].to_numpy(np.float64), cell)
    told["effect"] = told["gap"] / told["floor"].where(told["floor"] > 0)
    told["verdict"] = np.where(told["gap"].notna(), _verdict(told), "")
    told.loc[told["method"] == "second_retrain", "verdict"] = ""  # it is the floor
    return told


def _holm_within(p_L: Array, family_L: NDArray[np.integer]) -> Array:
    """Adjusted p (L,), each family on its own."""
    adjusted_L = np.full(len(p_L), np.nan)
    order = np.argsort(family_L, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(family_L[order])) + 1):
        adjusted_L[places] = statistics.holm(p_L[places])
    return adjusted_L


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


def named(blocks: pd.DataFrame) -> list[str]:
    """Blocks in as few words as tell them apart: data set and model, and what else differs."""
    more = [name for name in BLOCK[2:] if blocks[name].nunique() > 1]
    kept = blocks[["dataset", "model", *more]].astype(str)
    return [" ".join(filter(None, line)) for line in kept.itertuples(index=False)]
