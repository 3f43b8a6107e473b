"""How figures look: a column of a paper wide, colours that the colour-blind tell apart."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from textwrap import fill
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from unlearnbench.core import atomic

P = ParamSpec("P")

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)
"""Of Okabe and Ito; without yellow, which is too light for a line, and black, for controls."""

CONTROL = {"original": VERMILLION, "retrain": BLACK, "second_retrain": "#777777"}
QUIET = "#B8B8B8"
DASHES = ("-", "--", ":", "-.")

WIDE, WIDER = 4.8, 6.8
"""Inches: between one column of a paper and two, so that text is still read on a phone; and two."""

SETTINGS: Any = {  # matplotlib's own type of it lists all that there are
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # fonts as journals take them
    "svg.hashsalt": "unlearnbench",  # the same figure has the same bytes
}

UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


Draws = Callable[P, Figure | None]


def styled(draws: Draws[P]) -> Draws[P]:
    """The figure function, under these settings and no others."""

    @wraps(draws)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure | None:
        with mpl.rc_context(SETTINGS):
            return draws(*args, **kwargs)

    return drawn


def panels(rows: int, columns: int, height: float, width: float = WIDE) -> tuple[Figure, Any]:
    """A figure of so many panels, and its axes (rows, columns); knows no window and no state.

    Args:
        rows: of panels.
        columns: of panels.
        height: of the figure in inches.
        width: of it in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def entitle(figure: Figure, title: str) -> None:
    """A title over the whole figure, in as many lines as it takes."""
    most = int(figure.get_figwidth() * 14)
    figure.suptitle(fill(title, most), fontsize=9, x=0.01, ha="left")


def lines_down(axes: Axes, names: Sequence[str]) -> None:
    """A line of the panel for each name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def fields(axes: Axes, values_RC: NDArray[np.floating], **looks: Any) -> QuadMesh:
    """A panel of coloured fields, a row (down) and a column (across) at each whole number.

    Drawn as shapes: an image is blurred by some viewers, and takes longer.

    Args:
        axes: the panel.
        values_RC: what the colours say; NaN has none.
        looks: as ``pcolormesh`` takes them.
    """
    rows, columns = values_RC.shape
    across, down = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    shades = axes.pcolormesh(across, down, values_RC, edgecolors="white", linewidth=0.3, **looks)
    axes.set_ylim(rows - 0.5, -0.5)
    return shades


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as SVG and PDF without dates, so that the same rows give the same bytes.

    Args:
        figure: what is drawn.
        path: of the files, without a suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = []
    with mpl.rc_context(SETTINGS):
        for form, metadata in UNDATED.items():
            made.append(path.with_name(f"{path.name}.{form}"))
            with atomic.writing(made[-1]) as file:
                figure.savefig(file, format=form, metadata=metadata, dpi=200)
            figure.set_layout_engine("none")  # all has its place: the next form need not look again
            for text in figure.findobj(Text):  # a ligature is of a second font in a PDF
                text.set_fontfeatures(["-liga"])
    return made
