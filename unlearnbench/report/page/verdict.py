"""A study in words: which method is closest to retraining, whether that is real, what leaks."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unlearnbench.report.analysis import compare, ranking, statistics
from unlearnbench.report.analysis.compare import BLOCK, LINE
from unlearnbench.report.analysis.ranking import UNRANKED
from unlearnbench.report.analysis.runs import names
from unlearnbench.report.page import glossary, options

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


Record = Mapping[Any, Any]
"""A row of ``compare.compared``."""

Block = tuple[str, ...]
Means = Mapping[str, Mapping[str, float]]
"""Mean over seeds by metric, then by line."""

BESIDE = ("ret_dev", "tow", "test_acc", "rte", "avg_cos")
"""What is told beside the attacks."""


def verdicts(rows: pd.DataFrame, found: pd.DataFrame, numbers: pd.DataFrame) -> Iterator[Verdict]:
    """One for each block.

    Args:
        rows: as ``compare.runs`` gives them.
        found: their ``compare.values``.
        numbers: what ``compare.compared`` makes of them.
    """
    numbers = numbers[(numbers["defense"] == "none") & numbers["mean"].notna()]
    numbers = numbers[numbers["metric"].isin([*HEADLINES, *BESIDE])]
    by_block: dict[Block, dict[str, dict[str, Record]]] = {}
    for one in numbers.sort_values("variant").to_dict("records"):  # those without one first
        metrics = by_block.setdefault(tuple(one[part] for part in BLOCK), {})
        metrics.setdefault(one["metric"], {}).setdefault(_line(one["method"], one["own"]), one)
    blocks = pd.DataFrame(sorted(by_block), columns=BLOCK)
    distances, failed, held = _distances(found), _failed(rows), threats(rows)
    for name, block in zip(names(blocks, BLOCK), sorted(by_block), strict=True):
        by_seed = distances.get(block, {})
        yield _verdict(name, by_block[block], by_seed, failed.get(block, set()), held)


def _line(method: str, own: str) -> str:
    return f"{method} {own}".strip()


def _failed(rows: pd.DataFrame) -> dict[Block, set[str]]:
    """Lines of which a seed failed, by block: what is left of them is no fair mean."""
    bad = rows[(rows["status"] == "failed") & (rows["defense"] == "none")]
    found: dict[Block, set[str]] = {}
    for *block, method, own in bad[[*BLOCK, *LINE]].drop_duplicates().to_numpy():
        found.setdefault(tuple(block), set()).add(_line(method, own))
    return found


def _distances(found: pd.DataFrame) -> dict[Block, dict[str, dict[str, dict[int, float]]]]:
    """Distances from retraining by block, measure, line and seed."""
    found = found[found["metric"].isin(list(NAMES)) & (found["defense"] == "none")]
    each: dict[Block, dict[str, dict[str, dict[int, float]]]] = {}
    columns = found[[*BLOCK, "metric", *LINE, "seed", "value"]].to_numpy()
    for *block, measure, method, own, seed, value in columns:
        lines = each.setdefault(tuple(block), {}).setdefault(measure, {})
        lines.setdefault(_line(method, own), {})[int(seed)] = _distance(measure, float(value))
    return each


def _verdict(
    name: str,
    numbers: Mapping[str, Mapping[str, Record]],
    by_seed: Mapping[str, Mapping[str, Mapping[int, float]]],
    failed: Collection[str],
    held: Mapping[str, str],
) -> Verdict:
    means = {
        metric: {line: float(one["mean"]) for line, one in lines.items()}
        for metric, lines in numbers.items()
    }
    for measure in NAMES:
        lines = [
            line
            for line, one in numbers.get(measure, {}).items()
            if one["method"] not in UNRANKED and line not in failed
        ]
        if lines:
            break
    else:
        return Verdict(name, None, "", "", list(_leaks("retrain", numbers, means, held)))
    distance = by_seed[measure]
    seeds = sorted({seed for line in lines for seed in distance[line]})
    values_KS = np.array([[distance[k].get(seed, np.nan) for seed in seeds] for k in lines])
    place = np.argsort(statistics.mean(values_KS), kind="stable")
    alike = ranking.like_the_best(values_KS)
    best, others = lines[place[0]], [lines[k] for k in place[1:] if alike[k]]
    return Verdict(
        name,
        best,
        _cost(best, others, measure, means),
        _real(best, others, len(lines), measure, distance),
        list(_leaks(best, numbers, means, held)),
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
    noise = times.get("second_retrain", 1.0)
    if max(noise, 1 / noise) > FASTER:
        said += f" Times vary: a second retraining is {speed(noise)}."
    return said


FASTER = 1.2
"""From how much on one method is said to be faster than another."""


def _near(best: str, distance: Mapping[str, float]) -> float:
    """Up to where a distance is about that of the best.

    No further off than two retrainings are, and nearer to the best than to doing nothing. A test
    alone would not do: with few seeds it tells nothing apart.
    """
    own = distance[best]
    halfway = (own + distance.get("original", np.inf)) / 2
    return min(own + distance.get("second_retrain", 0.0), halfway)


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
    """Who else could be the best one, and is it nearer than nothing done, or a second retraining.

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
        told = f"{len(others)} of the {methods - 1} other methods cannot be told apart from it by "
        told += NAMES[measure]
        said = f"Over {seeds} seeds {told}: {named}{more}."
        if seeds < FEW:
            said += " With so few seeds hardly any difference passes the test, however large."
    else:
        said = f"Over {seeds} seeds all {methods - 1} others are further off by more than chance."
    for control, words in CONTROLS.items():
        shared = sorted(distance[best].keys() & distance.get(control, {}).keys())
        if not shared:
            continue
        ours_S, its_S = (np.array([distance[k][s] for s in shared]) for k in (best, control))
        said += f" {words} {NAMES[measure]} of {its_S.mean():.3f}"
        p = float(statistics.t_test((ours_S - its_S)[None])[0])
        at = f"{best}, at {ours_S.mean():.3f},"
        if np.isnan(p):
            said += "."
        elif p >= 1 - statistics.LEVEL:
            said += f": {at} cannot be told from it (t-test by seed, p = {p:.2f})."
        else:
            side = "further off" if ours_S.mean() > its_S.mean() else "closer"
            said += f": {at} is {side} (t-test by seed, p = {p:.2g})."
    return said


