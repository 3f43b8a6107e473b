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
"""A value and the number of records it was computed on, or why there is no value."""


def utility(workspace: Workspace, cell: Cell, outputs: Predictions) -> dict[str, Measured]:
    """Utility metrics of one model, by name."""
    counts = {subset: int((outputs.split_N == code).sum()) for subset, code in PARTS.items()}
    reference = predictions(workspace, replace(cell, method=cell.reference))
    private = _privacy(cell, counts)
    if not np.issubdtype(outputs.y_N.dtype, np.integer):
        errors = {
            f"{name}_{subset}": (value, counts[subset])
            for subset in PARTS
            for name, value in _errors(outputs, PARTS[subset]).items()
        }
        return {**errors, **private, **_cost(workspace, cell)}
    of_model, of_reference = _accuracies(outputs), _accuracies(reference)
    compared = ("retain", "forget", "test")
    metrics = {f"{subset}_acc": (of_model[subset], counts[subset]) for subset in PARTS}
    metrics["ret_dev"] = (
        ret_dev(*(tuple(a[subset] for subset in compared) for a in (of_model, of_reference))),
        sum(counts[subset] for subset in compared),
    )
    return {
        **metrics,
        **_divergences(outputs, reference, counts),
        **private,
        **_cost(workspace, cell),
    }


def _divergences(
    outputs: Predictions, reference: Predictions, counts: Mapping[str, int]
) -> dict[str, tuple[float, int]]:
    """Mean divergence per record from the outputs of the retrained model, by part."""
    js_N = distance.js_divergence(outputs.logits_MQNC[0, 0], reference.logits_MQNC[0, 0])
    return {
        f"js_{subset}": (float(js_N[outputs.split_N == PARTS[subset]].mean()), counts[subset])
        for subset in ("retain", "forget", "test")
        if counts[subset]
    }


def _privacy(cell: Cell, counts: Mapping[str, int]) -> dict[str, tuple[float, int]]:
    """ε and δ of a private training; empty for a model that a method has changed."""
    trained = cell.is_original or (cell.from_scratch and not cell.traits.get("ensemble"))
    if "privacy" not in cell.train or not trained:
        return {}
    epsilon, arguments = target(cell.train["privacy"])
    n = counts["retain"] + (counts["forget"] if cell.is_original else 0)
    return {"epsilon": (epsilon(n, **arguments), n), "delta": (arguments["delta"], n)}


def _cost(workspace: Workspace, cell: Cell) -> dict[str, Measured]:
    """Run-time efficiency, memory and stored bytes of the method's call, and its noted figures."""
    if cell.is_original:
        return {}
    retrain = workspace.store.load(replace(cell, method=cell.reference).model_key).manifest
    own = workspace.store.load(cell.model_key).manifest
    times = {"rte": {"retrain": retrain, "its own": own}}
    costs = {"peak_bytes": own["peak_bytes"]}
    if cell.tuned is not None and cell.tuned["seconds"] is not None:
        times["rte_tuned"] = {**times["rte"], "the search": cell.tuned}
    if cell.method.get("prepare") is not None:
        step = workspace.store.load(cell.prepared_key).manifest
        costs |= {"prepared_bytes": step["bytes"], "prepared_seconds": step["seconds"]}
        times["rte_prepared"] = {**times["rte"], "its preparing": step}
    figures = {name: (value, 1) for name, value in {**costs, **own["notes"]}.items()}
    return {**{name: _rte(of) for name, of in times.items()}, **figures}


def _rte(times: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Seconds of the first over those of the others; a reason if devices or clocks differ."""
    devices = {name: run.get("measured_on") for name, run in times.items()}
    if len(set(devices.values())) > 1 or None in devices.values():
        each = ", ".join(f"{name} on {of or 'an unknown device'}" for name, of in devices.items())
        return f"seconds of several devices are not compared: {each}"
    retrain, *others = (float(run["seconds"]) for run in times.values())
    return rte(retrain, *others), 1


def _accuracies(outputs: Predictions) -> dict[str, float]:
    logits_NC = outputs.logits_MQNC[0, 0]
    chosen = {subset: outputs.split_N == code for subset, code in PARTS.items()}
    return {p: accuracy(logits_NC[rows], outputs.y_N[rows]) for p, rows in chosen.items()}


def _errors(outputs: Predictions, code: int) -> dict[str, float]:
    rows = outputs.split_N == code
    predicted, y = outputs.logits_MQNC[0, 0, rows, 0], outputs.y_N[rows]
    return {"rmse": rmse(predicted, y), "r2": r2(predicted, y)}
