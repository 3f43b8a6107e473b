"""The leaderboard: mean ± interval over seeds, with n, controls first."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from unlearnbench.config.arguments import override_words
from unlearnbench.metric import utility
from unlearnbench.report.analysis import compare, statistics
from unlearnbench.report.analysis.columns import ALIKE, ATTACKED, COLUMNS, CONTROLS, USES_VAL
from unlearnbench.report.tables.text import markdown_table, markdown_text


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half of its 95 % t-interval; the half is NaN below two values."""
    given = np.asarray(values, np.float64)[None]
    there = np.where(np.isfinite(given), given, np.nan)
    return float(statistics.mean(there)[0]), float(statistics.t_half(there)[0])


def tables(wide: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """One table for each setting and defense, all attacks in it: its title, and its lines.

    Args:
        wide: one row a cell, as ``load_results(wide=True)`` gives it.

    Yields:
        title and frame: one line a method, controls first and the others by RetDev; one column a
        metric with ``mean ± interval``, and ``n``, the number of seeds that gave values, with
        the number asked for where some are missing. A mean over fewer than ``n`` says so.
    """
    for setting, cells in _settings(wide):
        if cells["forget_hash"].isna().all():
            continue  # cells that failed before there was a forget set; they are told beside
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
            by_seed = runs.groupby("seed")[shown].first()  # a seed's attacks are cells of their own
            means = {name: interval(by_seed[name].tolist()) for name in shown}
            counts = {name: int(np.isfinite(by_seed[name]).sum()) for name in shown}
            works = max(counts.values(), default=0)
            told = set(alike(cells, runs))
            for name, mean in means.items():
                mark = ALIKE if name in told else ""
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
    """Cells by setting, with ``attacks`` in words; an attack set up in two ways is two settings."""
    wide = _placed(wide)
    wide["variant"] = compare.variants(wide)
    wide = compare.without_mixed(wide)
    groups = sorted(wide.groupby(compare.SETTING, dropna=False), key=lambda group: _order(group[0]))
    for setting, cells in groups:
        told = dict(zip(compare.SETTING, map(str, setting), strict=True))
        told["attacks"] = ", ".join(sorted(set(cells["attack"]) - {"none"}))
        texts = (*cells["shield"].unique(), *cells["asked"].unique())
        told["asked"] = " ".join(dict.fromkeys(w for one in texts for w in override_words(one)))
        yield told, cells


def _placed(wide: pd.DataFrame) -> pd.DataFrame:
    wide = compare.split_words(wide)
    return wide.assign(forget_hash=compare.forget_sets(wide))


def _order(setting: tuple[object, ...]) -> list[str]:
    """By name, what is undefended first."""
    return ["" if part == "none" else str(part) for part in setting]


def alike(cells: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """The AUC of a method that cannot be told from retraining's at this power.

    Its gap to retraining is smaller than the noise floor, the gap of a second retrain; or zero lies
    in the gap's 95 % interval: with S seeds, whose intervals are ± h_s, mean ± √(Σ h_s²) / S.

    Args:
        cells: of one table, for the second retrain among them.
        runs: of one method in it.
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
    """Mean over seeds of an AUC's gap to retraining, and half of its interval; NaN for none."""
    known = runs[np.isfinite(runs[f"{name}_gap"])]
    if known.empty:
        return float("nan"), float("nan")
    if f"{name}_gap_high" not in known:  # too few target models for an interval
        return float(known[f"{name}_gap"].mean()), float("nan")
    half = (known[f"{name}_gap_high"] - known[f"{name}_gap_low"]) / 2
    return float(known[f"{name}_gap"].mean()), float(np.sqrt((half**2).sum()) / len(known))


def _uses_val(cells: pd.DataFrame) -> bool:
    return bool(cells["traits"].fillna("").str.contains(r"\buses_val\b").any())


def note(wide: pd.DataFrame) -> str | None:
    """What the marks in the tables mean; None where there are none."""
    told = [f"{USES_VAL} looks at validation rows"] if _uses_val(wide) else []
    powers = []
    for name in COLUMNS:
        if f"{name}_detectable" in wide and (wide[f"{name}_detectable"] > 0).any():
            seeds = wide.loc[wide[f"{name}_detectable"].notna(), "seed"].nunique()
            least = wide.loc[wide[f"{name}_detectable"] > 0, f"{name}_detectable"].median()
            powers.append(f"{COLUMNS[name][0]} {least / np.sqrt(seeds):.3f}")
    if powers:
        told.append(
            f"{ALIKE} not distinguishable from retraining at this power; a gap that would be found"
            f" in 4 of 5 runs: {', '.join(powers)}"
        )
    if len(compare.mixed(_placed(wide))):
        told.append("costs of tasks that were measured on several devices are left out")
    return "; ".join([*told, *outliers(wide)]) or None


def outliers(wide: pd.DataFrame) -> list[str]:
    """Trainings that went wrong, in words: among the seeds of a control, and in populations.

    Args:
        wide: one row a cell.
    """
    found = []
    for setting, cells in _settings(wide) if "test_acc" in wide else ():
        for control in CONTROLS[:2]:
            by_seed = cells[cells["method"] == control].groupby("seed")["test_acc"].first().dropna()
            for seed, accuracy in by_seed[utility.low_outliers(by_seed.to_numpy())].items():
                found.append(
                    f"outlier: {control} of seed {seed} has test accuracy {accuracy:.1%}, the"
                    f" median over seeds is {by_seed.median():.1%} ({title(setting)})"
                )
    nouns = {"shadow_models": "shadow models", "request_pairs": "originals of request pairs"}
    for name, noun in nouns.items():
        if f"{name}_outliers" not in wide:
            continue
        figures = [f"{name}_{what}" for what in ("outliers", "acc_min", "acc_median")]
        wrong = wide.loc[wide[figures[0]] > 0, figures].drop_duplicates()
        for count, lowest, median in wrong.itertuples(index=False):
            found.append(
                f"outlier: {count:.0f} of the {noun} went wrong: the lowest accuracy"
                f" on unseen records is {lowest:.1%}, the median {median:.1%}"
            )
    return found


def title(setting: dict[str, str]) -> str:
    """The setting in words."""
    parts = [f"{axis} {setting[axis]}" for axis in ("dataset", "model", "train", "forget")]
    if setting["defense"] != "none":
        parts.append(f"defense {setting['defense']}")
    if setting["attacks"]:
        parts.append(f"attack {setting['attacks']}")
    return " · ".join(
        [*parts, *override_words(setting["setup"]), *override_words(setting["asked"])]
    )


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
        parts.append(f"### {markdown_text(heading)}\n\n{markdown_table(table)}")
    told = (
        "Mean ± half of the 95 % t-interval over n seeds, or over (k) of them. "
        "Controls first, then by RetDev."
    )
    marks = note(wide)
    return "\n\n".join([*parts, f"{told} {marks}." if marks else told]) + "\n"
