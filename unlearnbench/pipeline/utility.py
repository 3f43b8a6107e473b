"""Utility metrics of one model: name → (value, number of records)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from unlearnbench.core.cell import Cell, target
from unlearnbench.core.outputs import FORGET, RETAIN, TEST, VAL, Predictions
from unlearnbench.metric import distance
from unlearnbench.metric.utility import accuracy, r2, ret_dev, rmse, rte
from unlearnbench.pipeline.outputs import predictions
from unlearnbench.pipeline.workspace import Workspace

PARTS = {"retain": RETAIN, "forget": FORGET, "val": VAL, "test": TEST}

Measured = tuple[float, int] | str
"""A value and the records it was computed on, or why there is no value."""


def utility(workspace: Workspace, cell: Cell, found: Predictions) -> dict[str, Measured]:
    """What stands once per model, by the metric's name."""
    counts = {part: int((found.split_N == code).sum()) for part, code in PARTS.items()}
    reference = predictions(workspace, replace(cell, method=cell.reference))
    private = _privacy(cell, counts)
    if not np.issubdtype(found.y_N.dtype, np.integer):
        errors = {
            f"{name}_{part}": (value, counts[part])
            for part in PARTS
            for name, value in _errors(found, PARTS[part]).items()
        }
        return {**errors, **private, **_cost(workspace, cell)}
    mine, theirs = _accuracies(found), _accuracies(reference)
    compared = ("retain", "forget", "test")
    told = {f"{part}_acc": (mine[part], counts[part]) for part in PARTS}
    told["ret_dev"] = (
        ret_dev(*(tuple(a[part] for part in compared) for a in (mine, theirs))),
        sum(counts[part] for part in compared),
    )
    return {**told, **_divergences(found, reference, counts), **private, **_cost(workspace, cell)}


def _divergences(
    found: Predictions, reference: Predictions, counts: Mapping[str, int]
) -> dict[str, tuple[float, int]]:
    """How far answers are from the retrained model's, record by record: mean over each part."""
    js_N = distance.js_divergence(found.logits_MQNC[0, 0], reference.logits_MQNC[0, 0])
    return {
        f"js_{part}": (float(js_N[found.split_N == PARTS[part]].mean()), counts[part])
        for part in ("retain", "forget", "test")
        if counts[part]
    }


def _privacy(cell: Cell, counts: Mapping[str, int]) -> dict[str, tuple[float, int]]:
    """ε of a private training, where the model is what it made: no method's steps are in it."""
    trained = cell.is_original or (cell.from_scratch and not cell.traits.get("ensemble"))
    if "privacy" not in cell.train or not trained:
        return {}
    epsilon, told = target(cell.train["privacy"])
    n = counts["retain"] + (counts["forget"] if cell.is_original else 0)
    return {"epsilon": (epsilon(n, **told), n), "delta": (told["delta"], n)}


def _cost(workspace: Workspace, cell: Cell) -> dict[str, Measured]:
    """What the method's call took and stored, and the figures it noted of itself."""
    if cell.is_original:
        return {}
    retrain = workspace.store.load(replace(cell, method=cell.reference).model_key).manifest
    own = workspace.store.load(cell.model_key).manifest
    times = {"rte": {"retrain": retrain, "its own": own}}
    told = {"peak_bytes": own["peak_bytes"]}
    if cell.tuned is not None and cell.tuned["seconds"] is not None:
        times["rte_tuned"] = {**times["rte"], "the search": cell.tuned}
    if cell.method.get("prepare") is not None:
        left = workspace.store.load(cell.prepared_key).manifest
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
    return rte(retrain, *others), 1


def _accuracies(found: Predictions) -> dict[str, float]:
    logits_NC = found.logits_MQNC[0, 0]
    chosen = {part: found.split_N == code for part, code in PARTS.items()}
    return {p: accuracy(logits_NC[rows], found.y_N[rows]) for p, rows in chosen.items()}


def _errors(found: Predictions, code: int) -> dict[str, float]:
    rows = found.split_N == code
    predicted, y = found.logits_MQNC[0, 0, rows, 0], found.y_N[rows]
    return {"rmse": rmse(predicted, y), "r2": r2(predicted, y)}
