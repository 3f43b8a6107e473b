"""From predictions to result rows: utility, the attack after its defense, and what went wrong."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench import metric, results, trace
from unlearnbench.cell import NO_CALL, UNTOUCHED, Cell, target
from unlearnbench.core.errors import RAISED, Failed, Skip
from unlearnbench.core.outputs import FORGET, RETAIN, TEST, VAL, Predictions, Scores
from unlearnbench.outputs import gathered, predictions
from unlearnbench.pipeline import Lab, compared, device_name, white_box
from unlearnbench.record import commit
from unlearnbench.words import text_of

BOOTSTRAP_ROUNDS = 200
ROC_POINTS = 100
GAP = ("gap", "gap_low", "gap_high", "detectable")

PARTS = {"retain": RETAIN, "forget": FORGET, "val": VAL, "test": TEST}


Measured = tuple[float, int] | str
"""A value and the records it was computed on, or why there is no value."""


def utility(lab: Lab, cell: Cell, found: Predictions) -> dict[str, Measured]:
    """What stands once per model, by the metric's name."""
    counts = {part: int((found.split_N == code).sum()) for part, code in PARTS.items()}
    reference = predictions(lab, replace(cell, method=cell.reference))
    private = _privacy(cell, counts)
    if not np.issubdtype(found.y_N.dtype, np.integer):
        errors = {
            f"{name}_{part}": (value, counts[part])
            for part in PARTS
            for name, value in _errors(found, PARTS[part]).items()
        }
        return {**errors, **private, **_cost(lab, cell)}
    mine, theirs = _accuracies(found), _accuracies(reference)
    compared = ("retain", "forget", "test")
    told = {f"{part}_acc": (mine[part], counts[part]) for part in PARTS}
    told["ret_dev"] = (
        metric.ret_dev(*(tuple(a[part] for part in compared) for a in (mine, theirs))),
        sum(counts[part] for part in compared),
    )
    return {**told, **_divergences(found, reference, counts), **private, **_cost(lab, cell)}


def _divergences(
    found: Predictions, reference: Predictions, counts: Mapping[str, int]
) -> dict[str, tuple[float, int]]:
    """How far answers are from the retrained model's, record by record: mean over each part."""
    js_N = metric.js_divergence(found.logits_MQNC[0, 0], reference.logits_MQNC[0, 0])
    return {
        f"js_{part}": (float(js_N[found.split_N == PARTS[part]].mean()), counts[part])
        for part in ("retain", "forget", "test")
        if counts[part]
    }


def _privacy(cell: Cell, counts: Mapping[str, int]) -> dict[str, tuple[float, int]]:
    """ε of a private training, where the model is what it made: no method's steps are in it."""
    trained = cell.untouched or (cell.from_scratch and not cell.traits.get("ensemble"))
    if "privacy" not in cell.train or not trained:
        return {}
    epsilon, told = target(cell.train["privacy"])
    n = counts["retain"] + (counts["forget"] if cell.untouched else 0)
    return {"epsilon": (epsilon(n, **told), n), "delta": (told["delta"], n)}


def _cost(lab: Lab, cell: Cell) -> dict[str, Measured]:
    """What the method's call took and stored, and the figures it noted of itself."""
    if cell.untouched:
        return {}
    retrain = lab.store.load(replace(cell, method=cell.reference).model_key).manifest
    own = lab.store.load(cell.model_key).manifest
    times = {"rte": {"retrain": retrain, "its own": own}}
    told = {"peak_bytes": own["peak_bytes"]}
    if cell.tuned is not None and cell.tuned["seconds"] is not None:
        times["rte_tuned"] = {**times["rte"], "the search": cell.tuned}
    if cell.method.get("prepare") is not None:
        left = lab.store.load(cell.prepared_key).manifest
        told |= {"prepared_bytes": left["bytes"], "prepared_seconds": left["seconds"]}
        times["rte_prepared"] = {**times["rte"], "its preparing": left}
    figures = {name: (value, 1) for name, value in {**told, **own["notes"]}.items()}
    return {**{name: _rte(of) for name, of in times.items()}, **figures}


