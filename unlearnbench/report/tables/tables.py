"""Tables for people, from those of numbers: leaderboard, differences, ranks, what is missing."""

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
"""Metric to its heading, the unit it is shown in, and its decimal places."""

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
"""What a difference to retraining is marked with."""

INCOMPLETE = "*"
"""Marks a line over fewer seeds than there are."""


def sections(rows: pd.DataFrame, found: pd.DataFrame, told: pd.DataFrame) -> list[Section]:
    """All tables of a report.

    Args:
        rows: as ``compare.runs`` gives them.
        found: their ``compare.values``.
        told: what ``compare.compared`` makes of them.
    """
    looks, each = looking(rows), list(_settings(rows, told))
    return [
        Section("Leaderboard", _leaderboard_notes(looks), list(_leaderboards(each, looks))),
        Section(
            "Differences to retraining",
            _difference_notes(told, looks),
            list(_differences(each, looks)),
        ),
        *_rank_sections(rows, found),
        Section("What is not there", [], list(_missing(rows))),
    ]


# ---------------------------------------------------------------------------------------------
# Lines of a table: controls first, then by RetDev, each with what is amiss.

Record = dict[str, Any]
"""A row of ``compare.compared`` as a mapping."""

NEEDED = ["method", "own", "metric", "attack", "seeds", "mean", "half", "pairs", "gap", "t_low"]
NEEDED += ["t_high", "verdict", "floor", "detectable"]


@dataclass
class _Table:
    """One setting: its title, how many seeds were asked for, and what there is, by line and metric.

    A line is a method and its overrides; those that gave nothing are there too.
    """

    title: str
    defended: bool
    asked: int
    lines: dict[tuple[str, str], dict[str, Record]]

    def shown(self, names: Sequence[str]) -> list[str]:
        """Which of these metrics there are; a defense changes no other than those of attacks."""
        there = {name for line in self.lines.values() for name in line}
        return [
            name
            for name in names
            if name in there and (not self.defended or name.startswith(OF_THE_MODEL))
        ]


def _settings(rows: pd.DataFrame, told: pd.DataFrame) -> Iterator[_Table]:
    """Each setting's; the utility of its models stands where there is no defense.

    A block with attacks of one setup each has one table without a defense; attacks set up in
    several ways have a table each.
    """
    titles = _titles(rows)
    known = _names(rows)
    asked = dict(zip(told[BLOCK].itertuples(index=False, name=None), told["asked"], strict=True))
    found: dict[tuple[str, ...], dict[tuple[str, str], dict[str, Record]]] = {}
    shown = told[told["metric"].isin(COLUMNS)]
    numbers = [dict(zip(NEEDED, one, strict=True)) for one in shown[NEEDED].itertuples(index=False)]
    places = shown[SETTING].itertuples(index=False, name=None)
    for setting, one in zip(places, numbers, strict=True):
        line = one["method"], one["own"]
        found.setdefault(setting, {}).setdefault(line, {})[one["metric"]] = one
    for setting in sorted(found, key=_place):
        block, defense = setting[: len(BLOCK)], setting[len(BLOCK)]
        bare = (*block, "none", "")
        if setting == bare and _is_bare(found[bare]) and _has_variants(found, block):
            continue  # it stands in each of theirs
        lines: dict[tuple[str, str], dict[str, Record]] = {line: {} for line in known[block]}
        for part in [bare, setting] if defense == "none" else [setting]:
            for line, theirs in found.get(part, {}).items():
                lines[line] = {**lines[line], **theirs}
        deviation = {line: _deviation(found.get(bare, {}).get(line, {})) for line in lines}
        ordered = {
            line: lines[line]
            for line in sorted(lines, key=lambda x: (_order(x[0]), deviation[x], x))
        }
        yield _Table(titles[setting], defense != "none", int(asked[block]), ordered)


def _is_bare(lines: Mapping[tuple[str, str], Mapping[str, Record]]) -> bool:
    """Whether there is no attack in it."""
    return all(one["attack"] == "none" for line in lines.values() for one in line.values())


def _has_variants(settings: Iterable[tuple[str, ...]], block: tuple[str, ...]) -> bool:
    return any(one[: len(BLOCK)] == block and one[-2] == "none" and one[-1] for one in settings)


