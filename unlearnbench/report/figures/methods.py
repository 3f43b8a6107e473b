"""Figures of methods: forgetting against utility against time, seeds, all settings."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from unlearnbench.report.analysis.runs import order
from unlearnbench.report.figures.style import (
    BLACK,
    BLUE,
    CONTROL,
    QUIET,
    WIDER,
    entitle,
    fields,
    lines_down,
    panels,
    styled,
)
from unlearnbench.report.page import glossary

FORGETTING = (
    *("ulira_auc", "lira_auc", "rmia_auc", "class_shadow_auc", "mia_test_auc"),
    *("forget_acc", "rmse_forget"),
)
"""Metrics of forgetting by precedence: the strongest attack is first."""

UTILITY = ("test_acc", "rmse_test")


def front(points_NK: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Pareto front: points that no other point dominates (no worse in all K, better in one).

    Args:
        points_NK: N points of K values each; larger is better.

    Returns:
        Mask (N,) of the front.
    """
    no_worse_NN = (points_NK[:, None] >= points_NK[None]).all(axis=2)
    better_NN = (points_NK[:, None] > points_NK[None]).any(axis=2)
    beaten_N = (no_worse_NN & better_NN).any(axis=0)
    return np.logical_not(beaten_N)


def against(frame: pd.DataFrame) -> pd.DataFrame | None:
    r"""Distance, utility and time of each method, means over seeds; None where a metric is missing.

    Args:
        frame: runs of one setting.

    Returns:
        By line: ``distance``, the mean over seeds of \|figure − that of retraining\| of the
        first usable metric of ``FORGETTING``; ``utility``, the first of ``UTILITY``; ``rte``;
        ``method``, and ``front``. ``attrs`` has the names of the two metrics.
    """
    if "rte" not in frame:
        return None
    counts = frame.groupby("method").count()
    for forgetting in FORGETTING:
        usable = forgetting in counts and "retrain" in counts.index
        if usable and counts.at["retrain", forgetting] and counts[forgetting].gt(0).sum() > 2:
            break
    else:
        return None
    utility = next((name for name in UTILITY if name in frame), None)
    if utility is None:
        return None
    retrain = frame[frame["method"] == "retrain"].set_index("seed")[forgetting]
    apart = (frame[forgetting] - frame["seed"].map(retrain)).abs()
    table = (
        frame.assign(distance=apart, utility=frame[utility])
        .groupby(["method", "line"])[["distance", "utility", "rte"]]
        .mean()
        .dropna(subset=["distance", "utility"])
        .reset_index("method")
    )
    table = table[table["rte"].notna() | table["method"].isin(CONTROL)]
    others = table[~table["method"].isin(CONTROL)]
    if others.empty:
        return None
    sign = 1 if utility == "test_acc" else -1
    sides = np.stack([-others["distance"], sign * others["utility"], others["rte"]], axis=1)
    table = table.assign(front=False)
    table.loc[others.index, "front"] = front(sides)
    table.attrs = {"forgetting": forgetting, "utility": utility}
    return table


@styled
def pareto(frame: pd.DataFrame) -> Figure | None:
    """Test error (across), distance from retraining under attack (up), time (colour).

    Rings and names mark the Pareto front. The dashed line is the distance between two retrainings,
    which is noise; the star is retraining.

    Args:
        frame: runs of one setting.
    """
    table = against(frame)
    if table is None:
        return None
    forgetting, utility = table.attrs["forgetting"], table.attrs["utility"]
    if utility == "test_acc":  # a logarithmic axis separates errors near 0, not accuracies
        table["utility"] = 1 - table["utility"]
    table["utility"] = table["utility"].clip(lower=1e-4)
    figure, grid = panels(1, 1, 4.4)
    axes = grid[0, 0]
    axes.set_xscale("log")
    axes.set_yscale("function", functions=(np.sqrt, np.square))  # spreads values near 0, shows 0
    others = table[~table["method"].isin(CONTROL)]
    speed = others["rte"].clip(lower=1e-3)
    norm = LogNorm(min(1.0, speed.min()), max(10.0, speed.max()))
    dots = axes.scatter(
        others["utility"], others["distance"], c=speed, norm=norm, cmap="cividis", s=26, zorder=3
    )
    best = others[others["front"]]
    ring = {"s": 75, "facecolors": "none", "edgecolors": BLACK, "linewidths": 0.9, "zorder": 3}
    axes.scatter(best["utility"], best["distance"], **ring)
    retrain = table[table["method"] == "retrain"]
    axes.scatter(retrain["utility"], retrain["distance"], marker="*", s=80, c=BLACK, zorder=4)
    for noise in table.loc[table["method"] == "second_retrain", "distance"]:
        axes.axhline(noise, color=CONTROL["second_retrain"], linestyle="--", linewidth=0.8)
        said = {"xytext": (-3, 2), "textcoords": "offset points", "ha": "right", "fontsize": 7}
        axes.annotate("a second retraining", (1, noise), **said, xycoords=("axes fraction", "data"))
    axes.set_ylim(0, 1.15 * table.loc[table["method"] != "original", "distance"].max())
    axes.margins(x=0.08)
    error = "test error" if utility == "test_acc" else glossary.label(utility)
    axes.set_xlabel(f"{error} (logarithmic; left is better)")
    axes.set_ylabel(f"|Δ {glossary.label(forgetting)}| to retraining (down is better)")
    if utility == "test_acc":
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.minorticks_off()
        axes.set_xticks(_ticks(*axes.get_xlim()))
    axes.grid()
    axes.set_axisbelow(True)
    _name_beside(axes, pd.concat([best, retrain]))
    bar = figure.colorbar(dots, ax=axes, location="bottom", aspect=40, shrink=0.9)
    bar.ax.xaxis.set_major_formatter("{x:g}")
    bar.set_label("times as fast as retraining")
    entitle(figure, frame["setting"].iloc[0])
    return figure


