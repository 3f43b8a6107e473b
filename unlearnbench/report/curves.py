"""How near reconstructions come to the truth: a distribution function for each method."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd

from unlearnbench import results
from unlearnbench.picture import cumulative, save
from unlearnbench.report.leaderboard import CONTROLS, OWN

SETTING = ["dataset", "model", "train", "setup"]
BASELINES = {"avg": "Avg", "max_diff": "MaxDiff"}
UNSAFE = r"[^\w.-]+"
"""What does not go into a file's name."""

LONGEST = 100
"""Characters of a file's name; of a longer one some digits of its hash tell it from others."""

AXIS = "cosine with the deleted record"


def draw(wide: pd.DataFrame, folder: Path, sweep: str | None = None) -> list[Path]:
    """One picture for each setting in which ``hrec`` attacked: what is lower leaks more.

    A curve is over the deletions of all seeds. The baselines are those under retraining.

    Args:
        wide: one row a cell, as ``load_results(wide=True)`` gives it.
        folder: of the results; the pictures are in ``pictures/`` there.
        sweep: its name begins the files' names.
    """
    cells = wide[(wide["attack"] == "hrec") & (wide["status"] == "ok")]
    if cells.empty:
        return []
    words = cells["overrides"].str.split()
    own = words.map(lambda each: [word for word in each if word.startswith(OWN)])
    rest = words.map(lambda each: [word for word in each if not word.startswith(OWN)])
    cells = cells.assign(setup=rest.str.join(" "), ways=own.str.join(" "))
    scores = results.load_scores(folder, cells["key"]).merge(cells, on="key")
    made = []
    for setting, found in scores.groupby(SETTING, sort=True):
        curves = {}
        ours = found[found["pool"] == "hrec"]
        by_method = {f"{m} {w}".strip(): s for (m, w), s in ours.groupby(["method", "ways"])}
        for method in sorted(by_method, key=_controls_first):
            curves[method] = by_method[method]["score"].to_numpy()
        first = found["method"] == min(found["method"], key=lambda name: (name != "retrain", name))
        for pool, name in BASELINES.items():
            curves[name] = found.loc[first & (found["pool"] == pool), "score"].to_numpy()
        low = min(0.0, *(np.floor(10 * values.min()) / 10 for values in curves.values()))
        name = "-".join(filter(None, ["cosine", sweep, *map(str, setting)]))
        name = re.sub(UNSAFE, "_", name)
        if len(name) > LONGEST:
            name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        path = folder / "pictures" / f"{name}.png"
        heading = " · ".join(map(str, setting)).strip(" ·")
        made.append(save(path, cumulative(curves, heading, AXIS, float(low), 1.0)))
    return made


def _controls_first(method: str) -> tuple[int, str]:
    return CONTROLS.index(method) if method in CONTROLS else len(CONTROLS), method