def _titles(rows: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Each setting in words."""
    columns = [*SETTING, "attack", "shield", "asked"]
    attacks: dict[tuple[str, ...], dict[str, None]] = {}
    asked: dict[tuple[str, ...], dict[str, None]] = {}
    each = rows.drop_duplicates(columns)[columns]
    for *place, attack, shield, words in each.itertuples(index=False):
        setting = tuple(map(str, place))
        attacks.setdefault(setting, {})
        both = (*override_words(str(shield)), *override_words(str(words)))
        asked.setdefault(setting, {}).update(dict.fromkeys(both))
        if attack != "none":
            attacks[setting][str(attack)] = None
    return {
        setting: leaderboard.title(
            {
                **dict(zip(SETTING, setting, strict=True)),
                "attacks": ", ".join(sorted(attacks[setting])),
                "asked": " ".join(asked[setting]),
            }
        )
        for setting in attacks
    }


def _place(setting: tuple[str, ...]) -> list[str]:
    return ["" if part == "none" else str(part) for part in setting]


def _names(rows: pd.DataFrame) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """The lines of each block, those that gave nothing among them."""
    lines = rows.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for *block, method, own in lines.itertuples(index=False):
        found.setdefault(tuple(block), []).append((str(method), str(own)))
    return found


def _deviation(numbers: Mapping[str, Record]) -> float:
    found = numbers.get("ret_dev", {}).get("mean", float("inf"))
    return float("inf") if np.isnan(found) else float(found)


def _order(method: str) -> int:
    return CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)


def _named(line: tuple[str, str], looks: Collection[str], whole: bool) -> str:
    """A method, its marks and its overrides."""
    method, own = line
    marks = (USES_VAL if method in looks else "") + ("" if whole else INCOMPLETE)
    return f"{method}{marks} {own}".strip()


def looking(rows: pd.DataFrame) -> set[str]:
    """Methods that look at validation rows."""
    about = rows[["method", "traits"]].drop_duplicates()
    told = about["traits"].fillna("").str.contains(r"\buses_val\b")
    return set(about.loc[told, "method"])


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
        for line, numbers in table.lines.items():
            counts = {name: numbers[name]["seeds"] for name in shown if name in numbers}
            works = max(counts.values(), default=0)
            cells = {"method": _named(line, looks, works == table.asked)}
            for name, count in counts.items():
                one, mark = numbers[name], "" if count == works else f" ({count})"
                cells[COLUMNS[name][0]] = written(name, one["mean"], one["half"]) + mark
            lines.append({**cells, "n": _of(works, table.asked)})
        columns = ["method", *(COLUMNS[name][0] for name in shown), "n"]
        yield table.title, pd.DataFrame(lines, columns=columns)


def _of(works: int, asked: int) -> str:
    return f"{works}" if works == asked else f"{works} of {asked}"


def written(name: str, mean: float, half: float, sign: str = "") -> str:
    """A metric's mean and half of its interval, in the unit it is shown in."""
    _, unit, places = COLUMNS[name]
    spread = f" ± {half * unit:.{places}f}" if np.isfinite(half) else ""
    return f"{mean * unit:{sign}.{places}f}{spread}"


def _leaderboard_notes(looks: Collection[str]) -> list[str]:
    told = "Mean ± half of the 95 % interval by Student's t over n seeds, or over (k) of them; one "
    told += "seed has no interval. Controls first, then by RetDev. "
    return [told + _mark_note(looks)]


def _mark_note(looks: Collection[str]) -> str:
    """What stands beside the names of methods."""
    told = f"{INCOMPLETE}: fewer seeds than asked."
    return f"{told} {USES_VAL}: looks at validation rows." if looks else told


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
            numbers = {name: one for name, one in every.items() if one["pairs"]}
            counts = {name: numbers[name]["pairs"] for name in shown if name in numbers}
            works = max(counts.values(), default=0)
            cells = {"method": _named(line, looks, works == table.asked)}
            for name, count in counts.items():
                few = "" if count == works else f" ({count})"
                cells[COLUMNS[name][0]] = _difference(numbers[name]) + few
            lines.append({**cells, "pairs": _of(works, table.asked)})
        if not any("pairs" in line and not line["pairs"].startswith("0") for line in lines):
            continue
        lines += [_power(table, shown, name, what) for name, what in POWERS.items()]
        columns = ["method", *(COLUMNS[name][0] for name in shown), "pairs"]
        yield table.title, pd.DataFrame(lines, columns=columns)


def _difference(one: Record) -> str:
    half = (one["t_high"] - one["t_low"]) / 2
    return written(one["metric"], one["gap"], half, "+") + MARKS.get(one["verdict"], "")


def _power(table: _Table, shown: Sequence[str], name: str, what: str) -> dict[str, str]:
    """A last line: the floor or what is detectable, of each metric."""
    found = {}
    for metric in shown:
        given = [line[metric][what] for line in table.lines.values() if metric in line]
        known = [value for value in given if np.isfinite(value)]
        if known:
            found[COLUMNS[metric][0]] = written(metric, float(np.median(known)), np.nan)
    return {"method": name, **found}


FLOOR, LEAST = "two retrainings differ by", "would have been found"
POWERS = {FLOOR: "floor", LEAST: "detectable"}


def _difference_notes(told: pd.DataFrame, looks: Collection[str]) -> list[str]:
    if not told["gap"].notna().any():
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
    if (told["over"] == "target models").any():
        notes.append(
            "With one seed, what stands for an attack on a population is the mean over its target "
            "models of the difference that each one's own value has, which is not quite the "
            "difference of the values over all of them; intervals are over these models, and their "
            "p is by the normal law."
        )
    return notes


# ---------------------------------------------------------------------------------------------
# Ranks.


def _rank_sections(rows: pd.DataFrame, found: pd.DataFrame) -> Iterator[Section]:
    made = []
    notes: list[str] = []
    for name, sign in ranking.RANKED.items():
        table, test = ranking.ranked(rows, found, name)
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


def _rank_table(told: pd.DataFrame) -> pd.DataFrame:
    columns = [str(name) for name in told.columns]
    blocks = columns[columns.index("incomplete") + 1 :]
    lines = []
    for row in told.to_dict("records"):
        one = {str(name): value for name, value in row.items()}
        name = f"{one['method']} {one['own']}".strip()
        known = np.isfinite(one["low"])
        whole = not one["incomplete"] and one["blocks"] == len(blocks)
        line = {
            "method": name if whole else f"{name}{INCOMPLETE}",
            "mean rank": f"{one['mean_rank']:.1f}",
            "95 %": f"{one['low']:.1f} to {one['high']:.1f}" if known else None,
            **{f"top {k}": str(one[f"top_{k}"]) for k in ranking.TOP},
            "like the best": f"{one['best']} of {one['blocks']}" if known else "?",
            "blocks": None if one["blocks"] == len(blocks) else f"{one['blocks']} of {len(blocks)}",
            "failed in": str(one["failed"]) if one["failed"] else None,
        }
        lines.append(line | {block: _rank(one, block) for block in blocks})
    return pd.DataFrame(lines).dropna(axis=1, how="all")


def _rank(one: Record, block: str) -> str | None:
    if np.isnan(one[block]):
        return None
    return f"{one[block]:.0f} F" if block in one["failed_in"] else f"{one[block]:.0f}"


def friedman_says(test: statistics.Friedman | None, blocks: int) -> str:
    """What may be concluded from ranks over blocks, in words."""
    if test is None:
        return "no block in which all methods have all seeds, so no test over blocks."
    if not test.can_tell:
        return (
            f"blocks that are complete: {test.blocks} of {blocks}. With {test.methods} methods "
            f"Nemenyi's critical difference is {test.critical:.1f}, and mean ranks are at most "
            f"{test.methods - 1} apart: no test over blocks could tell any two apart. “like the "
            "best” is by seed."
        )
    told = (
        f"Friedman's test of {test.methods} methods over {test.blocks} of {blocks} blocks: "
        f"χ² = {test.statistic:.1f}, p = {test.p:.2g}; mean ranks that are {test.critical:.2f} "
        "apart differ at 5 % (Nemenyi)"
    )
    return f"{told}." if test.p < 0.05 else f"{told}, but as a whole they do not."


# ---------------------------------------------------------------------------------------------
# What is not there.


def _missing(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    found = missing.troubles(rows)
    if found.empty:
        return
    blocks = found.drop_duplicates(BLOCK)[BLOCK].reset_index(drop=True)
    names = dict(zip(blocks.itertuples(index=False, name=None), compare.named(blocks), strict=True))
    lines = []
    for keys, same in found.groupby([*BLOCK, *LINE, "status", "reason"], dropna=False, sort=True):
        *block, method, own, status, reason = keys
        seeds = ", ".join(map(str, sorted(set(same["seed"]))))
        line = {"status": status, "method": f"{method} {own}".strip(), "seeds": seeds}
        lines.append({**line, "where": names[tuple(block)], "reason": str(reason)})
    yield "failed, skipped and missing", pd.DataFrame(lines)