def _ticks(low: float, high: float) -> Sequence[float]:
    """1, 2 and 5 times powers of ten in [low, high]; even steps where there are fewer than 3."""
    steps = [m * 10.0**e for e in range(-5, 1) for m in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    return (
        ticks
        if len(ticks) > 2
        else MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)[1:-1]
    )


def _name_beside(axes: Axes, table: pd.DataFrame) -> None:
    """Write the names of points in a column at the right, with a line from each to its point."""
    table = table.sort_values("distance")
    top = np.sqrt(axes.get_ylim()[1])
    wanted = np.sqrt(table["distance"].to_numpy()) / top
    at = spaced(wanted, NAME_HEIGHT)
    for (line, point), height in zip(table.iterrows(), at, strict=True):
        axes.annotate(
            str(line),
            (point["utility"], point["distance"]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkB": 4},
        )


NAME_HEIGHT = 0.045
"""Height of a name as a share of the panel."""


def spaced(wanted_n: NDArray[np.floating], least: float) -> NDArray[np.floating]:
    """Sorted positions in [0, 1], moved up or down so that neighbours keep a least distance.

    Args:
        wanted_n: positions, sorted.
        least: least distance of neighbours.
    """
    at_n = wanted_n.copy()
    for place in range(1, len(at_n)):
        at_n[place] = max(at_n[place], at_n[place - 1] + least)
    at_n -= max(0.0, at_n[-1] - 1) if len(at_n) else 0.0
    for place in range(len(at_n) - 2, -1, -1):
        at_n[place] = min(at_n[place], at_n[place + 1] - least) if at_n[place] < 0 else at_n[place]
    return at_n


ROOTS = (0, 0.05, 0.2, 0.5, 1, 2, 4, 8)
"""Ticks of an axis with a square root scale."""

SPREAD = ("ret_dev", "mia_test_auc", "test_acc")


@styled
def spread(frame: pd.DataFrame) -> Figure | None:
    """One line per method, one point per seed; strokes are means. Grey: range of retraining.

    Args:
        frame: runs of one setting.
    """
    shown = [name for name in SPREAD if name in frame and frame[name].notna().any()]
    if not shown or frame["seed"].nunique() < 2:
        return None
    lines = [name for name in order(frame, shown[0]) if name != "original"]
    figure, grid = panels(1, len(shown), 0.9 + 0.17 * len(lines), WIDER)
    for axes, metric in zip(grid[0], shown, strict=True):
        lines_down(axes, lines if axes is grid[0, 0] else [""] * len(lines))
        retrain = frame.loc[frame["method"] == "second_retrain", metric].dropna()
        if len(retrain):
            axes.axvspan(retrain.min(), retrain.max(), color="#EEEEEE", zorder=0)
        for place, line in enumerate(lines):
            values = frame.loc[frame["line"] == line, metric].dropna().to_numpy()
            if not len(values):
                continue
            apart = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [0.0]
            colour = CONTROL.get(line, BLUE)
            axes.plot(values, place + np.asarray(apart), ".", ms=3.5, color=colour, alpha=0.75)
            axes.vlines(values.mean(), place - 0.36, place + 0.36, color=colour, linewidth=1.4)
        axes.set_xlabel(glossary.headed(metric))
        if metric == "ret_dev":
            axes.set_xscale("function", functions=(np.sqrt, np.square))
            axes.set_xlim(left=0)
            axes.set_xticks([tick for tick in ROOTS if tick <= axes.get_xlim()[1]])
    entitle(figure, frame["setting"].iloc[0])
    return figure


LEGIBLE = 8
"""Most settings for which a number in each field is legible in print."""


@styled
def heatmap(frame: pd.DataFrame, metric: str = "ret_dev") -> Figure | None:
    """Methods down, settings across: means over seeds as colours; as numbers for few settings.

    Args:
        frame: runs of the whole study, without a defense.
        metric: name of a metric; lower is better.
    """
    frame = frame[frame[metric].notna()] if metric in frame else frame[:0]
    if frame["setting"].nunique() < 2 or frame["control"].all():
        return None
    table = frame.pivot_table(metric, "line", "setting", aggfunc="mean", sort=True)
    table = table.loc[[line for line in order(frame, metric) if line in table.index]]
    few = table.shape[1] <= LEGIBLE
    width = 1.8 + (0.75 if few else 0.35) * table.shape[1]
    figure, grid = panels(1, 1, (1.3 if few else 2.8) + 0.19 * len(table), max(3.4, width))
    axes = grid[0, 0]
    values = table.to_numpy()
    shades = fields(axes, values, cmap="cividis_r", norm=_scale(values))
    if few:
        _write(axes, values, shades)
    axes.set_yticks(range(len(table)), table.index)
    names = [str(name).replace(" · ", "\n") if few else str(name) for name in table.columns]
    axes.set_xticks(range(table.shape[1]), names, rotation=0 if few else 90)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(shades, ax=axes, label=glossary.headed(metric), aspect=40)
    return figure


def _scale(values: NDArray[np.floating]) -> LogNorm | None:
    """A logarithmic scale where all values are positive and their ratio exceeds 100."""
    least, most = np.nanmin(values), np.nanmax(values)
    return LogNorm(least, most) if least > 0 and most / least > 100 else None


def _write(axes, values, shades) -> None:  # type: ignore[no-untyped-def]
    """Write the number into each field, white on dark colours and black on light ones."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = shades.cmap(shades.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        text = f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
        colour = "white" if dark else "black"
        wrote = axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
        wrote.set_in_layout(False)  # it lies inside the panel, so the layout ignores it
