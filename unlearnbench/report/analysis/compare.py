"""Comparison of methods with retraining: one row per method, setting and metric, as numbers.

``leaderboard.csv`` contains this table; the formatted tables derive from it. Imports no torch.
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
"""Columns shared by methods that are comparable: one task. Task overrides are text."""

SETTING = [*BLOCK, "defense", "variant"]
"""Columns that identify one table: a block, its defense, and the variant of its setup."""

LINE = ["method", "own"]
"""Columns that identify one line of a table: a method with its own overrides."""

COMPARED = (
    *("retain_acc", "forget_acc", "test_acc", "val_acc", "rmse_retain", "rmse_forget", "rmse_test"),
    *("mia_test", "mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc", "double_output_auc"),
    *("class_shadow_auc", "hrec_cos"),
)
"""Metrics with a meaningful difference to retraining; the others are differences themselves."""

UTILITY = ("retain_acc", "forget_acc", "test_acc")
MIA = ("retain_acc", "mia_test", "test_acc")


def split_words(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that group rows into tables and lines, one for each content key.

    ``setup`` names the settings that methods share, ``own`` those of the method, ``shield`` those
    of the defense, ``asked`` those of the attack. A name is the overrides of the first row with
    that key, followed by digits of the key where two keys would have the same name: the grouping
    depends on content, not on the spelling of overrides. Rows of schemas before 5 have no such
    keys; their overrides are used in place of keys.
    """
    place, texts = pd.factorize(frame["overrides"].fillna(""))
    sorted_overrides = np.array([_sorted(text) for text in texts], object).reshape(-1, len(NAMES))
    columns = {}
    for number, (name, axes) in enumerate(NAMES.items()):
        of_text, overrides = pd.factorize(np.append(sorted_overrides[:, number], ""))
        codes = of_text[place]
        if axes[-1] in UNDONE:
            codes = np.where(frame[axes[-1]] == "none", of_text[-1], codes)
        columns[name] = _named(frame, codes, list(overrides), KEYS[name], axes)
    return frame.assign(**columns)


NAMES = {
    "own": ["method"],
    "asked": ["attack"],
    "shield": ["defense"],
    "setup": ["dataset", "model", "train", "forget"],
}
"""Column that ``split_words`` adds → the options whose settings it names."""

KEYS = {
    "own": "method_key",
    "asked": "attack_key",
    "shield": "defense_key",
    "setup": "setup_key",
}

UNDONE = ("attack", "defense")
"""Axes whose option ``none`` has no settings, independent of the other rows of the cell."""


def _sorted(text: str) -> list[str]:
    overrides: dict[str, list[str]] = {name: [] for name in NAMES}
    of = {"method": "own", "tuned": "own", "attack": "asked", "defense": "shield"}
    for word in override_words(text):
        axis = re.split(r"[.=]", word.lstrip("'\""), maxsplit=1)[0]
        overrides[of.get(axis, "setup")].append(word)
    return [" ".join(each) for each in overrides.values()]


def _named(
    frame: pd.DataFrame,
    codes: NDArray[np.integer],
    overrides: Sequence[str],
    key: str,
    axes: Sequence[str],
) -> pd.Series:
    """The name of each row's key among rows of the same options.

    Args:
        frame: the rows.
        codes: index into ``overrides`` of each row.
        overrides: the distinct override texts.
        key: name of the key column.
        axes: names of the option columns.
    """
    row_keys: pd.Series = frame[key] if key in frame else pd.Series(None, frame.index, dtype=object)
    of_key, keys = pd.factorize(row_keys)
    options = np.zeros(len(frame), np.int64)
    for axis in axes:
        place, distinct = pd.factorize(frame[axis])
        options = options * (len(distinct) + 1) + place + 1
        options, _ = pd.factorize(options)
    content = np.where(of_key < 0, len(keys) + codes, of_key)
    group, _ = pd.factorize(options * (len(keys) + len(overrides)) + content)
    first = np.flatnonzero(np.diff(np.maximum.accumulate(group), prepend=-1))
    each = pd.DataFrame({"options": options[first], "word": codes[first]})
    shared = each.duplicated(keep=False)
    named = [
        f"{overrides[word]} #{keys[at][:8]}".strip() if alike and at >= 0 else overrides[word]
        for word, at, alike in zip(each["word"], of_key[first], shared, strict=True)
    ]
    return pd.Series(np.array(named, object)[group], frame.index, dtype=object)


def runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows at the end of runs, with ``own``, ``setup``, ``variant`` and ``forget_hash``.

    A defense or an attack with two setups has two variants, named by their overrides; otherwise
    ``variant`` is empty. A row that failed before its forget set was drawn has the forget set of
    rows with the same setup. Costs measured on several devices are NaN, see ``comparable``.
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
    """Forget-set hash of each row; a failed row takes the hash of rows with the same setup."""
    alike = [rows[name] for name in BLOCK[:-1]]
    hashes = rows["forget_hash"].groupby(alike, dropna=False).transform("first")
    return rows["forget_hash"].fillna(hashes)


def variants(rows: pd.DataFrame) -> pd.Series:
    """Overrides of the defense and the attack of each row, where a block has several setups."""
    names = pd.Series("", rows.index, dtype=object)
    for axis, name in (("defense", "shield"), ("attack", "asked")):
        if (rows[name] == "").all():
            continue
        place = rows.groupby([*BLOCK, axis], dropna=False, sort=False).ngroup()
        ways = rows[name].groupby(place).transform("nunique")
        names = (names + " " + rows[name].where(ways > 1, "")).str.strip()
    return names


COSTS = ("rte", "rte_tuned", "rte_prepared", "peak_bytes", "prepared_seconds")
"""Metrics that depend on the device, see column ``measured_on`` of the rows."""


def mixed(wide: pd.DataFrame) -> pd.Index:
    """Labels of the cells whose costs are left out: their block has costs of several devices.

    Args:
        wide: one row per cell, with the columns of a block.
    """
    columns = [name for name in COSTS if name in wide]
    costs = wide[wide[columns].notna().any(axis=1)]
    return costs.index[~comparable(costs)] if len(costs) else costs.index


def without_mixed(wide: pd.DataFrame) -> pd.DataFrame:
    """Replace the costs of ``mixed`` cells by NaN."""
    labels = mixed(wide)
    if labels.empty:
        return wide
    of_these = wide.index.isin(labels)
    return wide.assign(**{name: wide[name].mask(of_these) for name in COSTS if name in wide})


def comparable(rows: pd.DataFrame) -> pd.Series:
    """Whether the costs of each row's block were all measured on one device.

    Args:
        rows: rows with costs, with the columns of a block.
    """
    device = measured_on(rows)
    if device.nunique() <= 1:
        return pd.Series(True, rows.index)
    blocks = [rows[name] for name in BLOCK]
    different: pd.Series = device.groupby(blocks, dropna=False).transform("nunique")
    return different <= 1


def measured_on(rows: pd.DataFrame) -> pd.Series:
    """Device on which the costs of each row were measured.

    Rows of schemas before 5 do not store it; the device that computed the row is used instead.
    """
    device: pd.Series = rows["measured_on"].where(rows["schema"] >= 5, rows["device"])
    return device.fillna("unknown")