CONTROLS = {
    "original": "The original, which forgot nothing, has a",
    "second_retrain": "A second retraining, with another seed, has a",
}
"""What the best one has to beat, and what it cannot be asked to."""

FEW = 5
"""Seeds below which a test is said to have little power."""

NAMED = 6
"""Methods that are named; of the others their number."""


def _leaks(
    line: str,
    numbers: Mapping[str, Mapping[str, Record]],
    means: Means,
    held: Mapping[str, str],
) -> Iterator[Leak]:
    """What attacks find of a line, of retraining and the original, and of who leaks most."""
    for metric in HEADLINES:
        of = numbers.get(metric, {})
        if line not in of:
            continue
        mine, found = of[line], means[metric]
        guess = 0.5 if metric.endswith("_auc") else 0.0
        said = f"{glossary.label(metric)} {found[line]:.2f}"
        ends = [f"{words} {found[one]:.2f}" for one, words in ENDS.items() if one in of]
        if line not in ENDS and ends:
            said += f" ({', '.join(ends)})"
        if metric == "hrec_cos" and (public := means.get("avg_cos", {}).get(line)):
            said += f", where the mean of the public records has {public:.2f}"
        if mine["verdict"] in WORDS:
            said += f": {WORDS[mine['verdict']]}"
            if mine["verdict"] == compare.ALIKE and np.isfinite(mine["detectable"]):
                said += f" (a difference of {mine['detectable']:.2f} would have been found)"
            said += _side(mine["verdict"], abs(found[line] - guess), found.get("retrain"), guess)
        said += "."
        away = {k: abs(found[k] - guess) for k, one in of.items() if one["method"] not in UNRANKED}
        most = max(away, key=lambda k: away[k], default=line)
        if most != line:
            told = "Farthest from a guess is" if guess else "Most shows"
            said += f" {told} {most}: {found[most]:.2f}"
            said += ", which below ½ gives away as much." if guess and found[most] < guess else "."
        attack = " ".join([glossary.attack(mine["attack"]), *mine["variant"].split()])
        yield Leak(attack, held.get(mine["attack"], ""), said)


def _side(verdict: str, away: float, retrain: float | None, guess: float) -> str:
    """Whether a difference to retraining is a leak: which of the two is nearer to a guess."""
    if verdict not in (compare.DIFFERS, compare.WITHIN, compare.ALONE) or retrain is None:
        return ""
    farther = away > abs(retrain - guess)
    return f", {'farther from' if farther else 'nearer to'} a guess than it is"


ENDS = {"retrain": "retraining", "original": "the original"}

WORDS = {
    compare.DIFFERS: "differs from retraining",
    compare.WITHIN: "differs from retraining, by no more than two retrainings do",
    compare.ALONE: "would differ from retraining, were it the only method tested",
    compare.ALIKE: "not told apart from retraining",
    compare.UNTESTED: "no test of the difference to retraining, for want of seeds",
}


def threats(rows: pd.DataFrame) -> dict[str, str]:
    """What the attacker of each attack holds: as the rows say, else as its option does."""
    each = rows.drop_duplicates(["attack", "threat"])[["attack", "threat"]]
    said = dict(each.dropna().to_numpy().tolist())
    attacks = sorted(set(each["attack"]) - {"none"})
    return {name: said.get(name) or options.told("attack", name).threat for name in attacks}
