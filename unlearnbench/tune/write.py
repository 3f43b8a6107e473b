"""Writing of trials and chosen settings."""

import json
import math
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import stdev
from typing import Any

from omegaconf import OmegaConf

from unlearnbench.config.arguments import expanded
from unlearnbench.core import atomic
from unlearnbench.core.provenance import commit
from unlearnbench.results import parts, schema
from unlearnbench.search import journal_study as search
from unlearnbench.search.journal_study import Told
from unlearnbench.search.study import Study
from unlearnbench.tune.choose import Found
from unlearnbench.tune.request import Asked


def log(request: Asked) -> None:
    """Write the trials of all studies as tables, one file per study."""
    for study in request.studies:
        rows = [
            row
            for trial in search.told(request.results, study).values()
            for row in _rows(study, trial)
        ]
        if rows:
            parts.write(request.results / "trials", study.key, rows, schema.TRIALS)


def _rows(study: Study, trial: Told) -> Iterator[dict[str, Any]]:
    """The rows of one trial: one per evaluated seed."""
    cell = study.cell
    shared = {
        "study": study.key,
        **{axis: cell.names[axis] for axis in ("dataset", "model", "train", "forget", "method")},
        "overrides": cell.overrides,
        "objective": study.objective,
        "sampler": study.sampler,
        "trial": trial.slot,
        "settings": json.dumps(trial.settings, sort_keys=True),
        "trial_status": trial.status,
        "commit": commit(),
        "version": version("unlearnbench"),
    }
    for phase, outcomes in (("search", trial.outcomes), ("fresh", trial.fresh)):
        for outcome in outcomes:
            values = outcome.values or (None,) * len(VALUES)
            row = {
                "seed": outcome.seed,
                "score": outcome.score,
                "seconds": outcome.seconds,
                "phase": phase,
            }
            row |= {"status": outcome.status, "reason": outcome.reason or None}
            row |= {"measured_on": outcome.measured_on}
            yield {**shared, **row, **dict(zip(VALUES, values, strict=True))}


VALUES = ("retain_gap", "forget_gap", "val_gap", "disc_val")
"""Columns of the log: the first three are accuracy differences divided by 3."""


def write(request: Asked, study_results: Sequence[Found]) -> list[Path]:
    """Write the chosen settings, one file per method; they may be the method's defaults.

    Args:
        request: the studies and options.
        study_results: the result of each study.

    Returns:
        The folders of the files.
    """
    folders = {}
    for result in study_results:
        if result.chosen is None:
            continue
        folder = into(request, result.study)
        folder.mkdir(parents=True, exist_ok=True)
        folders[folder] = True
        path = folder / f"{result.study.cell.names['method']}.yaml"
        text = OmegaConf.to_yaml(OmegaConf.create(_described(request, result, result.chosen)))
        head = f"# Written by unlearnbench tune; taken with tuned={folder.name}.\n"
        atomic.write(path, head + text)
    return list(folders)


def into(request: Asked, study: Study) -> Path:
    """The folder of the chosen settings of a study."""
    if request.options["into"] is not None:
        return expanded(request.options["into"])
    names = study.cell.names
    suffix = {"robust": ""}.get(request.options["selection"], f"_{request.options['selection']}")
    return request.results / "tuned" / f"{names['dataset']}_{names['model']}{suffix}"


def _described(request: Asked, result: Found, chosen: Told) -> dict[str, Any]:
    call: dict[str, Any] = {}
    for name, value in chosen.settings.items():
        *parents, last = name.split(".")
        group = call
        for parent in parents:
            group = group.setdefault(parent, {})
        group[last] = value
    cell, study, options = result.study.cell, result.study, request.options
    states = (search.COMPLETE, search.PRUNED, search.FAILED, search.SKIPPED)
    default = result.trials.get(0)
    measured = chosen.fresh or chosen.outcomes
    provenance = {
        "command": request.command,
        **{axis: cell.names[axis] for axis in ("dataset", "model", "train", "forget")},
        "overrides": cell.overrides,
        "method": cell.names["method"],
        "method_version": cell.method["version"],
        "objective": study.objective,
        "sampler": study.sampler,
        "selection": options["selection"],
        "trials": {state: result.count(state) for state in states},
        "trial": chosen.slot,
        "seeds": [seed_cell.seed for seed_cell in study.cells],
        "fresh_seeds": [seed_cell.seed for seed_cell in study.fresh],
        "score_in_search": _number(search.mean(chosen.outcomes)),
        "score_on_fresh_seeds": _number(search.mean(chosen.fresh)),
        "spread": stdev(outcome.score for outcome in measured) if len(measured) > 1 else None,
        "default_in_search": _number(default.score if default else math.inf),
        "default_on_fresh_seeds": _number(search.mean(default.fresh if default else ())),
        "seconds": round(result.seconds, 3),
        "measured_on": result.measured_on,
        "commit": commit(),
        "version": version("unlearnbench"),
    }
    return {"call": call, "provenance": provenance}


def _number(score: float) -> float | None:
    return score if math.isfinite(score) else None
