"""Attack scores of one cell, with floor, ceiling and gap."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.cell import ORIGINAL, Cell, target
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Scores
from unlearnbench.metric import membership
from unlearnbench.pipeline.models import compared, white_box
from unlearnbench.pipeline.outputs import gathered
from unlearnbench.pipeline.workspace import Workspace

BOOTSTRAP_ROUNDS = 200

GAP = ("gap", "gap_low", "gap_high", "detectable")


def attacked(workspace: Workspace, cell: Cell) -> Scores:
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
    scores = _attacked(workspace, cell)
    traits = cell.attack.get("traits") or {}
    if "ends" not in traits:
        return scores
    told, headline = scores.metrics, traits["headline"]
    n = told[headline[0]][1]
    ends = {
        name: _end(workspace, cell, where) if where in ENDS else _own_end(scores, where, headline)
        for name, where in traits["ends"].items()
    }
    for name in headline:
        at = [figures[name] for figures, _ in ends.values()]
        told.update({f"{name}_{end}": (value, n) for end, value in zip(ends, at, strict=True)})
        share = (told[name][0] - at[0]) / (at[1] - at[0]) if at[0] != at[1] else float("nan")
        told[f"{name}_normalised"] = share, n
    first, (_, retrain) = headline[0], _end(workspace, cell, "retrain")
    mine = _units(scores, first)
    if _is_auc(first):
        pairs = list(_by_model(scores, first).values())
        low, high = membership.bootstrap_auc(pairs, BOOTSTRAP_ROUNDS, 0)
    else:
        values = np.array(list(mine.values()))
        _, low, high, _ = membership.paired_gap(values, np.zeros(len(values)))
    same = sorted(mine.keys() & retrain.keys())
    sides = (np.array([of[unit] for unit in same]) for of in (mine, retrain))
    gap = dict(zip(GAP, membership.paired_gap(*sides), strict=True))
    figures = {"low": low, "high": high, **gap}
    told.update({f"{first}_{what}": (value, n) for what, value in figures.items()})
    return scores


End = tuple[dict[str, float], dict[str, float]]

ENDS = ("retrain", "original")


def _end(workspace: Workspace, cell: Cell, where: str) -> End:
    """The attack's figures, and the first headline's by unit, under the control ``where``."""
    method = {"retrain": cell.reference, "original": ORIGINAL}[where]
    control, first = replace(cell, method=method), cell.attack["traits"]["headline"][0]
    if (control.key, first) not in workspace.ends:
        scores = _attacked(workspace, control)
        figures = {name: value for name, (value, _) in scores.metrics.items()}
        workspace.ends[control.key, first] = figures, _units(scores, first)
    end: End = workspace.ends[control.key, first]
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
        return {model: membership.auc(*pair) for model, pair in _by_model(scores, headline).items()}
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


def _attacked(workspace: Workspace, cell: Cell) -> Scores:
    given: list[Any]
    beside: dict[str, tuple[float, int]] = {}
    if (cell.attack.get("traits") or {}).get("white_box"):
        if cell.defense["call"] is not None:
            told = f"attack={cell.attack['name']} holds the model itself"
            raise Skip(f"{told}: defense={cell.defense['name']} changes its outputs only")
        held = compared if cell.attack["traits"].get("compared") else white_box
        given = [held(workspace, cell)]
    else:
        given, beside = gathered(workspace, cell)
    if cell.defense["call"] is not None:
        defend, arguments = target(cell.defense["call"])
        given = [defend(one, **arguments) for one in given]
    attack, arguments = target(cell.attack["call"])
    scores = attack(*given, **arguments)
    assert isinstance(scores, Scores)
    return replace(scores, metrics={**scores.metrics, **beside})
