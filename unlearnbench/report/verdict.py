"""A study in words: which method is closest to retraining, whether that is real, what leaks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unlearnbench.report import compare, glossary, options, ranking, statistics
from unlearnbench.report.compare import BLOCK
from unlearnbench.report.ranking import UNRANKED
from unlearnbench.report.runs import names

AUCS = ("mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc", "class_shadow_auc")
AUCS += ("double_output_auc", "hrec_cos")
"""What an attack is known by."""


@dataclass(frozen=True)
class Leak:
    """What one attack finds.

    Attributes:
        attack: its name.
        threat: what the attacker holds, in words.
        says: what it finds, in words.
    """

    attack: str
    threat: str
    says: str


@dataclass(frozen=True)
class Verdict:
    """What the rows of one block say.

    Attributes:
        block: data set, model and task, in words.
        best: the line closest to retraining; None where no method was run.
        cost: how close, at what cost, in words.
        real: whether its lead and its distance to retraining are more than noise, in words.
        leaks: by attack, without a defense.
    """

    block: str
    best: str | None
    cost: str
    real: str
    leaks: list[Leak]


def verdicts(rows: pd.DataFrame, found: pd.DataFrame, numbers: pd.DataFrame) -> Iterator[Verdict]:
    """One for each block.

    Args:
        rows: as ``compare.runs`` gives them.
        found: their ``compare.values``.
        numbers: what ``compare.compared`` makes of them.
    """
    numbers = numbers[(numbers["defense"] == "none") & (numbers["variant"] == "")]
    numbers = numbers.assign(line=(numbers["method"] + " " + numbers["own"]).str.strip())
    groups = dict(list(rows.groupby(BLOCK, dropna=False, sort=True)))
    blocks = pd.DataFrame(list(groups), columns=BLOCK)
    values = dict(list(found.groupby(BLOCK, dropna=False, sort=False)))
    by_block = dict(list(numbers.groupby(BLOCK, dropna=False, sort=False)))
    for name, (block, same) in zip(names(blocks, BLOCK), groups.items(), strict=True):
        if block in by_block:
            yield _verdict(name, same, values[block], by_block[block])


def _verdict(name: str, rows: pd.DataFrame, found: pd.DataFrame, numbers: pd.DataFrame) -> Verdict:
    ranked, _ = ranking.ranked(rows, found, "ret_dev")
    means = numbers.pivot_table("mean", "line", "metric")
    if ranked.empty:
        shown = "retrain" if "retrain" in means.index else None
        return Verdict(name, None, "", "", list(_leaks(shown, rows, numbers, means)))
    first = ranked.iloc[0]
    best = f"{first['method']} {first['own']}".strip()
    alike = ranked[ranked["best"] > 0]
    lines = [
        f"{method} {own}".strip() for method, own in zip(alike["method"], alike["own"], strict=True)
    ]
    others = [line for line in lines if line != best]
    return Verdict(
        name,
        best,
        _cost(best, others, means),
        _real(best, others, len(ranked), _deviation(found)),
        list(_leaks(best, rows, numbers, means)),
    )


def _cost(best: str, others: list[str], means: pd.DataFrame) -> str:
    """How close the best one is, what it takes, and who is as good in less time."""
    said = f"RetDev {means.at[best, 'ret_dev']:.3f}"
    if "test_acc" in means and "retrain" in means.index:
        ours, theirs = (means.at[line, "test_acc"] for line in (best, "retrain"))
        said += f", test accuracy {ours:.1%} (retraining {theirs:.1%})"
    if "rte" not in means or not np.isfinite(means.at[best, "rte"]):
        return f"{said}."
    said += f", {speed(means.at[best, 'rte'])}."
    close = [line for line in others if means.at[line, "ret_dev"] <= _near(best, means)]
    known = means.loc[close, "rte"].dropna()
    if len(known) and known.max() > 1.2 * means.at[best, "rte"]:
        fast = str(known.idxmax())
        said += f" About as close is {fast}, {speed(known.max())} "
        said += f"(RetDev {means.at[fast, 'ret_dev']:.3f})."
    return said


def _near(best: str, means: pd.DataFrame) -> float:
    """Up to where RetDev is about that of the best: no further from it than two retrainings are.

    A test alone would not do: with few seeds it tells nothing apart.
    """
    noise = means["ret_dev"].get("second_retrain", 0.0)
    return float(means.at[best, "ret_dev"] + noise)


def speed(rte: float) -> str:
    """A ratio of times, in words."""
    if rte >= 1:
        return f"{rte:.1f} times as fast as retraining"
    return f"slower than retraining ({1 / rte:.1f} times its time)"


def _real(best: str, others: list[str], methods: int, deviation: pd.DataFrame) -> str:
    """Who else could be the best one, and whether it is further off than a second retraining.

    Args:
        best: the line.
        others: lines that cannot be told from it.
        methods: how many there are.
        deviation: RetDev of each seed (a column) and line.
    """
    seeds = int(deviation.loc[best].notna().sum())
    if seeds < 2:
        said = "One seed was run, and RetDev of one seed cannot tell methods apart."
    elif others:
        named = ", ".join(others[:NAMED])
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        said = (
            f"Over {seeds} seeds {len(others)} of the {methods - 1} other methods cannot be told "
        )
        said += f"apart from it: {named}{more}."
        if seeds < FEW:
            said += " So few seeds show only large differences."
    else:
        said = f"Over {seeds} seeds it is told apart from all {methods - 1} other methods."
    if "second_retrain" not in deviation.index:
        return said
    both = deviation.loc[[best, "second_retrain"]].dropna(axis=1).to_numpy()
    ours, floor = both.mean(axis=1)
    said += " Two retrainings that only their seeds tell apart have a RetDev of "
    said += f"{floor:.3f} between them"
    p = float(statistics.t_test((both[0] - both[1])[None])[0])
    if seeds < 2 or np.isnan(p):
        return f"{said}."
    if p >= 1 - statistics.LEVEL:
        return f"{said}: {best}, at {ours:.3f}, cannot be told from one (p = {p:.2f})."
    side = "further off" if ours > floor else "closer"
    return f"{said}: {best}, at {ours:.3f}, is {side} (p = {p:.2g})."


def _deviation(found: pd.DataFrame) -> pd.DataFrame:
    """RetDev of each line (down) and seed (across)."""
    found = found[found["metric"] == "ret_dev"]
    lines = (found["method"] + " " + found["own"]).str.strip()
    return found.assign(line=lines).pivot_table("value", "line", "seed", aggfunc="first")


FEW = 5
"""Seeds below which a test is said to have little power."""

NAMED = 6
"""Methods that are named; of the others their number."""


def _leaks(
    line: str | None, rows: pd.DataFrame, numbers: pd.DataFrame, means: pd.DataFrame
) -> Iterator[Leak]:
    """What attacks find of a line, of retraining and the original, and of who leaks most."""
    for name in AUCS:
        if line is None or name not in means or not np.isfinite(means[name].get(line, np.nan)):
            continue
        of = numbers[numbers["metric"] == name].set_index("line")
        attack = str(of.at[line, "attack"])
        said = f"{glossary.label(name)} {means.at[line, name]:.2f}"
        controls = [one for one in ("retrain", "original") if one in of.index and one != line]
        words = {"retrain": "retraining", "original": "the original"}
        if controls:
            told = (f"{words[one]} {means.at[one, name]:.2f}" for one in controls)
            said += f" ({', '.join(told)})"
        verdict = str(of.at[line, "verdict"])
        said += f": {WORDS[verdict]}." if verdict in WORDS else "."
        ours = of[~of["method"].isin(UNRANKED)]["mean"]
        away = (ours - (0.5 if name.endswith("_auc") else 0)).abs()
        if len(away) and away.idxmax() != line:
            most = str(away.idxmax())
            told = "Farthest from a guess is" if name.endswith("_auc") else "Most shows"
            said += f" {told} {most}: {ours[most]:.2f}."
        yield Leak(glossary.attack(attack), threat(rows, attack), said)


WORDS = {
    compare.DIFFERS: "differs from retraining",
    compare.WITHIN: "differs from retraining, by no more than two retrainings do",
    compare.ALONE: "would differ from retraining, were it the only method tested",
    compare.ALIKE: "not told apart from retraining",
    compare.UNTESTED: "no test of the difference to retraining, for want of seeds",
}


def threat(rows: pd.DataFrame, attack: str) -> str:
    """What the attacker holds: as the rows say, else as the option does."""
    said = rows.loc[rows["attack"] == attack, "threat"].dropna()
    return str(said.iloc[0]) if len(said) else options.told("attack", attack).threat
