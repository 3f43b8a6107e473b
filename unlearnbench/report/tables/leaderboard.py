"""The leaderboard: mean ± half of the interval over seeds, with n, controls first."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from unlearnbench.config.arguments import override_words
from unlearnbench.metric import utility
from unlearnbench.report.analysis import compare, statistics
from unlearnbench.report.analysis.columns import ALIKE, ATTACKED, COLUMNS, CONTROLS, USES_VAL
from unlearnbench.report.tables.text import markdown_table, markdown_text


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half of its 95 % t-interval; the half is NaN below two finite values."""
    inputs = np.asarray(values, np.float64)[None]
    finite = np.where(np.isfinite(inputs), inputs, np.nan)
    return float(statistics.mean(finite)[0]), float(statistics.t_half(finite)[0])


def tables(wide: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """One table for each setting and defense, with the metrics of all attacks.

    Args:
        wide: one row per cell, as ``load_results(wide=True)`` returns it.

    Yields:
        title and frame: one line per method, controls first and the others by RetDev; one column
        per metric with ``mean ± interval``, and ``n``, the number of seeds with values, followed by
        the number of seeds in the setting if some are missing. A mean over fewer than ``n`` seeds
        has their number in parentheses.
    """
    for setting, cells in _settings(wide):
        if cells["forget_hash"].isna().all():
            continue  # cells that failed before the forget set was drawn; listed elsewhere
        shown = [
            name
            for name in COLUMNS
            if name in wide and (setting["defense"] == "none" or name.startswith(ATTACKED))
        ]
        seeds = cells["seed"].nunique()
        lines = []
        for (method, own), runs in cells.groupby(compare.LINE, dropna=False):
            marked = f"{method}{USES_VAL}" if _uses_val(runs) else str(method)
            line: dict[str, str | None] = {"method": f"{marked} {own}".strip()}
            by_seed = runs.groupby("seed")[shown].first()  # each attack of a seed is one cell
            means = {name: interval(by_seed[name].tolist()) for name in shown}
            counts = {name: int(np.isfinite(by_seed[name]).sum()) for name in shown}
            works = max(counts.values(), default=0)
            alike_names = set(alike(cells, runs))
            for name, mean in means.items():
                mark = ALIKE if name in alike_names else ""
                mark += "" if works == counts[name] else f" ({counts[name]})"
                line[COLUMNS[name][0]] = written(name, *mean, mark)
            line["n"] = f"{works}" if works == seeds else f"{works} of {seeds}"
            name = str(method)
            order = CONTROLS.index(name) if name in CONTROLS else len(CONTROLS)
            deviation = runs["ret_dev"].tolist() if "ret_dev" in runs else [0.0]
            lines.append((order, interval(deviation)[0], name, line))
        lines.sort(key=lambda line: (line[0], np.nan_to_num(line[1], nan=np.inf), line[2]))
        yield title(setting), pd.DataFrame([line for *_, line in lines]).dropna(axis=1, how="all")


def _settings(wide: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Cells by setting, with attack names; an attack with two setups gives two settings."""
    wide = _placed(wide)
    wide["variant"] = compare.variants(wide)
    wide = compare.without_mixed(wide)
    groups = sorted(wide.groupby(compare.SETTING, dropna=False), key=lambda group: _order(group[0]))
    for setting, cells in groups:
        labels = dict(zip(compare.SETTING, map(str, setting), strict=True))
        labels["attacks"] = ", ".join(sorted(set(cells["attack"]) - {"none"}))
        texts = (*cells["shield"].unique(), *cells["asked"].unique())
        labels["asked"] = " ".join(
            dict.fromkeys(override for text in texts for override in override_words(text))
        )
        yield labels, cells


def _placed(wide: pd.DataFrame) -> pd.DataFrame:
    wide = compare.split_words(wide)
    return wide.assign(forget_hash=compare.forget_sets(wide))


def _order(setting: tuple[object, ...]) -> list[str]:
    """Sort key of a setting: by name, settings without a defense first."""
    return ["" if name == "none" else str(name) for name in setting]


def alike(cells: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """Names of AUC metrics of a method that are not distinguishable from those of retraining.

    Either the gap to retraining is at most the noise floor, the gap of a second retrain, or zero
    lies in the 95 % interval of the gap: mean ± √(Σ h_s²) / S for S seeds with intervals ± h_s.

    Args:
        cells: cells of one table, including those of the second retrain.
        runs: cells of one method in the table.
    """
    if set(runs["method"]) & {"retrain", "second_retrain"}:
        return
    for name in COLUMNS:
        if f"{name}_gap" not in runs or not np.isfinite(runs[f"{name}_gap"]).any():
            continue
        gap, half = _gap(runs, name)
        floor, _ = _gap(cells[cells["method"] == "second_retrain"], name)
        if abs(gap) <= half or abs(gap) <= abs(floor):
            yield name


def _gap(runs: pd.DataFrame, name: str) -> tuple[float, float]:
    """Mean over seeds of an AUC's gap to retraining and half of its interval; NaN without any."""
    finite = runs[np.isfinite(runs[f"{name}_gap"])]
    if finite.empty:
        return float("nan"), float("nan")
    if f"{name}_gap_high" not in finite:  # too few target models for an interval
        return float(finite[f"{name}_gap"].mean()), float("nan")
    half = (finite[f"{name}_gap_high"] - finite[f"{name}_gap_low"]) / 2
    total = (half**2).sum(skipna=False)  # without one seed's interval there is none of the mean
    return float(finite[f"{name}_gap"].mean()), float(np.sqrt(total) / len(finite))


def _uses_val(cells: pd.DataFrame) -> bool:
    return bool(cells["traits"].fillna("").str.contains(r"\buses_val\b").any())


def note(wide: pd.DataFrame) -> str | None:
    """Explanation of the marks in the tables; None if there are none."""
    notes = [f"{USES_VAL} looks at validation rows"] if _uses_val(wide) else []
    powers = []
    for name in COLUMNS:
        if f"{name}_detectable" in wide and (wide[f"{name}_detectable"] > 0).any():
            seeds = wide.loc[wide[f"{name}_detectable"].notna(), "seed"].nunique()
            least = wide.loc[wide[f"{name}_detectable"] > 0, f"{name}_detectable"].median()
            powers.append(f"{COLUMNS[name][0]} {least / np.sqrt(seeds):.3f}")
    if powers:
        notes.append(
            f"{ALIKE} not distinguishable from retraining at this power; a gap that would be found"
            f" in 4 of 5 runs: {', '.join(powers)}"
        )
    if len(compare.mixed(_placed(wide))):
        notes.append("costs of tasks that were measured on several devices are left out")
    return "; ".join([*notes, *outliers(wide)]) or None


def outliers(wide: pd.DataFrame) -> list[str]:
    """Messages on outliers in accuracy: among the seeds of a control, and among several models.

    Args:
        wide: one row per cell.
    """
    messages = []
    for setting, cells in _settings(wide) if "test_acc" in wide else ():
        for control in CONTROLS[:2]:
            by_seed = cells[cells["method"] == control].groupby("seed")["test_acc"].first().dropna()
            for seed, accuracy in by_seed[utility.low_outliers(by_seed.to_numpy())].items():
                messages.append(
                    f"outlier: {control} of seed {seed} has test accuracy {accuracy:.1%}, the"
                    f" median over seeds is {by_seed.median():.1%} ({title(setting)})"
                )
    nouns = {"shadow_models": "shadow models", "request_pairs": "originals of request pairs"}
    for name, noun in nouns.items():
        if f"{name}_outliers" not in wide:
            continue
        figures = [f"{name}_{statistic}" for statistic in ("outliers", "acc_min", "acc_median")]
        wrong = wide.loc[wide[figures[0]] > 0, figures].drop_duplicates()
        for count, lowest, median in wrong.itertuples(index=False):
            messages.append(
                f"outlier: {count:.0f} of the {noun} went wrong: the lowest accuracy"
                f" on unseen records is {lowest:.1%}, the median {median:.1%}"
            )
    return messages


def title(setting: dict[str, str]) -> str:
    """Title of a setting."""
    parts = [f"{axis} {setting[axis]}" for axis in ("dataset", "model", "train", "forget")]
    if setting["defense"] != "none":
        parts.append(f"defense {setting['defense']}")
    if setting["attacks"]:
        parts.append(f"attack {setting['attacks']}")
    return " · ".join(
        [*parts, *override_words(setting["setup"]), *override_words(setting["asked"])]
    )


def written(metric: str, mean: float, half: float, mark: str = "") -> str | None:
    """Format the mean and interval of a metric for a table; None if the mean is not finite."""
    if not np.isfinite(mean):
        return None
    _, unit, places = COLUMNS[metric]
    spread = f" ± {half * unit:.{places}f}" if np.isfinite(half) else ""
    return f"{mean * unit:.{places}f}{spread}{mark}"


def markdown(wide: pd.DataFrame) -> str:
    """All tables as Markdown."""
    parts = []
    for heading, table in tables(wide):
        parts.append(f"### {markdown_text(heading)}\n\n{markdown_table(table)}")
    caption = (
        "Mean ± half of the 95 % t-interval over n seeds, or over (k) of them. "
        "Controls first, then by RetDev."
    )
    marks = note(wide)
    return "\n\n".join([*parts, f"{caption} {marks}." if marks else caption]) + "\n"