def told_once(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, status and reason, for tables that show no values.

    Args:
        rows: result rows as ``runs`` returns them.
    """
    return rows.drop_duplicates(["key", "status", "reason"], ignore_index=True)


def values(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a value, and the metrics derived from several of them: ToW and ToW-MIA.

    Args:
        rows: result rows as ``runs`` returns them.
    """
    keep = [*SETTING, *LINE, "attack", "seed", "metric", "value", "n"]
    value_rows = rows.loc[rows["value"].notna(), keep]
    return pd.concat(
        [value_rows, _tug(value_rows, "tow", UTILITY), _tug(value_rows, "tow_mia", MIA)],
        ignore_index=True,
    )


def _tug(value_rows: pd.DataFrame, name: str, of: Sequence[str]) -> pd.DataFrame:
    """Tug of war of each seed, without a defense."""
    chosen = value_rows[value_rows["metric"].isin(of) & (value_rows["defense"] == "none")]
    chosen = chosen.drop_duplicates([*BLOCK, *LINE, "seed", "metric"])
    about = chosen.drop_duplicates([*BLOCK, *LINE, "seed"])
    index = [*BLOCK, *LINE, "seed"]
    each = chosen.pivot(index=index, columns="metric", values="value").reindex(columns=list(of))
    each = each.dropna().reset_index()
    retrain = each[(each["method"] == "retrain") & (each["own"] == "")].drop(columns=LINE)
    both = each.merge(retrain, on=[*BLOCK, "seed"], suffixes=("", "_retrained"))
    unlearned, retrained = (
        [both[f"{metric}{suffix}"].to_numpy() for metric in of] for suffix in ("", "_retrained")
    )
    function = utility.tug_of_war if name == "tow" else utility.tug_of_war_mia
    result = both[index].assign(metric=name, value=function(unlearned, retrained))
    n = about[[*index, "n"]]
    return result.merge(n, on=index).assign(defense="none", variant="", attack="none")


def compared(rows: pd.DataFrame, value_rows: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, method and metric: its mean over seeds and its difference to retrain.

    Args:
        rows: result rows as ``runs`` returns them.
        value_rows: their ``values``.

    Returns:
        setting columns, ``method``, ``own``, ``metric``; ``records``, the number of records that a
        value is computed on (that of the first seed); ``seeds``, the number of seeds with a value,
        out of ``asked``;
        ``mean`` and ``half``, half of its 95 % t-interval. For the metrics in ``COMPARED``, over
        the differences to ``retrain`` of the same seed: ``pairs`` (their number), ``gap`` (their
        mean), ``abs_gap`` (mean of their absolute values), ``t_low``, ``t_high`` and ``boot_low``,
        ``boot_high`` (95 % intervals by Student's t and by a bootstrap over seeds), ``p`` of
        Student's test, ``p_holm`` (adjusted for all methods of the setting in that metric),
        ``detectable`` (difference detected with a power of 80 % at this number of seeds), ``floor``
        (difference of two retrainings), ``effect`` (gap / floor), ``over`` (population of the
        interval: seeds or target models) and ``verdict``.

    With one seed, an attack on several target models has an interval over these models, which
    replaces the interval over seeds; its p follows from the normal law and that interval's width.
    """
    names = pd.Series(value_rows["metric"].unique())
    value_rows = value_rows[value_rows["metric"].isin(names[~names.str.contains(OF_GAPS)])]
    columns = [*SETTING, "metric", *LINE]
    line = value_rows.groupby(columns, sort=False, dropna=False).ngroup()
    first = value_rows.loc[~line.duplicated(), [*columns, "attack", "n"]].reset_index(drop=True)
    seeds, place = np.unique(value_rows["seed"], return_inverse=True)
    values_LS = np.full((len(first), len(seeds)), np.nan)
    values_LS[line, place] = value_rows["value"]
    table = first.rename(columns={"n": "records"}).assign(
        seeds=statistics.counted(values_LS),
        mean=statistics.mean(values_LS),
        half=statistics.t_half(values_LS),
    )
    table = _with_asked(table, rows)
    return _against_retrain(table, values_LS, _own_gaps(rows)).sort_values(
        [*SETTING, "metric", *LINE], ignore_index=True
    )


OF_GAPS = r"_(?:gap|gap_low|gap_high|detectable|low|high)$"
"""Suffixes of metrics that describe another metric of the same attack."""


def _with_asked(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Add ``asked``, the number of seeds of the block; a line with fewer seeds is incomplete."""
    n_seeds = rows.groupby(BLOCK, dropna=False)["seed"].nunique().rename("asked")
    return table.merge(n_seeds, left_on=BLOCK, right_index=True, how="left").reset_index(drop=True)


def _against_retrain(table: pd.DataFrame, values_LS: Array, own: pd.DataFrame) -> pd.DataFrame:
    cell = table.groupby([*SETTING, "metric"], sort=False, dropna=False).ngroup().to_numpy()
    line = np.arange(len(table))

    def of(method: str) -> Array:
        """Values (L, S) of a control in the setting of each line; NaN where there are none."""
        place = np.full(cell.max(initial=-1) + 1, -1)
        chosen = (table["method"] == method).to_numpy() & (table["own"] == "").to_numpy()
        place[cell[chosen]] = line[chosen]
        control_LS: Array = np.where((place[cell] >= 0)[:, None], values_LS[place[cell]], np.nan)
        return control_LS

    retrain_LS = of("retrain")
    chosen = table["metric"].isin(COMPARED).to_numpy() & (table["method"] != "retrain").to_numpy()
    gaps_LS = np.where(chosen[:, None], utility.gap(values_LS, retrain_LS), np.nan)
    half_L = statistics.t_half(gaps_LS)
    low_L, high_L = statistics.bootstrap(gaps_LS)
    table = table.assign(
        pairs=statistics.counted(gaps_LS),
        gap=statistics.mean(gaps_LS),
        abs_gap=statistics.mean(np.abs(gaps_LS)),
        t_low=statistics.mean(gaps_LS) - half_L,
        t_high=statistics.mean(gaps_LS) + half_L,
        boot_low=low_L,
        boot_high=high_L,
        p=np.where(table["method"] == "second_retrain", np.nan, statistics.t_test(gaps_LS)),
        detectable=statistics.detectable(gaps_LS),
        floor=statistics.noise_floor(utility.gap(of("second_retrain"), retrain_LS)),
        over=np.where(statistics.counted(gaps_LS) > 1, "seeds", ""),
    )
    table["floor"] = table["floor"].where(table["metric"].isin(COMPARED))
    table = _over_models(table, own)
    table["p_holm"] = _holm_within(table["p"].to_numpy(np.float64), cell)
    table["effect"] = table["gap"] / table["floor"].where(table["floor"] > 0)
    table["verdict"] = np.where(table["gap"].notna(), _verdict(table), "")
    table.loc[table["method"] == "second_retrain", "verdict"] = ""  # its gap defines the floor
    return table


def _holm_within(p_L: Array, family_L: NDArray[np.integer]) -> Array:
    """Holm-adjusted p (L,), within each family."""
    adjusted_L = np.full(len(p_L), np.nan)
    order = np.argsort(family_L, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(family_L[order])) + 1):
        adjusted_L[places] = statistics.holm(p_L[places])
    return adjusted_L


def _verdict(table: pd.DataFrame) -> Array:
    within = table["gap"].abs() <= table["floor"]
    at_5 = 1 - statistics.LEVEL
    return np.select(
        [table["p"].isna(), table["p"] >= at_5, table["p_holm"] >= at_5, within],
        [UNTESTED, ALIKE, ALONE, WITHIN],
        DIFFERS,
    )


UNTESTED, ALIKE, ALONE = "untested", "not told apart", "differs, were it the only method"
WITHIN, DIFFERS = "differs, no more than two retrainings", "differs"


def _own_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Gap to retraining as reported by attacks on several target models, for one seed."""
    names = {f"{name}_{end}": (name, end) for name in COMPARED for end in OWN}
    chosen = rows[rows["metric"].isin(list(names)) & rows["value"].notna()]
    chosen = chosen.assign(end=chosen["metric"].map({k: v[1] for k, v in names.items()}))
    chosen["metric"] = chosen["metric"].map({k: v[0] for k, v in names.items()})
    index = [*SETTING, *LINE, "metric"]
    only = chosen.groupby(index, dropna=False)["seed"].transform("nunique") == 1
    wide = chosen[only].pivot_table(index=index, columns="end", values="value", aggfunc="first")
    return wide.reindex(columns=list(OWN)).add_prefix("own_").reset_index()


OWN = ("gap", "gap_low", "gap_high", "detectable")


def _over_models(table: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Use intervals over target models where one seed gives no interval over seeds."""
    both = table.merge(own, on=[*SETTING, *LINE, "metric"], how="left")
    half = (both["own_gap_high"] - both["own_gap_low"]) / 2
    use = (both["pairs"] == 1) & (half > 0)
    z = both["own_gap"].abs() / (half / statistics.normal(statistics.LEVEL))
    replacements = {"gap": "own_gap", "t_low": "own_gap_low", "t_high": "own_gap_high"}
    replacements["detectable"] = "own_detectable"
    for name, own_column in replacements.items():
        both[name] = both[own_column].where(use, both[name])
    both["p"] = both["p"].where(~use, statistics.normal_p(z.to_numpy(np.float64)))
    both["over"] = both["over"].where(~use, "target models")
    return both[[*table.columns]]


def named(blocks: pd.DataFrame) -> list[str]:
    """Short block names: data set, model, and the other columns that differ between blocks."""
    more = [name for name in BLOCK[2:] if blocks[name].nunique() > 1]
    columns = blocks[["dataset", "model", *more]].astype(str)
    return [" ".join(filter(None, line)) for line in columns.itertuples(index=False)]
