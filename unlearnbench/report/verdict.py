"""A study in words: which method is closest to retraining, whether that is real, what leaks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unlearnbench.report import compare, glossary, options, ranking, statistics
from unlearnbench.report.compare import BLOCK
from unlearnbench.report.ranking import UNRANKED
from unlearnbench.report.runs import names

HEADLINES = (
    *("mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc", "class_shadow_auc"),
    *("double_output_auc", "hrec_cos", "inversion_centred_cosine_forgotten"),
)
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
    numbers = numbers[(numbers["defense"] == "none") & numbers["mean"].notna()]
    numbers = numbers.assign(line=(numbers["method"] + " " + numbers["own"]).str.strip())
    numbers = numbers.sort_values("variant").drop_duplicates([*BLOCK, "line", "metric"])
    groups = dict(list(rows.groupby(BLOCK, dropna=False, sort=True)))
    blocks = pd.DataFrame(list(groups), columns=BLOCK)
    values = dict(list(found.groupby(BLOCK, dropna=False, sort=False)))
    by_block = dict(list(numbers.groupby(BLOCK, dropna=False, sort=False)))
    for name, (block, same) in zip(names(blocks, BLOCK), groups.items(), strict=True):
        if block in by_block:
            yield _verdict(name, same, values[block], by_block[block])


Means = Mapping[str, Mapping[str, float]]
"""Mean over seeds by metric, then by line."""


def _verdict(name: str, rows: pd.DataFrame, found: pd.DataFrame, numbers: pd.DataFrame) -> Verdict:
    for measure in ("ret_dev", "tow"):  # RetDev has no value where retraining is never right
        ranked, _ = ranking.ranked(rows, found, measure)
        if not ranked.empty:
            break
    means = {
        str(metric): dict(zip(same["line"], same["mean"], strict=True))
        for metric, same in numbers.groupby("metric", sort=False)
    }
    if ranked.empty:
        return Verdict(name, None, "", "", list(_leaks("retrain", rows, numbers, means)))
    lines = (ranked["method"] + " " + ranked["own"]).str.strip()
    best = str(lines.iloc[0])
    others = [line for line in lines[ranked["best"] > 0] if line != best]
    return Verdict(
        name,
        best,
        _cost(best, others, measure, means),
        _real(best, others, len(ranked), measure, _distances(found, measure)),
        list(_leaks(best, rows, numbers, means)),
    )


NAMES = {"ret_dev": "RetDev", "tow": "1 − ToW"}
"""Distances from retraining: 0 is as retrained."""


def _distance(measure: str, value: float) -> float:
    return 1 - value if measure == "tow" else value


def _cost(best: str, others: list[str], measure: str, means: Means) -> str:
    """How close the best one is, what it takes, and who is as good in less time."""
    times = means.get("rte", {})
    distance = {line: _distance(measure, value) for line, value in means[measure].items()}
    said = f"{NAMES[measure]} {distance[best]:.3f}"
    accuracy = means.get("test_acc", {})
    if {best, "retrain"} <= set(accuracy):
        said += f", test accuracy {accuracy[best]:.1%} (retraining {accuracy['retrain']:.1%})"
    if best not in times:
        return f"{said}."
    said += f", {speed(times[best])}."
    near = _near(best, distance)
    close = [line for line in others if line in times and distance[line] <= near]
    fast = max(close, key=lambda line: times[line], default=best)
    if times[fast] > FASTER * times[best]:
        told = f"{NAMES[measure]} {distance[fast]:.3f}"
        said += f" About as close is {fast}, {speed(times[fast])} ({told})."
    return said


FASTER = 1.2
"""From how much on one method is said to be faster than another."""


def _near(best: str, distance: Mapping[str, float]) -> float:
    """Up to where a distance is about that of the best: no further off than two retrainings are.

    A test alone would not do: with few seeds it tells nothing apart.
    """
    return distance[best] + distance.get("second_retrain", 0.0)


def speed(rte: float) -> str:
    """A ratio of times, in words."""
    if rte >= 1:
        return f"{rte:.1f} times as fast as retraining"
    return f"slower than retraining ({1 / rte:.1f} times its time)"


def _real(
    best: str,
    others: list[str],
    methods: int,
    measure: str,
    distance: Mapping[str, Mapping[int, float]],
) -> str:
    """Who else could be the best one, and whether it is further off than a second retraining.

    Args:
        best: the line.
        others: lines that cannot be told from it.
        methods: how many there are.
        measure: what the distance is of.
        distance: the distance by line, then by seed.
    """
    seeds = len(distance[best])
    if seeds < 2:
        said = "One seed was run, and a distance of one seed cannot tell methods apart."
    elif others:
        named = ", ".join(others[:NAMED])
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        told = f"{len(others)} of the {methods - 1} other methods cannot be told apart from it"
        said = f"Over {seeds} seeds {told}: {named}{more}."
        said += " So few seeds show only large differences." if seeds < FEW else ""
    else:
        said = f"Over {seeds} seeds all {methods - 1} others are further off by more than chance."
    shared = distance[best].keys() & distance.get("second_retrain", {}).keys()
    if not shared:
        return said
    sides = ([distance[line][seed] for seed in sorted(shared)] for line in (best, "second_retrain"))
    ours_S, floor_S = map(np.array, sides)
    ours, floor = ours_S.mean(), floor_S.mean()
    said += " Two retrainings that only their seeds tell apart have a "
    said += f"{NAMES[measure]} of {floor:.3f} between them"
    p = float(statistics.t_test((ours_S - floor_S)[None])[0])
    if np.isnan(p):
        return f"{said}."
    if p >= 1 - statistics.LEVEL:
        return f"{said}: {best}, at {ours:.3f}, cannot be told from one (p = {p:.2f})."
    side = "further off" if ours > floor else "closer"
    return f"{said}: {best}, at {ours:.3f}, is {side} (p = {p:.2g})."


def _distances(found: pd.DataFrame, measure: str) -> dict[str, dict[int, float]]:
    """The distance by line, then by seed."""
    found = found[found["metric"] == measure]
    lines = (found["method"] + " " + found["own"]).str.strip()
    each: dict[str, dict[int, float]] = {}
    for line, seed, value in zip(lines, found["seed"], found["value"], strict=True):
        each.setdefault(line, {})[int(seed)] = _distance(measure, float(value))
    return each


FEW = 5
"""Seeds below which a test is said to have little power."""

NAMED = 6
"""Methods that are named; of the others their number."""


def _leaks(line: str, rows: pd.DataFrame, numbers: pd.DataFrame, means: Means) -> Iterator[Leak]:
    """What attacks find of a line, of retraining and the original, and of who leaks most."""
    for metric in HEADLINES:
        of = {one["line"]: one for one in numbers[numbers["metric"] == metric].to_dict("records")}
        if line not in of:
            continue
        mine = of[line]
        said = f"{glossary.label(metric)} {mine['mean']:.2f}"
        ends = [f"{words} {of[one]['mean']:.2f}" for one, words in ENDS.items() if one in of]
        if line not in ENDS and ends:
            said += f" ({', '.join(ends)})"
        if metric == "hrec_cos" and (public := means.get("avg_cos", {}).get(line)):
            said += f", where the mean of the public records has {public:.2f}"
        said += f": {WORDS[mine['verdict']]}." if mine["verdict"] in WORDS else "."
        guess = 0.5 if metric.endswith("_auc") else 0.0
        methods = [name for name, one in of.items() if one["method"] not in UNRANKED]
        most = max(methods, key=lambda name: abs(of[name]["mean"] - guess), default=line)
        if most != line:
            told = "Farthest from a guess is" if guess else "Most shows"
            said += f" {told} {most}: {of[most]['mean']:.2f}."
        attack = " ".join([glossary.attack(mine["attack"]), *mine["variant"].split()])
        yield Leak(attack, threat(rows, mine["attack"]), said)


ENDS = {"retrain": "retraining", "original": "the original"}

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
