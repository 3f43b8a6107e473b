"""Figures of a study, as SVG and PDF: one function each, from a frame to a figure."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from unlearnbench import results
from unlearnbench.report import compare, ranking
from unlearnbench.report.figures import leakage, methods, ranks, training
from unlearnbench.report.figures.style import save
from unlearnbench.report.runs import order, placed, runs
from unlearnbench.report.statistics import Friedman
from unlearnbench.report.study import Study

UNSAFE = r"[^\w.=+-]+"
"""What does not go into a file's name."""

LONGEST = 80
"""Characters of a file's name; of a longer one some digits of its hash tell it from others."""


SAYS = {
    "pareto": (
        "Forgetting against utility against time",
        "Down is closer to retraining under attack, left is a lower test error, colour is speed. "
        "Ringed and named methods are the Pareto front: no other is better in one of the three and "
        "no worse in the others. Dashed is how far a second retraining is from the first.",
    ),
    "spread": (
        "What seeds make of it",
        "Each point is a seed, the stroke their mean, the grey band the range of second "
        "retrainings. Which differences are real is tested seed by seed, under Statistics.",
    ),
    "ranks": (
        "Ranks",
        "Mean rank over blocks, 1 is the best; methods under one bar cannot be told apart "
        "(Nemenyi's critical difference, 5 %).",
    ),
    "heatmap": (
        "Methods by setting",
        "Mean RetDev; light is close to retraining, a row of one shade is a method that "
        "does not depend on the setting.",
    ),
    "leaks": (
        "What each attack finds",
        "AUC by method and attack: white is ½, a guess; orange tells forgotten records from unseen "
        "ones, violet does so the other way round, which is as much of a trace.",
    ),
    "two_outputs": (
        "One output or two",
        "Whoever saw the model before and after the deletion (blue, with its 95 % interval) "
        "against who saw it before alone (orange). Dashed: exact retraining.",
    ),
    "roc": (
        "ROC of each attack",
        "The left end counts: how many records are told with few false alarms. Black is "
        "retraining, the floor, red the original, the ceiling; coloured are the methods that "
        "leak most, grey the others.",
    ),
    "reconstructions": (
        "How near reconstructions come",
        "Share of deleted records whose reconstruction is at most this near. A curve further right "
        "leaks more; dotted are guesses from public records.",
    ),
    "pictures": ("What the attacker sees", "Truth beside reconstructions, by method."),
    "along": (
        "Along the run",
        "Metrics after each epoch of the method; 0 is where it sets out.",
    ),
}
"""Kinds of figures in a reader's order: a heading, and how to read them."""


def draw(study: Study) -> list[Path]:
    """Write all figures whose rows are there, ``<kind>-<setting>`` as SVG and PDF.

    Args:
        study: the rows; the figures go into ``figures/`` of its report.

    Returns:
        The files.
    """
    folder = study.out / "figures"
    made = []
    for kind, setting, figure in drawn(study):
        if figure is not None:
            made += save(figure, folder / named(kind, setting))
    return made


def drawn(study: Study) -> Iterator[tuple[str, str, Figure | None]]:
    """Each figure with its kind and setting; None where the rows lack what it shows."""
    found = runs(study.wide)
    plain = found[found["defense"] == "none"]
    yield "heatmap", "", methods.heatmap(plain)
    yield "ranks", "", ranks.critical(*_ranked(study))
    for setting, same in plain.groupby("setting", sort=True):
        yield "pareto", str(setting), methods.pareto(same)
        yield "spread", str(setting), methods.spread(same)
        yield "two_outputs", str(setting), leakage.two_outputs(same)
    for setting, same in found.groupby("setting", sort=True):
        yield "leaks", str(setting), leakage.leaks(same)
    yield from _of_cells(study)
    steps = study.frame[study.frame["step"].notna() & study.frame["value"].notna()]
    for setting, same in placed(steps).groupby("setting", sort=True):
        yield "along", str(setting), training.along(same)


def _ranked(study: Study) -> tuple[pd.DataFrame, Friedman | None]:
    rows = compare.runs(study.frame)
    return ranking.ranked(rows, compare.values(rows), "ret_dev")


def _of_cells(study: Study) -> Iterator[tuple[str, str, Figure | None]]:
    """Figures of what stands beside the rows: ROC curves, scores of records, pictures."""
    cells = placed(study.wide)
    if (study.folder / "roc").is_dir():
        curves = results.load_roc(study.folder, cells["key"]).merge(cells, on="key")
        for setting, same in curves.groupby("setting", sort=True):
            yield "roc", str(setting), leakage.roc(same, str(setting))
    rebuilt = cells[cells["attack"] == "hrec"]
    if len(rebuilt) and (study.folder / "scores").is_dir():
        scores = results.load_scores(study.folder, rebuilt["key"]).merge(rebuilt, on="key")
        for setting, same in scores.groupby("setting", sort=True):
            yield "reconstructions", str(setting), leakage.reconstructions(same, str(setting))
    files = {path.stem[-8:]: path for path in (study.folder / "pictures").glob("*.png")}
    seen = cells[cells["key"].str[:8].isin(files)]
    for (whose, where), same in seen.groupby(["attack", "setting"], sort=True):
        first = same.sort_values("seed").drop_duplicates("line")
        keys = dict(zip(first["line"], first["key"], strict=True))
        by_line = {line: files[keys[line][:8]] for line in order(same)}
        yield f"pictures_of_{whose}", str(where), leakage.pictures(by_line, str(where))


def named(kind: str, setting: str) -> str:
    """The name of a figure's files; of a long one a hash tells it from others."""
    name = re.sub(UNSAFE, "-", f"{kind}-{setting}" if setting else kind)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name
