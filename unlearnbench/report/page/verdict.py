"""Findings of a study as text: the method closest to retraining, its tests, and leakage."""

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
"""Metrics that summarise each attack."""


@dataclass(frozen=True)
class Leak:
    """The result of one attack, as text.

    Attributes:
        attack: name of the attack.
        threat: what the attacker has.
        says: what the attack finds.
    """

    attack: str
    threat: str
    says: str


@dataclass(frozen=True)
class Verdict:
    """The findings of one block, as text.

    Attributes:
        block: data set, model and task.
        best: the line closest to retraining; None where no method was run.
        cost: distance of the best line from retraining, its test accuracy and its time.
        real: results of the tests: the best line against the others and against the controls.
        leaks: results of the attacks, without a defense.
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
"""Metrics that are described in addition to the attacks."""


def verdicts(rows: pd.DataFrame, values: pd.DataFrame, numbers: pd.DataFrame) -> Iterator[Verdict]:
    """One verdict per block.

    Args:
        rows: frame that ``compare.runs`` returns.
        values: ``compare.values`` of ``rows``.
        numbers: ``compare.compared`` of ``rows``.
    """
    numbers = numbers[(numbers["defense"] == "none") & numbers["mean"].notna()]
    numbers = numbers[numbers["metric"].isin([*HEADLINES, *BESIDE])]
    by_block: dict[Block, dict[str, dict[str, Record]]] = {}
    for row in numbers.sort_values("variant").to_dict("records"):  # the empty variant comes first
        metrics = by_block.setdefault(tuple(row[column] for column in BLOCK), {})
        metrics.setdefault(row["metric"], {}).setdefault(_line(row["method"], row["own"]), row)
    blocks = pd.DataFrame(sorted(by_block), columns=BLOCK)
    distances, failed, threat_by_attack = _distances(values), _failed(rows), threats(rows)
    for name, block in zip(names(blocks, BLOCK), sorted(by_block), strict=True):
        by_seed = distances.get(block, {})
        yield _verdict(name, by_block[block], by_seed, failed.get(block, set()), threat_by_attack)


def _line(method: str, own: str) -> str:
    return f"{method} {own}".strip()


def _failed(rows: pd.DataFrame) -> dict[Block, set[str]]:
    """Lines with a failed seed, by block: their mean over the other seeds is not comparable."""
    bad = rows[(rows["status"] == "failed") & (rows["defense"] == "none")]
    lines_by_block: dict[Block, set[str]] = {}
    for *block, method, own in bad[[*BLOCK, *LINE]].drop_duplicates().to_numpy():
        lines_by_block.setdefault(tuple(block), set()).add(_line(method, own))
    return lines_by_block


def _distances(values: pd.DataFrame) -> dict[Block, dict[str, dict[str, dict[int, float]]]]:
    """Distances from retraining by block, measure, line and seed."""
    values = values[values["metric"].isin(list(NAMES)) & (values["defense"] == "none")]
    each: dict[Block, dict[str, dict[str, dict[int, float]]]] = {}
    columns = values[[*BLOCK, "metric", *LINE, "seed", "value"]].to_numpy()
    for *block, measure, method, own, seed, value in columns:
        lines = each.setdefault(tuple(block), {}).setdefault(measure, {})
        lines.setdefault(_line(method, own), {})[int(seed)] = _distance(measure, float(value))
    return each


def _verdict(
    name: str,
    numbers: Mapping[str, Mapping[str, Record]],
    by_seed: Mapping[str, Mapping[str, Mapping[int, float]]],
    failed: Collection[str],
    threat_by_attack: Mapping[str, str],
) -> Verdict:
    means = {
        metric: {line: float(row["mean"]) for line, row in lines.items()}
        for metric, lines in numbers.items()
    }
    for measure in NAMES:
        lines = [
            line
            for line, row in numbers.get(measure, {}).items()
            if row["method"] not in UNRANKED and line not in failed
        ]
        if lines:
            break
    else:
        return Verdict(
            name, None, "", "", list(_leaks("retrain", numbers, means, threat_by_attack))
        )
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
        list(_leaks(best, numbers, means, threat_by_attack)),
    )


NAMES = {"ret_dev": "RetDev", "tow": "1 − ToW"}
"""Distances from retraining; 0 means equal to retraining."""


def _distance(measure: str, value: float) -> float:
    return 1 - value if measure == "tow" else value


def _cost(best: str, others: list[str], measure: str, means: Means) -> str:
    """Distance, test accuracy and time of the best line, and the fastest line as close as it."""
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
        detail = f"{NAMES[measure]} {distance[fast]:.3f}"
        said += f" About as close is {fast}, {speed(times[fast])} ({detail})."
    noise = times.get("second_retrain", 1.0)
    if max(noise, 1 / noise) > FASTER:
        said += f" Times vary: a second retraining is {speed(noise)}."
    return said


FASTER = 1.2
"""Least ratio of times for which the text says that one method is faster than another."""


def _near(best: str, distance: Mapping[str, float]) -> float:
    """Largest distance that counts as about that of the best line.

    The bound is min(d + distance of the second retraining, (d + distance of the original) / 2) for
    the best distance d. A test does not replace it: with few seeds it separates no lines.
    """
    own = distance[best]
    halfway = (own + distance.get("original", np.inf)) / 2
    return min(own + distance.get("second_retrain", 0.0), halfway)


def speed(rte: float) -> str:
    """A ratio of times as text."""
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
    """Tests of the best line against the other lines, the original and a second retraining.

    Args:
        best: the line closest to retraining.
        others: lines that the test does not separate from the best one.
        methods: number of lines.
        measure: name of the distance, a key of ``NAMES``.
        distance: distance from retraining by line, then by seed.
    """
    seeds = len(distance[best])
    if seeds < 2:
        said = "One seed was run, and a distance of one seed cannot tell methods apart."
    elif others:
        named = ", ".join(others[:NAMED])
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        alike = f"{len(others)} of the {methods - 1} other methods cannot be told apart from it by "
        alike += NAMES[measure]
        said = f"Over {seeds} seeds {alike}: {named}{more}."
        if seeds < FEW:
            said += " With so few seeds hardly any difference passes the test, however large."
    else:
        said = f"Over {seeds} seeds all {methods - 1} others are further off by more than chance."
    for control, phrase in CONTROLS.items():
        shared = sorted(distance[best].keys() & distance.get(control, {}).keys())
        if not shared:
            continue
        best_S, control_S = (np.array([distance[k][s] for s in shared]) for k in (best, control))
        said += f" {phrase} {NAMES[measure]} of {control_S.mean():.3f}"
        p = float(statistics.t_test((best_S - control_S)[None])[0])
        at = f"{best}, at {best_S.mean():.3f},"
        if np.isnan(p):
            said += "."
        elif p >= 1 - statistics.LEVEL:
            said += f": {at} cannot be told from it (t-test by seed, p = {p:.2f})."
        else:
            side = "further off" if best_S.mean() > control_S.mean() else "closer"
            said += f": {at} is {side} (t-test by seed, p = {p:.2g})."
    return said


CONTROLS = {
    "original": "The original, which forgot nothing, has a",
    "second_retrain": "A second retraining, with another seed, has a",
}
"""Controls that the best line is tested against, and the beginning of each sentence."""

FEW = 5
"""Number of seeds below which the text says that the test has little power."""

NAMED = 6
"""Number of methods that are listed by name; the others are counted."""


def _leaks(
    line: str,
    numbers: Mapping[str, Mapping[str, Record]],
    means: Means,
    threat_by_attack: Mapping[str, str],
) -> Iterator[Leak]:
    """Results of each attack on a line, on the controls, and on the line that leaks most."""
    for metric in HEADLINES:
        of = numbers.get(metric, {})
        if line not in of:
            continue
        row, mean = of[line], means[metric]
        guess = 0.5 if metric.endswith("_auc") else 0.0
        said = f"{glossary.label(metric)} {mean[line]:.2f}"
        baselines = [f"{phrase} {mean[name]:.2f}" for name, phrase in ENDS.items() if name in of]
        if line not in ENDS and baselines:
            said += f" ({', '.join(baselines)})"
        if metric == "hrec_cos" and (public := means.get("avg_cos", {}).get(line)):
            said += f", where the mean of the public records has {public:.2f}"
        if row["verdict"] in WORDS:
            said += f": {WORDS[row['verdict']]}"
            if row["verdict"] == compare.ALIKE and np.isfinite(row["detectable"]):
                said += f" (a difference of {row['detectable']:.2f} would have been found)"
            said += _side(row["verdict"], abs(mean[line] - guess), mean.get("retrain"), guess)
        said += "."
        away = {
            k: abs(mean[k] - guess) for k, other in of.items() if other["method"] not in UNRANKED
        }
        most = max(away, key=lambda k: away[k], default=line)
        if most != line:
            phrase = "Farthest from a guess is" if guess else "Most shows"
            said += f" {phrase} {most}: {mean[most]:.2f}"
            said += ", which below ½ gives away as much." if guess and mean[most] < guess else "."
        attack = " ".join([glossary.attack(row["attack"]), *row["variant"].split()])
        yield Leak(attack, threat_by_attack.get(row["attack"], ""), said)


def _side(verdict: str, away: float, retrain: float | None, guess: float) -> str:
    """Text on which of the two is nearer to a guess: the line, or retraining."""
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
    """What the attacker of each attack has: from the rows, else from the attack's option."""
    each = rows.drop_duplicates(["attack", "threat"])[["attack", "threat"]]
    said = dict(each.dropna().to_numpy().tolist())
    attacks = sorted(set(each["attack"]) - {"none"})
    return {name: said.get(name) or options.told("attack", name).threat for name in attacks}
