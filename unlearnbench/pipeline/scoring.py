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
    """Scores of the cell's attack, with its headline figures at two baselines.

    If the attack's option names baselines (``ends``), the headline figures at them are added: an
    attack on one output has its floor on retrained models and its ceiling on originals; an attack
    on two outputs has its null where the original is compared with itself, and its reference on
    exact unlearning. A baseline that is no control is a figure of the attack itself, such as the
    null of an attack on parameters.
    The normalised figure is 0 at the first baseline and 1 at the second. The first headline figure
    also gets the limits of its 95 % interval, and its gap to retraining. For an AUC the gap is the
    mean difference of the AUC over target models; for a figure whose name begins with a pool, the
    mean difference of the scores of that pool; for any other figure, the difference of the figure.
    """
    scores = _attacked(workspace, cell)
    traits = cell.attack.get("traits") or {}
    if "ends" not in traits:
        return scores
    metrics, headline = scores.metrics, traits["headline"]
    n = metrics[headline[0]][1]
    baselines = {
        name: _baseline(workspace, cell, where)
        if where in CONTROLS
        else _own_baseline(scores, where, headline)
        for name, where in traits["ends"].items()
    }
    for name in headline:
        at = [figures[name] for figures, _ in baselines.values()]
        metrics.update(
            {
                f"{name}_{baseline}": (value, n)
                for baseline, value in zip(baselines, at, strict=True)
            }
        )
        share = (metrics[name][0] - at[0]) / (at[1] - at[0]) if at[0] != at[1] else float("nan")
        metrics[f"{name}_normalised"] = share, n
    first, (_, retrain) = headline[0], _baseline(workspace, cell, "retrain")
    unit_values = _units(scores, first)
    if _is_auc(first):
        pairs = list(_by_model(scores, first).values())
        low, high = membership.bootstrap_auc(pairs, BOOTSTRAP_ROUNDS, 0)
    else:
        values = np.array(list(unit_values.values()))
        _, low, high, _ = membership.paired_gap(values, np.zeros(len(values)))
    same = sorted(unit_values.keys() & retrain.keys())
    sides = (np.array([of[unit] for unit in same]) for of in (unit_values, retrain))
    gap = dict(zip(GAP, membership.paired_gap(*sides), strict=True))
    figures = {"low": low, "high": high, **gap}
    metrics.update({f"{first}_{figure}": (value, n) for figure, value in figures.items()})
    return scores


End = tuple[dict[str, float], dict[str, float]]

CONTROLS = ("retrain", "original")


def _baseline(workspace: Workspace, cell: Cell, where: str) -> End:
    """The attack's figures, and the first headline figure by unit, under the control ``where``."""
    method = {"retrain": cell.reference, "original": ORIGINAL}[where]
    control, first = replace(cell, method=method), cell.attack["traits"]["headline"][0]
    if (control.key, first) not in workspace.ends:
        scores = _attacked(workspace, control)
        figures = {name: value for name, (value, _) in scores.metrics.items()}
        workspace.ends[control.key, first] = figures, _units(scores, first)
    baseline: End = workspace.ends[control.key, first]
    return baseline


def _own_baseline(scores: Scores, figure: str, headline: list[str]) -> End:
    """A baseline that the attack itself measures."""
    return dict.fromkeys(headline, scores.metrics[figure][0]), {}


def _is_auc(headline: str) -> bool:
    return headline.endswith("_auc")


def _units(scores: Scores, headline: str) -> dict[str, float]:
    """The headline figure of each unit it is averaged over: target models, or records.

    A figure that is no such mean has one unit, the figure itself.
    """
    if _is_auc(headline):
        return {model: membership.auc(*pair) for model, pair in _by_model(scores, headline).items()}
    pool_name = headline.rpartition("_")[0]
    records = zip(scores.pool, scores.row.tolist(), scores.score.tolist(), strict=True)
    by_record = {str(row): score for pool, row, score in records if pool == pool_name}
    return by_record or {"": scores.metrics[headline][0]}


def _by_model(scores: Scores, headline: str) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Scores of members and of non-members behind the AUC, by target model.

    Pools are target models, except for an attack with one figure per pool: there the name of the
    figure contains the name of its pool.
    """
    models, place_N = np.unique(np.array(scores.pool), return_inverse=True)
    named = set(headline.split("_")) & set(models)
    each = {
        str(model): place_N == place
        for place, model in enumerate(models)
        if model in named or not named
    }
    return {
        model: (scores.score[selected_N & scores.member], scores.score[selected_N & ~scores.member])
        for model, selected_N in each.items()
    }


def _attacked(workspace: Workspace, cell: Cell) -> Scores:
    inputs: list[Any]
    extra_metrics: dict[str, tuple[float, int]] = {}
    if (cell.attack.get("traits") or {}).get("white_box"):
        if cell.defense["call"] is not None:
            message = f"attack={cell.attack['name']} holds the model itself"
            raise Skip(f"{message}: defense={cell.defense['name']} changes its outputs only")
        make_inputs = compared if cell.attack["traits"].get("compared") else white_box
        inputs = [make_inputs(workspace, cell)]
    else:
        inputs, extra_metrics = gathered(workspace, cell)
    if cell.defense["call"] is not None:
        defend, arguments = target(cell.defense["call"])
        inputs = [defend(outputs, **arguments) for outputs in inputs]
    attack, arguments = target(cell.attack["call"])
    scores = attack(*inputs, **arguments)
    assert isinstance(scores, Scores)
    return replace(scores, metrics={**scores.metrics, **extra_metrics})
