"""Figures of a study as SVG and PDF; each kind has one function from a frame to a figure."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from unlearnbench.core.cell import AXES
from unlearnbench.report.analysis import ranking
from unlearnbench.report.analysis.runs import order, placed, runs
from unlearnbench.report.analysis.statistics import Friedman
from unlearnbench.report.analysis.study import Study
from unlearnbench.report.figures import leakage, methods, ranks, training
from unlearnbench.report.figures.style import save
from unlearnbench.results import load

UNSAFE = r"[^\w.=+-]+"
"""Characters that file names do not contain."""

LONGEST = 80
"""Most characters of a file name; a longer name is cut and gets digits of its hash."""

EACH = slice(None)


def draw(study: Study, without: Collection[str] = (), share: slice = EACH) -> list[Path]:
    """Write the figures that the study has rows for, ``<kind>-<setting>`` as SVG and PDF.

    Args:
        study: the rows; the figures are written to ``figures/`` of its report.
        without: settings that get no figures of their own.
        share: slice of all figures that this process draws.

    Returns:
        The paths of the files.
    """
    folder = study.out / "figures"
    study, without = as_text(study), [name.replace("$", DOLLAR) for name in without]
    made = []
    for kind, setting, drawn in list(drawings(study, without))[share]:
        figure = drawn()
        if figure is not None:
            made += save(figure, folder / named(kind, setting))
    return made


DOLLAR = r"\$"
"""Escaped dollar sign: matplotlib draws the sign instead of starting a formula."""


def as_text(study: Study) -> Study:
    """The same study with dollar signs in names escaped for matplotlib."""
    frame, wide = _as_text(study.frame), _as_text(study.wide)
    if frame is study.frame and wide is study.wide:
        return study
    return replace(study, frame=frame, wide=wide)


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    texts_by_column = {name: frame[name].dropna().unique() for name in [*AXES, "overrides"]}
    names = [name for name, texts in texts_by_column.items() if any("$" in text for text in texts)]
    plain = {name: frame[name].str.replace("$", DOLLAR, regex=False) for name in names}
    return frame.assign(**plain) if plain else frame


Drawing = tuple[str, str, Callable[[], Figure | None]]
"""Kind, setting, and a function that draws the figure; None where the rows lack its data."""


def drawings(study: Study, without: Collection[str] = ()) -> Iterator[Drawing]:
    """All figures of a study: those over all settings, then those of each setting."""
    frame = runs(study.cells)
    plain = frame[frame["defense"] == "none"]
    yield "heatmap", "", partial(methods.heatmap, plain)
    yield "ranks", "", lambda: ranks.critical(*_ranked(study))
    frame = frame[~frame["setting"].isin(without)]
    for setting, same in frame[frame["defense"] == "none"].groupby("setting", sort=True):
        yield "pareto", str(setting), partial(methods.pareto, same)
        yield "spread", str(setting), partial(methods.spread, same)
        yield "two_outputs", str(setting), partial(leakage.two_outputs, same)
    for setting, same in frame.groupby("setting", sort=True):
        yield "leaks", str(setting), partial(leakage.leaks, same)
    yield from _of_cells(study, without)
    steps = placed(study.frame[study.frame["step"].notna() & study.frame["value"].notna()])
    for setting, same in steps[~steps["setting"].isin(without)].groupby("setting", sort=True):
        yield "along", str(setting), partial(training.along, same)


def _ranked(study: Study) -> tuple[pd.DataFrame, Friedman | None]:
    return ranking.ranked(study.asked, study.found, "ret_dev")


def _of_cells(study: Study, without: Collection[str]) -> Iterator[Drawing]:
    """Figures from files beside the rows: ROC curves, scores of records, pictures."""
    cells = study.cells
    cells = cells[~cells["setting"].isin(without)]
    if (study.folder / "roc").is_dir():
        curves = load.load_roc(study.folder, cells["key"]).merge(cells, on="key")
        for setting, same in curves.groupby("setting", sort=True):
            yield "roc", str(setting), partial(leakage.roc, same, str(setting))
    rebuilt = cells[cells["attack"] == "hrec"]
    if len(rebuilt) and (study.folder / "scores").is_dir():
        scores = load.load_scores(study.folder, rebuilt["key"]).merge(rebuilt, on="key")
        for setting, same in scores.groupby("setting", sort=True):
            draws = partial(leakage.reconstructions, same, str(setting))
            yield "reconstructions", str(setting), draws
    files = {path.stem[-8:]: path for path in (study.folder / "pictures").glob("*.png")}
    seen = cells[cells["key"].str[:8].isin(files)]
    for (attack, where), same in seen.groupby(["attack", "setting"], sort=True):
        first = same.sort_values("seed").drop_duplicates("line")
        keys = dict(zip(first["line"], first["key"], strict=True))
        by_line = {line: files[keys[line][:8]] for line in order(same)}
        yield f"pictures_of_{attack}", str(where), partial(leakage.pictures, by_line, str(where))


def named(kind: str, setting: str) -> str:
    """File name of a figure without suffix; a long name is cut and gets digits of its hash."""
    name = re.sub(UNSAFE, "-", f"{kind}-{setting}" if setting else kind)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name
