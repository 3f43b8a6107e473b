"""Formatted tables of a report: leaderboard, differences, ranks, missing cells."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unlearnbench.config.arguments import override_words
from unlearnbench.report.analysis import compare, missing, ranking, statistics
from unlearnbench.report.analysis.columns import ALIKE, ATTACKED, CONTROLS, USES_VAL
from unlearnbench.report.analysis.columns import COLUMNS as METRIC_COLUMNS
from unlearnbench.report.analysis.compare import BLOCK, LINE, SETTING
from unlearnbench.report.tables import leaderboard
from unlearnbench.report.tables.text import Section

COLUMNS = {
    **METRIC_COLUMNS,
    "tow": ("ToW ↑", 1, 3),
    "tow_mia": ("ToW-MIA ↑", 1, 3),
    "js_retain": ("JS R ↓", 1, 4),
    "js_forget": ("JS F ↓", 1, 4),
    "js_test": ("JS T ↓", 1, 4),
    "zrf": ("ZRF", 1, 3),
    "weight_distance": ("weights", 1, 3),
    "relearn_ratio": ("relearn →1", 1, 2),
    "klom_retrain_unlearned_forget_p95": ("KLOM F", 1, 3),
    "rte_prepared": ("RTE with preparing ↑", 1, 1),
    "peak_bytes": ("peak MB", 1e-6, 0),
    "prepared_bytes": ("stored MB", 1e-6, 1),
}
"""Metric → (heading, factor of the unit shown, decimal places)."""

OF_THE_MODEL = (*ATTACKED, "zrf", "weight_distance", "relearn", "klom")

ORDER = ["retain_acc", "forget_acc", "val_acc", "test_acc", "ret_dev", "tow", "tow_mia"]
ORDER += ["js_retain", "js_forget", "js_test"]
ORDER += [name for name in COLUMNS if name not in ORDER]

MARKS = {
    compare.DIFFERS: "≠",
    compare.WITHIN: "~",
    compare.ALONE: "°",
    compare.ALIKE: ALIKE,
    compare.UNTESTED: "?",
}
"""Verdict on a difference to retraining → its mark."""

INCOMPLETE = "*"
"""Marks a line over fewer seeds than its block has."""


def sections(rows: pd.DataFrame, value_rows: pd.DataFrame, numbers: pd.DataFrame) -> list[Section]:
    """All tables of a report.

    Args:
        rows: result rows as ``compare.runs`` returns them.
        value_rows: their ``compare.values``.
        numbers: their ``compare.compared``.
    """
    looks, each = looking(rows), list(_settings(rows, numbers))
    return [
        Section("Leaderboard", _leaderboard_notes(looks), list(_leaderboards(each, looks))),
        Section(
            "Differences to retraining",
            _difference_notes(numbers, looks),
            list(_differences(each, looks)),
        ),
        *_rank_sections(rows, value_rows),
        Section("What is not there", [], list(_missing(rows))),
    ]


# ---------------------------------------------------------------------------------------------
# Lines of a table: controls first, then by RetDev, each with its marks.

Record = dict[str, Any]
"""A row of ``compare.compared`` as a mapping."""

NEEDED = ["method", "own", "metric", "attack", "seeds", "mean", "half", "pairs", "gap", "t_low"]
NEEDED += ["t_high", "verdict", "floor", "detectable"]


@dataclass
class _Table:
    """One setting: its title, the number of seeds of its block, and records by line and metric.

    A line is a method and its overrides; lines without records are included.
    """

    title: str
    defended: bool
    asked: int
    lines: dict[tuple[str, str], dict[str, Record]]

    def shown(self, names: Sequence[str]) -> list[str]:
        """The available metrics among ``names``; with a defense, those in ``OF_THE_MODEL`` only."""
        available = {name for line in self.lines.values() for name in line}
        return [
            name
            for name in names
            if name in available and (not self.defended or name.startswith(OF_THE_MODEL))
        ]


def _settings(rows: pd.DataFrame, numbers: pd.DataFrame) -> Iterator[_Table]:
    """Table of each setting; a table without a defense also has the utility of its models.

    A block whose attacks have one setup each has one table without a defense; attacks with several
    setups have one table per setup.
    """
    titles = _titles(rows)
    lines_of = _names(rows)
    n_seeds = dict(
        zip(numbers[BLOCK].itertuples(index=False, name=None), numbers["asked"], strict=True)
    )
    by_setting: dict[tuple[str, ...], dict[tuple[str, str], dict[str, Record]]] = {}
    shown = numbers[numbers["metric"].isin(COLUMNS)]
    records = [dict(zip(NEEDED, row, strict=True)) for row in shown[NEEDED].itertuples(index=False)]
    places = shown[SETTING].itertuples(index=False, name=None)
    for setting, record in zip(places, records, strict=True):
        line = record["method"], record["own"]
        by_setting.setdefault(setting, {}).setdefault(line, {})[record["metric"]] = record
    for setting in sorted(by_setting, key=_place):
        block, defense = setting[: len(BLOCK)], setting[len(BLOCK)]
        bare = (*block, "none", "")
        if setting == bare and _is_bare(by_setting[bare]) and _has_variants(by_setting, block):
            continue  # each of the variants contains it
        lines: dict[tuple[str, str], dict[str, Record]] = {line: {} for line in lines_of[block]}
        for source in [bare, setting] if defense == "none" else [setting]:
            for line, line_records in by_setting.get(source, {}).items():
                lines[line] = {**lines[line], **line_records}
        deviation = {line: _deviation(by_setting.get(bare, {}).get(line, {})) for line in lines}
        ordered = {
            line: lines[line]
            for line in sorted(lines, key=lambda x: (_order(x[0]), deviation[x], x))
        }
        yield _Table(titles[setting], defense != "none", int(n_seeds[block]), ordered)


def _is_bare(lines: Mapping[tuple[str, str], Mapping[str, Record]]) -> bool:
    """Whether no record is of an attack."""
    return all(record["attack"] == "none" for line in lines.values() for record in line.values())


def _has_variants(settings: Iterable[tuple[str, ...]], block: tuple[str, ...]) -> bool:
    return any(
        setting[: len(BLOCK)] == block and setting[-2] == "none" and setting[-1]
        for setting in settings
    )


def _titles(rows: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Title of each setting."""
    columns = [*SETTING, "attack", "shield", "asked"]
    attacks: dict[tuple[str, ...], dict[str, None]] = {}
    overrides: dict[tuple[str, ...], dict[str, None]] = {}
    each = rows.drop_duplicates(columns)[columns]
    for *place, attack, shield, attack_overrides in each.itertuples(index=False):
        setting = tuple(map(str, place))
        attacks.setdefault(setting, {})
        both = (*override_words(str(shield)), *override_words(str(attack_overrides)))
        overrides.setdefault(setting, {}).update(dict.fromkeys(both))
        if attack != "none":
            attacks[setting][str(attack)] = None
    return {
        setting: leaderboard.title(
            {
                **dict(zip(SETTING, setting, strict=True)),
                "attacks": ", ".join(sorted(attacks[setting])),
                "asked": " ".join(overrides[setting]),
            }
        )
        for setting in attacks
    }


