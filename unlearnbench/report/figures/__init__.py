"""Figures of a study, as SVG and PDF: one function each, from a frame to a figure."""

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
"""What does not go into a file's name."""

LONGEST = 80
"""Characters of a file's name; of a longer one some digits of its hash tell it from others."""

EACH = slice(None)


def draw(study: Study, without: Collection[str] = (), share: slice = EACH) -> list[Path]:
    """Write the figures whose rows are there, ``<kind>-<setting>`` as SVG and PDF.

    Args:
        study: the rows; the figures go into ``figures/`` of its report.
        without: settings that get no figures of their own.
        share: which of them all to draw, where several processes draw one study.

    Returns:
        The files.
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
"""What matplotlib takes for the sign itself, and not for where a formula begins."""


def as_text(study: Study) -> Study:
    """The same study with names that are drawn as they are."""
    frame, wide = _as_text(study.frame), _as_text(study.wide)
    if frame is study.frame and wide is study.wide:
        return study
    return replace(study, frame=frame, wide=wide)


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    given = {name: frame[name].dropna().unique() for name in [*AXES, "overrides"]}
    names = [name for name, texts in given.items() if any("$" in text for text in texts)]
    plain = {name: frame[name].str.replace("$", DOLLAR, regex=False) for name in names}
    return frame.assign(**plain) if plain else frame


Drawing = tuple[str, str, Callable[[], Figure | None]]
"""A kind of figure, its setting, and what draws it; None where the rows lack what it shows."""


def drawings(study: Study, without: Collection[str] = ()) -> Iterator[Drawing]:
    """What there is to draw, of all settings together and of each by itself."""
    found = runs(study.cells)
    plain = found[found["defense"] == "none"]
    yield "heatmap", "", partial(methods.heatmap, plain)
    yield "ranks", "", lambda: ranks.critical(*_ranked(study))
    found = found[~found["setting"].isin(without)]
    for setting, same in found[found["defense"] == "none"].groupby("setting", sort=True):
        yield "pareto", str(setting), partial(methods.pareto, same)
        yield "spread", str(setting), partial(methods.spread, same)
        yield "two_outputs", str(setting), partial(leakage.two_outputs, same)
    for setting, same in found.groupby("setting", sort=True):
        yield "leaks", str(setting), partial(leakage.leaks, same)
    yield from _of_cells(study, without)
    steps = placed(study.frame[study.frame["step"].notna() & study.frame["value"].notna()])
    for setting, same in steps[~steps["setting"].isin(without)].groupby("setting", sort=True):
        yield "along", str(setting), partial(training.along, same)


def _ranked(study: Study) -> tuple[pd.DataFrame, Friedman | None]:
    return ranking.ranked(study.asked, study.found, "ret_dev")


def _of_cells(study: Study, without: Collection[str]) -> Iterator[Drawing]:
    """Figures of what stands beside the rows: ROC curves, scores of records, pictures."""
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
    for (whose, where), same in seen.groupby(["attack", "setting"], sort=True):
        first = same.sort_values("seed").drop_duplicates("line")
        keys = dict(zip(first["line"], first["key"], strict=True))
        by_line = {line: files[keys[line][:8]] for line in order(same)}
        yield f"pictures_of_{whose}", str(where), partial(leakage.pictures, by_line, str(where))


def named(kind: str, setting: str) -> str:
    """The name of a figure's files; of a long one a hash tells it from others."""
    name = re.sub(UNSAFE, "-", f"{kind}-{setting}" if setting else kind)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name