def _rte(times: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Seconds of the first over those of the others; a reason where devices or clocks differ."""
    devices = {whose: told.get("measured_on") for whose, told in times.items()}
    if len(set(devices.values())) > 1 or None in devices.values():
        each = ", ".join(f"{whose} on {of or 'an unknown device'}" for whose, of in devices.items())
        return f"seconds of several devices are not compared: {each}"
    retrain, *others = (float(told["seconds"]) for told in times.values())
    return metric.rte(retrain, *others), 1


def _accuracies(found: Predictions) -> dict[str, float]:
    logits_NC = found.logits_MQNC[0, 0]
    chosen = {part: found.split_N == code for part, code in PARTS.items()}
    return {p: metric.accuracy(logits_NC[rows], found.y_N[rows]) for p, rows in chosen.items()}


def _errors(found: Predictions, code: int) -> dict[str, float]:
    rows = found.split_N == code
    predicted, y = found.logits_MQNC[0, 0, rows, 0], found.y_N[rows]
    return {"rmse": metric.rmse(predicted, y), "r2": metric.r2(predicted, y)}


def attacked(lab: Lab, cell: Cell) -> Scores:
    """The cell's attack, and what it finds where there is nothing to find and where there is all.

    An attack whose option names its ends comes with its headline figures there too: an attack on
    one output has its floor on retrained models and its ceiling on originals; one on two outputs
    its null where the original is compared with itself, and its reference on exact unlearning. An
    end that is no control is a figure of the attack's own, as the null of one on parameters.
    The normalised figure says where between them it stands: 0 at the first, 1 at the second. The
    first headline figure has the ends of its 95 % interval, and its gap to retraining: the mean
    difference over target models of their AUC, which is that of the pooled AUC but for how models
    differ; or over the scores of the pool that the figure's name begins with; or, of a figure that
    is neither, between the two figures.
    """
    scores = _attacked(lab, cell)
    traits = cell.attack.get("traits") or {}
    if "ends" not in traits:
        return scores
    told, headline = scores.metrics, traits["headline"]
    n = told[headline[0]][1]
    ends = {
        name: _end(lab, cell, where) if where in ENDS else _own_end(scores, where, headline)
        for name, where in traits["ends"].items()
    }
    for name in headline:
        at = [figures[name] for figures, _ in ends.values()]
        told.update({f"{name}_{end}": (value, n) for end, value in zip(ends, at, strict=True)})
        share = (told[name][0] - at[0]) / (at[1] - at[0]) if at[0] != at[1] else float("nan")
        told[f"{name}_normalised"] = share, n
    first, (_, retrain) = headline[0], _end(lab, cell, "retrain")
    mine = _units(scores, first)
    if _is_auc(first):
        pairs = list(_by_model(scores, first).values())
        low, high = metric.bootstrap_auc(pairs, BOOTSTRAP_ROUNDS, 0)
    else:
        values = np.array(list(mine.values()))
        _, low, high, _ = metric.paired_gap(values, np.zeros(len(values)))
    same = sorted(mine.keys() & retrain.keys())
    sides = (np.array([of[unit] for unit in same]) for of in (mine, retrain))
    gap = dict(zip(GAP, metric.paired_gap(*sides), strict=True))
    figures = {"low": low, "high": high, **gap}
    told.update({f"{first}_{what}": (value, n) for what, value in figures.items()})
    return scores


End = tuple[dict[str, float], dict[str, float]]
ENDS = ("retrain", "original")


def _end(lab: Lab, cell: Cell, where: str) -> End:
    """The attack's figures, and the first headline's by unit, under the control ``where``."""
    method = {"retrain": cell.reference, "original": UNTOUCHED}[where]
    control, first = replace(cell, method=method), cell.attack["traits"]["headline"][0]
    if (control.key, first) not in lab.ends:
        scores = _attacked(lab, control)
        figures = {name: value for name, (value, _) in scores.metrics.items()}
        lab.ends[control.key, first] = figures, _units(scores, first)
    end: End = lab.ends[control.key, first]
    return end


def _own_end(scores: Scores, figure: str, headline: list[str]) -> End:
    """An end that the attack itself has measured."""
    return dict.fromkeys(headline, scores.metrics[figure][0]), {}


def _is_auc(headline: str) -> bool:
    return headline.endswith("_auc")


def _units(scores: Scores, headline: str) -> dict[str, float]:
    """The headline figure of each thing it is averaged over: target models, or records.

    Of a figure that is no such mean, the figure itself.
    """
    if _is_auc(headline):
        return {model: metric.auc(*pair) for model, pair in _by_model(scores, headline).items()}
    who = headline.rpartition("_")[0]
    told = zip(scores.pool, scores.row.tolist(), scores.score.tolist(), strict=True)
    by_record = {str(row): score for pool, row, score in told if pool == who}
    return by_record or {"": scores.metrics[headline][0]}


def _by_model(scores: Scores, headline: str) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Scores of the members and of the others that the AUC is of, by target model.

    Pools are target models, but for an attack that has a figure for each of its pools: there the
    figure's name has that of its pool.
    """
    models, place_N = np.unique(np.array(scores.pool), return_inverse=True)
    named = set(headline.split("_")) & set(models)
    each = {
        str(model): place_N == place
        for place, model in enumerate(models)
        if model in named or not named
    }
    return {
        model: (scores.score[one & scores.member], scores.score[one & ~scores.member])
        for model, one in each.items()
    }


def _attacked(lab: Lab, cell: Cell) -> Scores:
    given: list[Any]
    beside: dict[str, tuple[float, int]] = {}
    if (cell.attack.get("traits") or {}).get("white_box"):
        if cell.defense["call"] is not None:
            told = f"attack={cell.attack['name']} holds the model itself"
            raise Skip(f"{told}: defense={cell.defense['name']} changes its outputs only")
        held = compared if cell.attack["traits"].get("compared") else white_box
        given = [held(lab, cell)]
    else:
        given, beside = gathered(lab, cell)
    if cell.defense["call"] is not None:
        defend, arguments = target(cell.defense["call"])
        given = [defend(one, **arguments) for one in given]
    attack, arguments = target(cell.attack["call"])
    scores = attack(*given, **arguments)
    assert isinstance(scores, Scores)
    return replace(scores, metrics={**scores.metrics, **beside})


@dataclass
class Found:
    """The rows of one cell, what else its attack gave, and what went wrong if anything did."""

    rows: list[dict[str, Any]]
    scores: Any = None  # Arrow tables
    roc: Any = None
    picture: NDArray[np.uint8] | None = None
    error: BaseException | None = None


def rows(lab: Lab, cell: Cell) -> Found:
    """The result rows of a cell. It never raises: what went wrong is a row too."""
    about = _about(lab, cell)
    plain = {**about, "key": cell.utility_key, "attack": "none", "defense": "none"}
    plain |= {"threat": None, "defense_key": NO_CALL, "attack_key": NO_CALL}
    along = {**plain, "key": cell.trace_rows_key} if cell.trace_rows_key else None
    try:
        found = predictions(lab, cell)
        told = utility(lab, cell, found)
        about["forget_hash"] = plain["forget_hash"] = _hash(found.rows_N[found.split_N == FORGET])
        about |= (taken := _taken(lab, cell))
        plain |= taken
        if along is not None:
            along |= {"forget_hash": plain["forget_hash"], **taken}
    except RAISED as error:  # whatever a method raises is a row, not a crash
        keyed = {about["key"]: about, plain["key"]: plain}
        if along is not None:
            keyed[along["key"]] = {**along, "step": 0}
        return Found([_without_value(one, error) for one in keyed.values()], error=error)
    out = Found(_with_values(plain, told))
    if along is not None:
        try:
            for step, figures in trace.metrics(trace.trace(lab, cell), found).items():
                out.rows += _with_values({**along, "step": step}, figures)
        except RAISED as error:
            out.error = error
            out.rows.append(_without_value(along, error))
    if cell.attack["call"] is None:
        return out
    try:
        scores = attacked(lab, cell)
        own = _with_values(about, scores.metrics)
        tables = _scores(cell, scores), _roc(cell, scores)
    except RAISED as error:
        out.error = error
        out.rows.append(_without_value(about, error))
        return out
    out.rows += own
    (out.scores, out.roc), out.picture = tables, scores.picture
    return out


def _scores(cell: Cell, scores: Scores) -> Any:
    return results.columns(
        results.SCORES,
        len(scores.row),
        key=cell.key,
        place=np.arange(len(scores.row)),
        pool=scores.pool,
        row=scores.row,
        member=scores.member,
        score=scores.score,
    )


def _roc(cell: Cell, scores: Scores) -> Any:
    """Nothing of scores that have one side only."""
    sides = [scores.score[scores.member == side] for side in (True, False)]
    if not all(map(len, sides)):
        return None
    fpr, tpr = metric.log_roc(sides[0], sides[1], ROC_POINTS).T
    n = [len(sides[1])] * ROC_POINTS
    return results.columns(results.ROC, ROC_POINTS, key=cell.key, fpr=fpr, tpr=tpr, others=n)


def _about(lab: Lab, cell: Cell) -> dict[str, Any]:
    return {
        **cell.names,
        "traits": " ".join(sorted(name for name, is_so in cell.traits.items() if is_so)),
        "threat": cell.attack.get("threat"),
        "overrides": cell.overrides,
        "setup_key": cell.setup_key,
        "method_key": cell.method_key,
        "defense_key": cell.defense_key,
        "attack_key": cell.attack_key,
        "seed": cell.seed,
        "key": cell.key,
        "utility_key": cell.utility_key,
        "model_key": cell.model_key,
        "predictions_key": cell.predictions_key,
        "commit": commit(),
        "version": version("unlearnbench"),
        "device": device_name(lab.device),
        "schema": results.SCHEMA_VERSION,
    }


def _with_values(about: Mapping[str, Any], told: Mapping[str, Measured]) -> list[dict[str, Any]]:
    return [
        {**about, "metric": name, "status": "ok", **_value(figure)} for name, figure in told.items()
    ]


def _value(figure: Measured) -> dict[str, Any]:
    if isinstance(figure, str):
        return {"value": None, "n": None, "reason": figure}
    return {"value": figure[0], "n": figure[1]}


def _without_value(about: Mapping[str, Any], error: BaseException) -> dict[str, Any]:
    status = "skipped" if isinstance(error, Skip) else "failed"
    return {**about, "status": status, "reason": reason(error)}


LONGEST_REASON = 2000
"""Characters of a reason; the whole of it is in ``failures/``, with its traceback."""


def reason(error: BaseException) -> str:
    """One line for a row: ours as it is, a stranger's with its type, or with its place at least."""
    text, name = text_of(error), type(error).__name__
    if not isinstance(error, Skip | Failed | ValueError | FileNotFoundError):
        text = f"{name}: {text.removeprefix(f'{name}: ')}"
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _hash(rows_n: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    return hashlib.sha256(np.sort(rows_n).astype("<i8").tobytes()).hexdigest()[:16]


def _taken(lab: Lab, cell: Cell) -> dict[str, Any]:
    """What its method's call took, and by what that was measured; nothing where none was made."""
    if cell.untouched:
        return {"seconds": 0.0}
    own = lab.store.load(cell.model_key).manifest
    told = {"seconds": float(own["seconds"]), "measured_on": own.get("measured_on")}
    match told["measured_on"]:
        case None:
            return told
        case "cpu":
            return {**told, "clock": "processor", "memory": "process"}
        case _:
            return {**told, "clock": "wall", "memory": "tensors"}