def _place(setting: tuple[str, ...]) -> list[str]:
    return ["" if name == "none" else str(name) for name in setting]


def _names(rows: pd.DataFrame) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Lines of each block, including lines without records."""
    lines = rows.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    lines_of: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for *block, method, own in lines.itertuples(index=False):
        lines_of.setdefault(tuple(block), []).append((str(method), str(own)))
    return lines_of


def _deviation(records: Mapping[str, Record]) -> float:
    mean = records.get("ret_dev", {}).get("mean", float("inf"))
    return float("inf") if np.isnan(mean) else float(mean)


def _order(method: str) -> int:
    return CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)


def _named(line: tuple[str, str], looks: Collection[str], complete: bool) -> str:
    """A method with its marks and its overrides."""
    method, own = line
    marks = (USES_VAL if method in looks else "") + ("" if complete else INCOMPLETE)
    return f"{method}{marks} {own}".strip()


def looking(rows: pd.DataFrame) -> set[str]:
    """Methods that use validation rows."""
    about = rows[["method", "traits"]].drop_duplicates()
    uses_val = about["traits"].fillna("").str.contains(r"\buses_val\b")
    return set(about.loc[uses_val, "method"])


# ---------------------------------------------------------------------------------------------
# The leaderboard.


def _leaderboards(
    each: Iterable[_Table], looks: Collection[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    for table in each:
        shown = table.shown(ORDER)
        if not shown:
            continue
        lines = []
        for line, records in table.lines.items():
            counts = {name: records[name]["seeds"] for name in shown if name in records}
            works = max(counts.values(), default=0)
            cells = {"method": _named(line, looks, works == table.asked)}
            for name, count in counts.items():
                record, mark = records[name], "" if count == works else f" ({count})"
                cells[COLUMNS[name][0]] = written(name, record["mean"], record["half"]) + mark
            lines.append({**cells, "n": _of(works, table.asked)})
        columns = ["method", *(COLUMNS[name][0] for name in shown), "n"]
        yield table.title, pd.DataFrame(lines, columns=columns)


def _of(works: int, total: int) -> str:
    return f"{works}" if works == total else f"{works} of {total}"


def written(name: str, mean: float, half: float, sign: str = "") -> str:
    """Format the mean of a metric and half of its interval, in the unit shown."""
    _, unit, places = COLUMNS[name]
    spread = f" ± {half * unit:.{places}f}" if np.isfinite(half) else ""
    return f"{mean * unit:{sign}.{places}f}{spread}"


def _leaderboard_notes(looks: Collection[str]) -> list[str]:
    note = "Mean ± half of the 95 % interval by Student's t over n seeds, or over (k) of them; one "
    note += "seed has no interval. Controls first, then by RetDev. "
    return [note + _mark_note(looks)]


def _mark_note(looks: Collection[str]) -> str:
    """Explanation of the marks next to method names."""
    note = f"{INCOMPLETE}: fewer seeds than asked."
    return f"{note} {USES_VAL}: looks at validation rows." if looks else note


# ---------------------------------------------------------------------------------------------
# Differences to retraining.


def _differences(
    each: Iterable[_Table], looks: Collection[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    for table in each:
        shown = table.shown([name for name in ORDER if name in compare.COMPARED])
        lines: list[dict[str, str]] = []
        for line, every in table.lines.items():
            if line[0] in ("retrain", "second_retrain"):
                continue
            records = {name: record for name, record in every.items() if record["pairs"]}
            counts = {name: records[name]["pairs"] for name in shown if name in records}
            works = max(counts.values(), default=0)
            cells = {"method": _named(line, looks, works == table.asked)}
            for name, count in counts.items():
                few = "" if count == works else f" ({count})"
                cells[COLUMNS[name][0]] = _difference(records[name]) + few
            lines.append({**cells, "pairs": _of(works, table.asked)})
        if not any("pairs" in line and not line["pairs"].startswith("0") for line in lines):
            continue
        lines += [_power(table, shown, name, key) for name, key in POWERS.items()]
        columns = ["method", *(COLUMNS[name][0] for name in shown), "pairs"]
        yield table.title, pd.DataFrame(lines, columns=columns)


def _difference(record: Record) -> str:
    half = (record["t_high"] - record["t_low"]) / 2
    return written(record["metric"], record["gap"], half, "+") + MARKS.get(record["verdict"], "")


def _power(table: _Table, shown: Sequence[str], name: str, key: str) -> dict[str, str]:
    """A last line: the noise floor or the detectable difference of each metric."""
    cells = {}
    for metric in shown:
        values = [line[metric][key] for line in table.lines.values() if metric in line]
        finite = [value for value in values if np.isfinite(value)]
        if finite:
            cells[COLUMNS[metric][0]] = written(metric, float(np.median(finite)), np.nan)
    return {"method": name, **cells}


FLOOR, LEAST = "two retrainings differ by", "would have been found"
POWERS = {FLOOR: "floor", LEAST: "detectable"}


def _difference_notes(numbers: pd.DataFrame, looks: Collection[str]) -> list[str]:
    if not numbers["gap"].notna().any():
        return ["There is no `retrain` to compare with, seed by seed."]
    notes = [
        "Mean over seeds of the difference to `retrain` of the same seed, ± half of the 95 % "
        "interval by Student's t; `leaderboard.csv` has the bootstrap's as well, absolute gaps, p, "
        "and each line's own power.",
        "≠: differs from retraining, p < .05 by Student's t after Holm's correction for all "
        "methods in that column. ~: the same, but by no more than two retrainings do. °: p < .05 "
        f"before it alone. {ALIKE}: not told apart, which does not say that it is the same. ?: no "
        "test, for want of a second seed or of any spread.",
        f"“{FLOOR}”: root mean square over seeds of `second_retrain` − `retrain`. “{LEAST}”: the "
        "difference that a test at 5 % finds with a power of 80 % at this n, before Holm; median "
        "over the lines.",
    ]
    notes += [_mark_note(looks)]
    if (numbers["over"] == "target models").any():
        notes.append(
            "With one seed, what stands for an attack on a population is the mean over its target "
            "models of the difference that each one's own value has, which is not quite the "
            "difference of the values over all of them; intervals are over these models, and their "
            "p is by the normal law."
        )
    return notes


# ---------------------------------------------------------------------------------------------
# Ranks.


def _rank_sections(rows: pd.DataFrame, value_rows: pd.DataFrame) -> Iterator[Section]:
    made = []
    notes: list[str] = []
    for name, sign in ranking.RANKED.items():
        table, test = ranking.ranked(rows, value_rows, name)
        if len(table) < 2:
            continue
        heading = COLUMNS[name][0] if name in COLUMNS else name
        heading = f"by {heading.rstrip(' ↑↓')}, {'lower' if sign > 0 else 'higher'} is better"
        made.append((heading, _rank_table(table)))
        notes.append(f"{heading}: {friedman_says(test, int(table['blocks'].max()))}")
    if not made:
        return
    about = (
        "Rank of the mean over seeds in each block (data set, model and task), ties sharing the "
        "better rank; mean rank with its 95 % interval, a bootstrap over seeds; in how many blocks "
        "a method is among the first 1, 3 and 5. F: a seed failed, so it is last there. "
        f"{INCOMPLETE}: over fewer seeds or blocks. The aggregation is ours."
    )
    best = (
        "“like the best”: blocks in which the method cannot be told from the first one, seed by "
        "seed (Student's t, Holm); the first is chosen on the same seeds. ?: one seed only."
    )
    yield Section("Ranks", [about, best, *notes], made)


def _rank_table(table: pd.DataFrame) -> pd.DataFrame:
    columns = [str(name) for name in table.columns]
    blocks = columns[columns.index("incomplete") + 1 :]
    lines = []
    for record in table.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        name = f"{row['method']} {row['own']}".strip()
        has_interval = np.isfinite(row["low"])
        complete = not row["incomplete"] and row["blocks"] == len(blocks)
        line = {
            "method": name if complete else f"{name}{INCOMPLETE}",
            "mean rank": f"{row['mean_rank']:.1f}",
            "95 %": f"{row['low']:.1f} to {row['high']:.1f}" if has_interval else None,
            **{f"top {k}": str(row[f"top_{k}"]) for k in ranking.TOP},
            "like the best": f"{row['best']} of {row['blocks']}" if has_interval else "?",
            "blocks": None if row["blocks"] == len(blocks) else f"{row['blocks']} of {len(blocks)}",
            "failed in": str(row["failed"]) if row["failed"] else None,
        }
        lines.append(line | {block: _rank(row, block) for block in blocks})
    return pd.DataFrame(lines).dropna(axis=1, how="all")


def _rank(row: Record, block: str) -> str | None:
    if np.isnan(row[block]):
        return None
    return f"{row[block]:.0f} F" if block in row["failed_in"] else f"{row[block]:.0f}"


def friedman_says(test: statistics.Friedman | None, blocks: int) -> str:
    """State the conclusion of the test of ranks over blocks."""
    if test is None:
        return "no block in which all methods have all seeds, so no test over blocks."
    if not test.can_tell:
        return (
            f"blocks that are complete: {test.blocks} of {blocks}. With {test.methods} methods "
            f"Nemenyi's critical difference is {test.critical:.1f}, and mean ranks are at most "
            f"{test.methods - 1} apart: no test over blocks could tell any two apart. “like the "
            "best” is by seed."
        )
    conclusion = (
        f"Friedman's test of {test.methods} methods over {test.blocks} of {blocks} blocks: "
        f"χ² = {test.statistic:.1f}, p = {test.p:.2g}; mean ranks that are {test.critical:.2f} "
        "apart differ at 5 % (Nemenyi)"
    )
    return f"{conclusion}." if test.p < 0.05 else f"{conclusion}, but as a whole they do not."


# ---------------------------------------------------------------------------------------------
# Missing cells.


def _missing(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    incomplete = missing.troubles(rows)
    if incomplete.empty:
        return
    blocks = incomplete.drop_duplicates(BLOCK)[BLOCK].reset_index(drop=True)
    names = dict(zip(blocks.itertuples(index=False, name=None), compare.named(blocks), strict=True))
    lines = []
    for keys, same in incomplete.groupby(
        [*BLOCK, *LINE, "status", "reason"], dropna=False, sort=True
    ):
        *block, method, own, status, reason = keys
        seeds = ", ".join(map(str, sorted(set(same["seed"]))))
        line = {"status": status, "method": f"{method} {own}".strip(), "seeds": seeds}
        lines.append({**line, "where": names[tuple(block)], "reason": str(reason)})
    yield "failed, skipped and missing", pd.DataFrame(lines)
