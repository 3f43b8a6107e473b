"""Tables for people, from those of numbers: the leaderboard, differences, ranks, what is missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unlearnbench.report import compare, leaderboard, statistics
from unlearnbench.report.compare import BLOCK, LINE, SETTING
from unlearnbench.report.leaderboard import ALIKE, ATTACKED, CONTROLS, USES_VAL

COLUMNS = {
    **leaderboard.COLUMNS,
    "tow": ("ToW ↑", 1, 3),
    "tow_mia": ("ToW-MIA ↑", 1, 3),
    "js_retain": ("JS R ↓", 1, 4),
    "js_forget": ("JS F ↓", 1, 4),
    "js_test": ("JS T ↓", 1, 4),
    "zrf": ("ZRF", 1, 3),
    "weight_distance": ("weights", 1, 3),
    "relearn_steps": ("relearn", 1, 1),
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

MARKS = {compare.ALIKE: ALIKE, compare.ALONE: "°", compare.WITHIN: "~", compare.UNTESTED: "?"}
"""What a difference that is no clear one is marked with."""

INCOMPLETE = "*"
"""Marks a line over fewer seeds than there are."""


@dataclass(frozen=True)
class Section:
    """Some tables under a heading, and what is to be said of them."""

    heading: str
    notes: Sequence[str]
    tables: Sequence[tuple[str, pd.DataFrame]]


def sections(rows: pd.DataFrame, told: pd.DataFrame) -> list[Section]:
    """All tables of a report.

    Args:
        rows: as ``compare.runs`` gives them.
        told: what ``compare.compared`` makes of them.
    """
    return [
        Section("Leaderboard", [_leaderboard_note(rows)], list(_leaderboards(rows, told))),
        Section(
            "Differences to retraining", _difference_notes(told), list(_differences(rows, told))
        ),
        *_rank_sections(rows),
        Section("What is not there", [], list(_missing(rows))),
    ]


# ---------------------------------------------------------------------------------------------
# Lines of a table: controls first, then by RetDev, each with what is amiss.


def _titles(rows: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Each setting in words."""
    alone = rows[rows["attack"] != "none"]
    groups = alone.groupby(SETTING, sort=False, dropna=False)
    attacks = groups["attack"].agg(lambda names: ", ".join(sorted(set(names))))
    asked = groups["asked"].agg(
        lambda words: " ".join(dict.fromkeys(" ".join(words.unique()).split()))
    )
    titles = {}
    for setting in dict.fromkeys([*attacks.index, *_bare(rows)]):
        words = dict(zip(SETTING, map(str, setting), strict=True))
        words |= {"attacks": attacks.get(setting, ""), "asked": asked.get(setting, "")}
        titles[setting] = leaderboard.title(words)
    return titles


def _bare(rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Settings of the utility alone."""
    for block in rows.drop_duplicates(BLOCK)[BLOCK].itertuples(index=False):
        yield (*block, "none", "")


def _settings(rows: pd.DataFrame, told: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Title, defense and the numbers of each table; utility stands where there is no defense.

    A block whose attacks all have variants has no table without one.
    """
    titles = _titles(rows)
    by_setting = dict(list(told.groupby(SETTING, sort=True, dropna=False)))
    blocks: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for setting in by_setting:
        blocks.setdefault(setting[: len(BLOCK)], []).append(setting)
    for block, theirs in blocks.items():
        bare = (*block, "none", "")
        utility = by_setting.get(bare)
        attacked = [s for s in theirs if s != bare]
        plain = [s for s in attacked if s[-2] == "none"]
        alone = utility is not None and (utility["attack"] != "none").any()
        for setting in sorted({*attacked, *([bare] if alone or not plain else [])}, key=_place):
            numbers = by_setting.get(setting)
            if setting != bare and setting[-2] == "none" and utility is not None:
                numbers = pd.concat([utility, numbers])
            if numbers is not None:
                yield titles.get(setting, ""), str(setting[-2]), numbers


def _place(setting: tuple[str, ...]) -> list[str]:
    return ["" if part == "none" else str(part) for part in setting]


def _by_line(rows: pd.DataFrame, told: pd.DataFrame) -> dict[tuple[str, ...], tuple[float, str]]:
    """RetDev and name of each line of each block, by block, method and overrides."""
    deviation = told[told["metric"] == "ret_dev"].set_index([*BLOCK, *LINE])["mean"].to_dict()
    uses_val = rows["traits"].fillna("").str.contains(r"\buses_val\b")
    marked = set(rows.loc[uses_val, "method"])
    lines = rows.drop_duplicates([*BLOCK, *LINE])[[*BLOCK, *LINE]]
    found = {}
    for line in lines.itertuples(index=False, name=None):
        method, own = line[-2:]
        name = f"{method}{USES_VAL if method in marked else ''} {own}".strip()
        found[line] = deviation.get(line, np.nan), name
    return found


def _order(method: str, deviation: float, name: str) -> tuple[int, float, str]:
    place = CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)
    return place, np.inf if np.isnan(deviation) else deviation, name


