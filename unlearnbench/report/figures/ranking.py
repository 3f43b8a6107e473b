"""Which methods are told apart over all settings and seeds: ranks and their critical difference."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from unlearnbench.report import glossary
from unlearnbench.report.figures.style import BLACK, QUIET, entitle, panels, styled
from unlearnbench.report.leaderboard import CONTROLS

ALPHA = 0.05


def ranks(found: pd.DataFrame, metric: str = "ret_dev") -> pd.DataFrame:
    """Ranks (blocks, methods), 1 the lowest value; a block is a seed of a setting.

    Methods that lack a block are left out, and controls.

    Args:
        found: runs without a defense.
        metric: lower is better.
    """
    if metric not in found:
        return pd.DataFrame()
    ours = found[~found["method"].isin(CONTROLS)]
    blocks = ours.pivot_table(metric, ["setting", "seed"], "line", aggfunc="mean", dropna=False)
    blocks = blocks.dropna(how="all").dropna(axis=1)
    return blocks.rank(axis=1)


def critical_difference(methods: int, blocks: int) -> float:
    """How far two mean ranks must be apart: q √(k (k + 1) / 6N), Demšar (2006), Nemenyi's test.

    q is the upper 5 % point of the studentised range of k normals over √2.

    Args:
        methods: k.
        blocks: N.
    """
    q = stats.studentized_range.ppf(1 - ALPHA, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def alike(means: pd.Series, apart: float) -> list[tuple[float, float]]:
    """Ends of each longest run of mean ranks that are less than ``apart`` from end to end.

    Args:
        means: ranks, sorted.
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
def critical(found: pd.DataFrame, metric: str = "ret_dev") -> Figure | None:
    """Mean rank of each method (across, 1 the best), and bars over those that cannot be told apart.

    Blocks are settings and seeds. Seeds of one setting share its data: where there is one setting
    only, the bars speak of it and of no other.

    Args:
        found: runs of the whole study, without a defense.
        metric: lower is better.
    """
    ranked = ranks(found, metric)
    blocks, methods = ranked.shape
    if methods < 3 or blocks < 2:
        return None
    means = ranked.mean().sort_values()
    apart = critical_difference(methods, blocks)
    bars = alike(means, apart)
    half = (methods + 1) // 2
    step, top = 0.17, 0.5 + 0.1 * len(bars)
    height = top + step * (half + 1) + 0.35
    figure, grid = panels(1, 1, height)
    axes = grid[0, 0]
    axes.set_xlim(0.5, methods + 0.5)
    axes.set_ylim(height - 0.35, 0)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.xaxis.tick_top()
    axes.set_xticks(_whole(methods))
    axes.set_yticks([])
    axes.plot([0.7, 0.7 + apart], [0.1, 0.1], color=BLACK, linewidth=1.5)
    axes.text(0.7 + apart, 0.1, f"  critical difference {apart:.1f}", va="center", fontsize=7)
    for place, (low, high) in enumerate(bars):
        at = 0.28 + 0.1 * place
        axes.plot([low - 0.06, high + 0.06], [at, at], color=BLACK, linewidth=2.2)
    for place, (line, mean) in enumerate(means.items()):
        left = place < half
        depth = top + step * (place if left else methods - 1 - place)
        end = 0.5 if left else methods + 0.5
        axes.plot([mean, mean, end], [0, depth, depth], color=QUIET, linewidth=0.7, zorder=0)
        axes.text(
            end,
            depth,
            f"{line} {mean:.1f} " if left else f" {mean:.1f} {line}",
            ha="right" if left else "left",
            va="center",
            fontsize=7,
        )
    p = stats.friedmanchisquare(*ranked.to_numpy().T).pvalue
    told = f"{blocks} blocks; all alike: p {'< .001' if p < 0.001 else f'= {p:.3f}'} (Friedman)"
    entitle(figure, f"Mean rank by {glossary.label(metric)}; {told}")
    return figure


def _whole(methods: int) -> list[int]:
    step = 1 if methods <= 12 else 2
    return list(range(1, methods + 1, step))
