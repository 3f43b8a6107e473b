"""From predictions to result rows: utility, the attack after its defense, and errors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.cell import NO_CALL, Cell
from unlearnbench.core.errors import RAISED, Failed, Skip, text_of
from unlearnbench.core.outputs import FORGET, Scores
from unlearnbench.core.provenance import commit
from unlearnbench.metric import membership
from unlearnbench.pipeline import trace
from unlearnbench.pipeline.outputs import predictions
from unlearnbench.pipeline.scoring import attacked
from unlearnbench.pipeline.utility import Measured, utility
from unlearnbench.pipeline.workspace import Workspace, device_name
from unlearnbench.results import parts, schema

ROC_POINTS = 100


@dataclass
class Found:
    """The rows of one cell, the tables and picture of its attack, and the error, if any."""

    rows: list[dict[str, Any]]
    scores: Any = None  # Arrow tables
    roc: Any = None
    picture: NDArray[np.uint8] | None = None
    error: BaseException | None = None


def rows_of(workspace: Workspace, cell: Cell) -> Found:
    """The result rows of a cell. It never raises: an error is a row too."""
    about = _about(workspace, cell)
    plain = {**about, "key": cell.utility_key, "attack": "none", "defense": "none"}
    plain |= {"threat": None, "defense_key": NO_CALL, "attack_key": NO_CALL}
    along = {**plain, "key": cell.trace_rows_key} if cell.trace_rows_key else None
    try:
        outputs = predictions(workspace, cell)
        metrics = utility(workspace, cell, outputs)
        about["forget_hash"] = plain["forget_hash"] = _hash(
            outputs.rows_N[outputs.split_N == FORGET]
        )
        about |= (taken := _taken(workspace, cell))
        plain |= taken
        if along is not None:
            along |= {"forget_hash": plain["forget_hash"], **taken}
    except RAISED as error:  # an exception of a method becomes a row
        keyed = {about["key"]: about, plain["key"]: plain}
        if along is not None:
            keyed[along["key"]] = {**along, "step": 0}
        return Found([_without_value(row, error) for row in keyed.values()], error=error)
    out = Found(_with_values(plain, metrics))
    if along is not None:
        try:
            for step, figures in trace.metrics(trace.trace(workspace, cell), outputs).items():
                out.rows += _with_values({**along, "step": step}, figures)
        except RAISED as error:
            out.error = error
            out.rows.append(_without_value(along, error))
    if cell.attack["call"] is None:
        return out
    try:
        scores = attacked(workspace, cell)
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
    return parts.columns(
        schema.SCORES,
        len(scores.row),
        key=cell.key,
        place=np.arange(len(scores.row)),
        pool=scores.pool,
        row=scores.row,
        member=scores.member,
        score=scores.score,
    )


def _roc(cell: Cell, scores: Scores) -> Any:
    """The ROC of the scores; None if there are no members or no non-members."""
    sides = [scores.score[scores.member == side] for side in (True, False)]
    if not all(map(len, sides)):
        return None
    fpr, tpr = membership.log_roc(sides[0], sides[1], ROC_POINTS).T
    n = [len(sides[1])] * ROC_POINTS
    return parts.columns(schema.ROC, ROC_POINTS, key=cell.key, fpr=fpr, tpr=tpr, others=n)


def _about(workspace: Workspace, cell: Cell) -> dict[str, Any]:
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
        "device": device_name(workspace.device),
        "schema": schema.SCHEMA_VERSION,
    }


def _with_values(about: Mapping[str, Any], metrics: Mapping[str, Measured]) -> list[dict[str, Any]]:
    return [
        {**about, "metric": name, "status": "ok", **_value(figure)}
        for name, figure in metrics.items()
    ]


def _value(figure: Measured) -> dict[str, Any]:
    if isinstance(figure, str):
        return {"value": None, "n": None, "reason": figure}
    return {"value": figure[0], "n": figure[1]}


def _without_value(about: Mapping[str, Any], error: BaseException) -> dict[str, Any]:
    status = "skipped" if isinstance(error, Skip) else "failed"
    return {**about, "status": status, "reason": reason(error)}


LONGEST_REASON = 2000
"""Characters of a reason; ``failures/`` holds the complete text, with its traceback."""


def reason(error: BaseException) -> str:
    """One line for a row: the text of the error, after its type unless the package raises it."""
    text, name = text_of(error), type(error).__name__
    if not isinstance(error, Skip | Failed | ValueError | FileNotFoundError):
        text = f"{name}: {text.removeprefix(f'{name}: ')}"
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _hash(rows_n: np.ndarray[Any, np.dtype[np.int64]]) -> str:
    return hashlib.sha256(np.sort(rows_n).astype("<i8").tobytes()).hexdigest()[:16]


def _taken(workspace: Workspace, cell: Cell) -> dict[str, Any]:
    """Seconds of the method's call, and the device and clock that measured them."""
    if cell.is_original:
        return {"seconds": 0.0}
    own = workspace.store.load(cell.model_key).manifest
    cost = {"seconds": float(own["seconds"]), "measured_on": own.get("measured_on")}
    match cost["measured_on"]:
        case None:
            return cost
        case "cpu":
            return {**cost, "clock": "processor", "memory": "process"}
        case _:
            return {**cost, "clock": "wall", "memory": "tensors"}