def _lines(
    numbers: pd.DataFrame, known: Mapping[tuple[str, ...], tuple[float, str]]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Method, name and numbers of each line of one table, those that gave none among them."""
    block = tuple(numbers.iloc[0][BLOCK])
    groups = dict(list(numbers.groupby(LINE, sort=False, dropna=False)))
    lines = [(*line[-2:], *told) for line, told in known.items() if line[:-2] == block]
    for method, own, _, name in sorted(lines, key=lambda x: _order(x[0], x[2], x[3])):
        yield method, name, groups.get((method, own), numbers.iloc[:0])


# ---------------------------------------------------------------------------------------------
# The leaderboard.


def _leaderboards(rows: pd.DataFrame, told: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    known = _by_line(rows, told)
    for heading, defense, numbers in _settings(rows, told):
        shown = [
            name
            for name in ORDER
            if (numbers["metric"] == name).any()
            and (defense == "none" or name.startswith(OF_THE_MODEL))
        ]
        if not shown:
            continue
        asked = int(numbers["asked"].max())
        lines = []
        for _, name, own in _lines(numbers[numbers["metric"].isin(shown)], known):
            works = int(own["seeds"].max()) if len(own) else 0
            line = {"method": f"{name}{INCOMPLETE}" if works < asked else name}
            for one in own.itertuples():
                mark = "" if one.seeds == works else f" ({one.seeds})"
                line[COLUMNS[one.metric][0]] = written(one.metric, one.mean, one.half) + mark
            line["n"] = f"{works}" if works == asked else f"{works} of {asked}"
            lines.append(line)
        columns = ["method", *(COLUMNS[name][0] for name in shown), "n"]
        yield heading, pd.DataFrame(lines, columns=columns)


def written(name: str, mean: float, half: float, sign: str = "") -> str:
    """A metric's mean and half of its interval, in the unit it is shown in."""
    _, unit, places = COLUMNS[name]
    spread = f" ± {half * unit:.{places}f}" if np.isfinite(half) else ""
    return f"{mean * unit:{sign}.{places}f}{spread}"


def _leaderboard_note(rows: pd.DataFrame) -> str:
    told = "Mean ± half of the 95 % interval by Student's t over n seeds, or over (k) of them; one "
    told += f"seed has no interval. Controls first, then by RetDev. {INCOMPLETE}: fewer seeds than asked."
    if rows["traits"].fillna("").str.contains(r"\buses_val\b").any():
        told += f" {USES_VAL}: looks at validation rows."
    return told


# ---------------------------------------------------------------------------------------------
# Differences to retraining.


def _differences(rows: pd.DataFrame, told: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    known = _by_line(rows, told)
    for heading, defense, numbers in _settings(rows, told):
        numbers = numbers[numbers["gap"].notna()]
        shown = [
            name
            for name in ORDER
            if name in compare.COMPARED
            and (numbers["metric"] == name).any()
            and (defense == "none" or name.startswith(OF_THE_MODEL))
        ]
        numbers = numbers[numbers["metric"].isin(shown)]
        if not shown:
            continue
        asked = int(numbers["asked"].max())
        lines = []
        for method, name, own in _lines(numbers, known):
            if method in ("retrain", "second_retrain"):
                continue
            works = int(own["pairs"].max()) if len(own) else 0
            line = {"method": f"{name}{INCOMPLETE}" if works < asked else name}
            for one in own.itertuples():
                half = (one.t_high - one.t_low) / 2
                mark = MARKS.get(one.verdict, "") + (
                    "" if one.pairs == works else f" ({one.pairs})"
                )
                line[COLUMNS[one.metric][0]] = written(one.metric, one.gap, half, "+") + mark
            line["pairs"] = f"{works}" if works == asked else f"{works} of {asked}"
            lines.append(line)
        by_metric = numbers.groupby("metric")
        floor, least = by_metric["floor"].first(), by_metric["detectable"].median()
        for name, each in ((FLOOR, floor), (LEAST, least)):
            cells = {
                COLUMNS[m][0]: written(m, v, np.nan) for m, v in each.items() if np.isfinite(v)
            }
            lines.append({"method": name, **cells})
        columns = ["method", *(COLUMNS[name][0] for name in shown), "pairs"]
        yield heading, pd.DataFrame(lines, columns=columns)


FLOOR, LEAST = "two retrainings differ by", "would have been found"


def _difference_notes(told: pd.DataFrame) -> list[str]:
    if not told["gap"].notna().any():
        return ["There is no `retrain` to compare with, seed by seed."]
    notes = [
        "Mean over seeds of the difference to `retrain` of the same seed, ± half of the 95 % interval "
        "by Student's t; `leaderboard.csv` has the bootstrap's as well, absolute gaps, p, and each "
        "line's own power.",
        f"No mark: differs from retraining, p < .05 by Student's t after Holm's correction for all "
        f"methods in that column. °: p < .05 before it alone. {ALIKE}: not told apart, which does not "
        "say that it is the same. ~: differs, but by no more than two retrainings do. ?: no test, for "
        "want of a second seed or of any spread.",
        f"“{FLOOR}”: root mean square over seeds of `second_retrain` − `retrain`. “{LEAST}”: the "
        "difference that a test at 5 % finds with a power of 80 % at this n, before Holm; median over "
        "the lines.",
    ]
    if (told["over"] == "target models").any():
        notes.append(
            "With one seed, intervals of attacks on populations are over their target models; their p "
            "is by the normal law."
        )
    return notes


# ---------------------------------------------------------------------------------------------
# Ranks.


def _rank_sections(rows: pd.DataFrame) -> Iterator[Section]:
    made = []
    notes: list[str] = []
    for name, sign in compare.RANKED.items():
        table, test = compare.ranked(rows, name)
        if len(table) < 2:
            continue
        heading = COLUMNS[name][0] if name in COLUMNS else name
        heading = f"by {heading.rstrip(' ↑↓')}, {'lower' if sign > 0 else 'higher'} is better"
        made.append((heading, _rank_table(table)))
        notes.append(f"{heading}: {friedman_says(test, int(table['blocks'].max()))}")
    if not made:
        return
    about = (
        "Rank of the mean over seeds in each block (data set, model and task), ties sharing the better "
        "rank; mean rank with its 95 % interval, a bootstrap over seeds; in how many blocks a method "
        "is among the first 1, 3 and 5. F: a seed failed, so it is last there. "
        f"{INCOMPLETE}: over fewer seeds. The aggregation is ours."
    )
    best = (
        "“like the best”: blocks in which the method cannot be told from the first one, seed by seed "
        "(Student's t, Holm); the first is chosen on the same seeds. One seed tells nothing: ?."
    )
    yield Section("Ranks", [about, best, *notes], made)


def _rank_table(told: pd.DataFrame) -> pd.DataFrame:
    blocks = list(told.columns[told.columns.get_loc("incomplete") + 1 :])
    lines = []
    for one in told.to_dict("records"):
        name = f"{one['method']} {one['own']}".strip()
        known = np.isfinite(one["low"])
        line = {
            "method": f"{name}{INCOMPLETE}" if one["incomplete"] else name,
            "mean rank": f"{one['mean_rank']:.1f}",
            "95 %": f"{one['low']:.1f} to {one['high']:.1f}" if known else None,
            **{f"top {k}": str(one[f"top_{k}"]) for k in compare.TOP},
            "like the best": f"{one['best']} of {one['blocks']}" if known else "?",
            "failed in": str(one["failed"]) if one["failed"] else None,
        }
        lines.append(line | {block: _rank(one, block) for block in blocks})
    return pd.DataFrame(lines).dropna(axis=1, how="all")


def _rank(one: Mapping[str, object], block: str) -> str | None:
    rank = one[block]
    assert isinstance(rank, float)
    if np.isnan(rank):
        return None
    failed = one["failed_in"]
    assert isinstance(failed, tuple)
    return f"{rank:.0f} F" if block in failed else f"{rank:.0f}"


def friedman_says(test: statistics.Friedman | None, blocks: int) -> str:
    """What may be concluded from ranks over blocks, in words."""
    if test is None:
        return "no block in which all methods have all seeds, so no test over blocks."
    if not test.can_tell:
        return (
            f"{test.blocks} of {blocks} blocks are complete. With {test.methods} methods Nemenyi's "
            f"critical difference is {test.critical:.1f}, and mean ranks are at most "
            f"{test.methods - 1} apart: no test over blocks could tell any two apart. See the tests "
            "by seed."
        )
    told = (
        f"Friedman's test of {test.methods} methods over {test.blocks} complete blocks (of {blocks}): "
        f"χ² = {test.statistic:.1f}, p = {test.p:.2g}; mean ranks that are {test.critical:.2f} "
        "apart differ at 5 % (Nemenyi)"
    )
    return f"{told}." if test.p < 0.05 else f"{told}, but as a whole they do not."


# ---------------------------------------------------------------------------------------------
# What is not there.


def _missing(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    found = compare.troubles(rows)
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


# ---------------------------------------------------------------------------------------------
# As text.


def markdown_table(table: pd.DataFrame) -> str:
    """A table as Markdown; what is not there is a dash."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.fillna("–").to_numpy()]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def markdown(name: str, notes: Sequence[str], given: Sequence[Section]) -> str:
    """A report as Markdown.

    Args:
        name: of the sweep.
        notes: what is to be said of all of it.
        given: its sections.
    """
    parts = [f"# {name}", *notes]
    for section in given:
        if section.tables:
            parts += [f"## {section.heading}", *section.notes]
            for title, table in section.tables:
                parts += [f"### {title}", markdown_table(table)]
    return "\n\n".join(parts) + "\n"


LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{"±": r"$\pm$", "≈": r"$\approx$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"},
    **{"→": r"$\to$", "†": r"$^\dagger$", "–": "--", "−": "$-$", "²": "$^2$", "χ": r"$\chi$"},
    **{"≥": r"$\geq$", "°": r"$^\circ$", "·": r"$\cdot$", "“": "``", "”": "''", "×": r"$\times$"},
}
"""What LaTeX takes in place of a character."""


def latex_text(text: object) -> str:
    """Text as LaTeX, a minus before a number as one."""
    told = "".join(LATEX.get(sign, sign) for sign in str(text))
    return f"$-${told[1:]}" if told[:1] == "-" and told[1:2].isdigit() else told


def latex(name: str, given: Sequence[Section]) -> str:
    r"""The tables as LaTeX, one ``table`` each, for a document with ``\usepackage{booktabs}``."""
    parts = [r"% \usepackage{booktabs} in the preamble; \input this file, or copy a table of it."]
    for number, (section, title, table) in enumerate(
        (section, *one) for section in given for one in section.tables
    ):
        label = f"tab:{name}-{number + 1}".replace("_", "-").replace(" ", "-")
        rows = [table.columns, *table.fillna("–").to_numpy()]
        lines = [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering\small",
                    rf"\caption{{{latex_text(section.heading)}: {latex_text(title)}.}}",
                    rf"\label{{{label}}}",
                    rf"\begin{{tabular}}{{l{'r' * (table.shape[1] - 1)}}}",
                    r"\toprule",
                    lines[0],
                    r"\midrule",
                    *lines[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"
