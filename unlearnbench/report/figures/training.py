"""Figure of metrics along runs, for rows with steps."""

import pandas as pd
from matplotlib.figure import Figure

from unlearnbench.report.analysis.runs import order
from unlearnbench.report.figures.style import (
    COLOURS,
    CONTROL,
    DASHES,
    WIDER,
    entitle,
    panels,
    styled,
)
from unlearnbench.report.page import glossary
from unlearnbench.report.tables.along import SHOWN


@styled
def along(steps: pd.DataFrame) -> Figure | None:
    """Means over seeds of each metric (up) by epoch of the method (across), one panel per metric.

    A step has a mean only where all seeds of the method reached it.

    Args:
        steps: result rows with a step, of one setting, with their ``line``.
    """
    shown = [metric for metric in SHOWN if (steps["metric"] == metric).any()]
    if not shown:
        return None
    down = -(-len(shown) // 2)
    figure, grid = panels(down, min(2, len(shown)), 1.9 * down + 0.8, WIDER)
    lines = order(steps)
    rest = [line for line in lines if line not in CONTROL]
    for axes, metric in zip(grid.flat, shown, strict=False):
        same = steps[steps["metric"] == metric]
        for line in lines:
            by_seed = same[same["line"] == line].pivot(index="step", columns="seed", values="value")
            mean = by_seed.mean(axis=1, skipna=False).dropna()
            place = rest.index(line) if line in rest else 0
            colour = CONTROL.get(line, COLOURS[place % len(COLOURS)])
            dash = DASHES[place // len(COLOURS) % len(DASHES)]
            axes.plot(mean.index, mean, color=colour, linestyle=dash, label=line, marker=".")
        axes.set_title(glossary.label(metric))
        axes.grid()
        axes.set_xlabel("epochs of the method")
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    entitle(figure, steps["setting"].iloc[0])
    return figure
