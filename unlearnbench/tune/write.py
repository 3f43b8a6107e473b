"""Write trials and chosen settings."""

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


def log(asked: Asked) -> None:
    """Write all trials of the studies as tables, a file a study."""
    for study in asked.studies:
        rows = [
            row for one in search.told(asked.results, study).values() for row in _rows(study, one)
        ]
        if rows:
            parts.write(asked.results / "trials", study.key, rows, schema.TRIALS)


def _rows(study: Study, trial: Told) -> Iterator[dict[str, Any]]:
    """A trial's rows: one a seed that it saw."""
    cell = study.cell
    about = {
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
        for one in outcomes:
            values = one.values or (None,) * len(VALUES)
            told = {"seed": one.seed, "score": one.score, "seconds": one.seconds, "phase": phase}
            told |= {"status": one.status, "reason": one.reason or None}
            told |= {"measured_on": one.measured_on}
            yield {**about, **told, **dict(zip(VALUES, values, strict=True))}


VALUES = ("retain_gap", "forget_gap", "val_gap", "disc_val")
"""Columns of the log: the first three a third of the accuracies' differences."""


def write(asked: Asked, there: Sequence[Found]) -> list[Path]:
    """Write the settings that were chosen, a file a method; where the defaults won, the defaults.

    Args:
        asked: the studies.
        there: what they have found.

    Returns:
        The folders.
    """
    folders = {}
    for one in there:
        if one.chosen is None:
            continue
        folder = into(asked, one.study)
        folder.mkdir(parents=True, exist_ok=True)
        folders[folder] = True
        path = folder / f"{one.study.cell.names['method']}.yaml"
        text = OmegaConf.to_yaml(OmegaConf.create(_described(asked, one, one.chosen)))
        head = f"# Written by unlearnbench tune; taken with tuned={folder.name}.\n"
        atomic.write(path, head + text)
    return list(folders)


def into(asked: Asked, study: Study) -> Path:
    """The folder of the settings that are found for a study."""
    if asked.options["into"] is not None:
        return expanded(asked.options["into"])
    names = study.cell.names
    how = {"robust": ""}.get(asked.options["selection"], f"_{asked.options['selection']}")
    return asked.results / "tuned" / f"{names['dataset']}_{names['model']}{how}"


def _described(asked: Asked, one: Found, chosen: Told) -> dict[str, Any]:
    call: dict[str, Any] = {}
    for name, value in chosen.settings.items():
        *above, last = name.split(".")
        place = call
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    cell, study, options = one.study.cell, one.study, asked.options
    states = (search.COMPLETE, search.PRUNED, search.FAILED, search.SKIPPED)
    default = one.trials.get(0)
    measured = chosen.fresh or chosen.outcomes
    provenance = {
        "command": asked.command,
        **{axis: cell.names[axis] for axis in ("dataset", "model", "train", "forget")},
        "overrides": cell.overrides,
        "method": cell.names["method"],
        "method_version": cell.method["version"],
        "objective": study.objective,
        "sampler": study.sampler,
        "selection": options["selection"],
        "trials": {state: one.count(state) for state in states},
        "trial": chosen.slot,
        "seeds": [c.seed for c in study.cells],
        "fresh_seeds": [c.seed for c in study.fresh],
        "score_in_search": _number(search.mean(chosen.outcomes)),
        "score_on_fresh_seeds": _number(search.mean(chosen.fresh)),
        "spread": stdev(o.score for o in measured) if len(measured) > 1 else None,
        "default_in_search": _number(default.score if default else math.inf),
        "default_on_fresh_seeds": _number(search.mean(default.fresh if default else ())),
        "seconds": round(one.seconds, 3),
        "measured_on": one.measured_on,
        "commit": commit(),
        "version": version("unlearnbench"),
    }
    return {"call": call, "provenance": provenance}


def _number(score: float) -> float | None:
    return score if math.isfinite(score) else None
