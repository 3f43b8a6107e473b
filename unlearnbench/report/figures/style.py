"""Style of figures: width of a paper's column, colours that are safe for colour blindness."""

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
"""Palette of Okabe and Ito without yellow, too light for lines, and black, used for controls."""

CONTROL = {"original": VERMILLION, "retrain": BLACK, "second_retrain": "#777777"}
QUIET = "#B8B8B8"
DASHES = ("-", "--", ":", "-.")

WIDE, WIDER = 4.8, 6.8
"""Inches: 4.8 lies between one and two columns, legible on a phone; 6.8 is two columns."""

SETTINGS: Any = {  # matplotlib's type lists every name
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
    "pdf.fonttype": 42,  # TrueType, as journals require
    "svg.hashsalt": "unlearnbench",  # equal figures have equal bytes
}

UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


Draws = Callable[P, Figure | None]


def styled(draws: Draws[P]) -> Draws[P]:
    """Decorate a figure function to run under ``SETTINGS``."""

    @wraps(draws)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure | None:
        with mpl.rc_context(SETTINGS):
            return draws(*args, **kwargs)

    return drawn


def panels(rows: int, columns: int, height: float, width: float = WIDE) -> tuple[Figure, Any]:
    """A figure and its axes (rows, columns), without a window or pyplot state.

    Args:
        rows: number of rows of panels.
        columns: number of columns of panels.
        height: height of the figure in inches.
        width: width of the figure in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def entitle(figure: Figure, title: str) -> None:
    """Set the title of the figure, wrapped to its width."""
    most = int(figure.get_figwidth() * 14)
    figure.suptitle(fill(title, most), fontsize=9, x=0.01, ha="left")


def lines_down(axes: Axes, names: Sequence[str]) -> None:
    """Give the panel one horizontal line per name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def fields(axes: Axes, values_RC: NDArray[np.floating], **looks: Any) -> QuadMesh:
    """Draw coloured fields; rows (down) and columns (across) are centred on integers.

    The fields are vector shapes: some viewers blur images, and images are slower to draw.

    Args:
        axes: the panel.
        values_RC: values (R, C) that the colours encode; NaN has no colour.
        looks: arguments of ``pcolormesh``.
    """
    rows, columns = values_RC.shape
    across, down = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    shades = axes.pcolormesh(across, down, values_RC, edgecolors="white", linewidth=0.3, **looks)
    axes.set_ylim(rows - 0.5, -0.5)
    return shades


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as SVG and PDF without dates, so that equal rows give equal bytes.

    Args:
        figure: the figure.
        path: path of the files, without a suffix.

    Returns:
        The paths of the files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = []
    with mpl.rc_context(SETTINGS):
        for form, metadata in UNDATED.items():
            made.append(path.with_name(f"{path.name}.{form}"))
            with atomic.writing(made[-1]) as file:
                figure.savefig(file, format=form, metadata=metadata, dpi=200)
            figure.set_layout_engine("none")  # the next format reuses the layout
            for text in figure.findobj(Text):  # a ligature would need a second font in a PDF
                text.set_fontfeatures(["-liga"])
    return made
