"""Mean ranks of methods over blocks and their critical difference."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from unlearnbench.report.analysis.statistics import Friedman
from unlearnbench.report.figures.style import BLACK, QUIET, entitle, panels, styled
from unlearnbench.report.page import glossary


def alike(means: pd.Series, apart: float) -> list[tuple[float, float]]:
    """First and last rank of each maximal run of mean ranks that spans less than ``apart``.

    Args:
        means: mean ranks, sorted.
        apart: the critical difference.
    """
    at = means.to_numpy()
    bars: list[tuple[float, float]] = []
    for first, low in enumerate(at):
        last = int(np.flatnonzero(at - low < apart)[-1])
        if last > first and (not bars or at[last] > bars[-1][1]):
            bars.append((float(low), float(at[last])))
    return bars


@styled
def critical(table: pd.DataFrame, test: Friedman | None, metric: str = "ret_dev") -> Figure | None:
    """Mean rank over blocks (across, 1 is best); bars join methods that the test cannot separate.

    A bar is shorter than Nemenyi's critical difference. Where there are too few blocks for any two
    methods to differ, one bar joins all methods.

    Args:
        table: ``mean_rank`` of each ``method`` with its ``own`` overrides, from
            ``ranking.ranked``.
        test: Friedman test of the same ranks; None where no block is complete.
        metric: name of the metric that the ranks are of.
    """
    if len(table) < 3:
        return None
    names = (table["method"] + " " + table["own"]).str.strip()
    means = pd.Series(table["mean_rank"].to_numpy(), names).sort_values()
    methods, apart = len(means), test.critical if test is not None else np.inf
    bars = alike(means, apart) if test is not None else []
    half = (methods + 1) // 2
    step, top = 0.17, 0.5 + 0.1 * len(bars)
    height = top + step * (half + 1) + 0.35
    figure, grid = panels(1, 1, height)
    axes = grid[0, 0]
    axes.set_xlim(0.5, methods + 0.5)
    axes.set_ylim(top + step * half, 0)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.xaxis.tick_top()
    axes.set_xticks(_tick_ranks(methods))
    axes.set_yticks([])
    if test is not None and test.can_tell:
        axes.plot([0.7, 0.7 + apart], [0.1, 0.1], color=BLACK, linewidth=1.5)
        axes.text(0.7 + apart, 0.1, f"  CD = {apart:.1f}", va="center", fontsize=7)
    for place, (low, high) in enumerate(bars):
        at = 0.28 + 0.1 * place
        axes.plot([low - 0.06, high + 0.06], [at, at], color=BLACK, linewidth=2.2)
    for place, (line, mean) in enumerate(means.items()):
        on_left = place < half
        depth = top + step * (place if on_left else methods - 1 - place)
        end = 0.5 if on_left else methods + 0.5
        axes.plot([mean, mean, end], [0, depth, depth], color=QUIET, linewidth=0.7, zorder=0)
        axes.text(
            end,
            depth,
            f"{line} {mean:.1f} " if on_left else f" {mean:.1f} {line}",
            ha="right" if on_left else "left",
            va="center",
            fontsize=7,
        )
    entitle(figure, f"Mean rank by {glossary.label(metric)}{_says(test, methods)}")
    return figure


def _says(test: Friedman | None, methods: int) -> str:
    """The conclusion from the ranks, for the title."""
    if test is None:
        return ". No block has all seeds of all methods, so nothing is tested."
    scope = f" over {blocks(test.blocks)}."
    if not test.can_tell:
        apart = f"critical difference {test.critical:.1f}"
        return f"{scope} Too few to tell any two of {methods} methods apart ({apart})."
    if not np.isfinite(test.p):
        return scope
    p = "< .001" if test.p < 0.001 else f"= {test.p:.3f}"
    return f"{scope} Friedman's test that all are alike: p {p}."


def blocks(n: int) -> str:
    """The number of blocks as text."""
    return f"{n} block{'s' if n > 1 else ''} (data set, model and task)"


def _tick_ranks(methods: int) -> list[int]:
    step = 1 if methods <= 12 else 2
    return list(range(1, methods + 1, step))
