"""Figures of attacks: ROC curves, AUCs by method, two outputs against one, reconstructions."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from unlearnbench.report.analysis.columns import CONTROLS
from unlearnbench.report.analysis.runs import order
from unlearnbench.report.figures.style import (
    BLACK,
    BLUE,
    COLOURS,
    CONTROL,
    DASHES,
    ORANGE,
    QUIET,
    WIDE,
    WIDER,
    entitle,
    fields,
    lines_down,
    panels,
    styled,
)
from unlearnbench.report.page import glossary

NAMED = 4
"""Number of curves per panel with a colour and a name, without the controls."""

LEAST = 1e-4
"""Least lower limit of the logarithmic axis of true positive rates."""


@styled
def roc(curves: pd.DataFrame, title: str) -> Figure | None:
    """True (up) against false positive rate (across) on logarithmic axes, one panel per attack.

    Thick lines are the baselines: retraining, the floor, and the original, the ceiling. For an
    attack on two outputs, the original compared with itself is the floor. Coloured lines are the
    methods that leak most (mean log of the true positive rate), grey lines are the others; the
    dotted line is a guess.

    Args:
        curves: ``attack``, ``method``, ``line``, ``key``, ``fpr``, ``tpr`` of one setting.
        title: the setting.
    """
    if curves.empty:
        return None
    attacks = sorted(curves["attack"].unique())
    down = -(-len(attacks) // 2)
    figure, grid = panels(
        down, min(2, len(attacks)), 2.3 * down + 0.3, WIDER if len(attacks) > 1 else WIDE
    )
    for axes, attack in zip(grid.flat, attacks, strict=False):
        _roc(axes, curves[curves["attack"] == attack])
        axes.set_title(f"{glossary.attack(attack)}")
    for axes in grid.flat[len(attacks) :]:
        axes.set_visible(False)
    entitle(figure, title)
    return figure


def _roc(axes: Axes, curves: pd.DataFrame) -> None:
    means = {line: over_seeds(same) for line, same in curves.groupby("line", sort=True)}
    curve_of = {line: curve for line, curve in means.items() if line not in CONTROLS}
    leaking = sorted(curve_of, key=lambda line: -leak(*curve_of[line]))[:NAMED]
    quiet = [
        np.stack([fpr, _seen(tpr)], 1)
        for line, (fpr, tpr) in curve_of.items()
        if line not in leaking
    ]
    axes.add_collection(LineCollection(quiet, colors=QUIET, linewidths=0.6, zorder=1))
    for line, colour in zip(leaking, COLOURS, strict=False):
        fpr, tpr = curve_of[line]
        axes.plot(fpr, _seen(tpr), color=colour, linewidth=1.0, label=line, zorder=3)
    for line in ("retrain", "original"):
        if line in means:
            fpr, tpr = means[line]
            axes.plot(fpr, _seen(tpr), color=CONTROL[line], linewidth=1.9, label=line, zorder=2)
    least = min(fpr[0] for fpr, _ in means.values())
    axes.plot([least, 1], [least, 1], ":", color="#555555", linewidth=0.8, zorder=1)
    axes.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(max(least, LEAST), 1.05))
    axes.minorticks_off()
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=1.2, labelspacing=0.3)


def _seen(tpr: NDArray[np.floating]) -> NDArray[np.floating]:
    """The rates with NaN for zeros, which a logarithmic axis cannot show."""
    return np.where(tpr > 0, tpr, np.nan)


def over_seeds(curves: pd.DataFrame) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The mean ROC curve over cells, at 100 false positive rates that all cells cover.

    Args:
        curves: ``key``, ``fpr``, ``tpr`` of one method.

    Returns:
        False positive rates (100,) and mean true positive rates (100,).
    """
    each = [curve.sort_values("fpr") for _, curve in curves.groupby("key")]
    grid = np.geomspace(max(curve["fpr"].min() for curve in each), 1, 100)
    rates = [np.interp(np.log(grid), np.log(curve["fpr"]), curve["tpr"]) for curve in each]
    return grid, np.mean(rates, axis=0)


def leak(fpr: NDArray[np.floating], tpr: NDArray[np.floating]) -> float:
    """Mean log of the true positive rate over false positive rates with even logarithmic steps."""
    return float(np.log(np.maximum(tpr, fpr[0] / 10)).mean())


AUCS = (
    *("mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc", "class_shadow_auc"),
    *("classical_auc", "double_output_auc"),
)


@styled
def leaks(frame: pd.DataFrame) -> Figure | None:
    """Methods down, attacks across: mean AUC over seeds; white is ½, a guess.

    Args:
        frame: runs of one setting.
    """
    shown = [name for name in AUCS if name in frame and frame[name].notna().any()]
    if len(shown) < 2:
        return None
    table = frame.groupby("line")[shown].mean()
    far = (table - 0.5).abs().max(axis=1)
    table = table.loc[order(frame.assign(far=frame["line"].map(far)), "far")]
    figure, grid = panels(1, 1, 1.1 + 0.17 * len(table), max(3.6, 1.6 + 0.62 * len(shown)))
    axes = grid[0, 0]
    shades = fields(axes, table.to_numpy(), cmap="PuOr_r", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if np.isfinite(value):
            colour = "white" if abs(value - 0.5) > 0.36 else "black"
            text = f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    axes.set_yticks(range(len(table)), table.index)
    names = [glossary.label(name).removesuffix(" AUC").replace(" ", "\n") for name in shown]
    axes.set_xticks(range(len(shown)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(shades, ax=axes, label="AUC: ½ is a guess", aspect=40, ticks=[0, 0.5, 1])
    entitle(figure, frame["setting"].iloc[0])
    return figure


@styled
def two_outputs(frame: pd.DataFrame) -> Figure | None:
    """AUC (across) of the attack on the output before and on both outputs, one line per method.

    Strokes are 95 % intervals over target models, as means over seeds. Dashed: retraining.

    Args:
        frame: runs of one setting.
    """
    if not {"double_output_auc", "classical_auc"} <= set(frame):
        return None
    bounds = ["double_output_auc_low", "double_output_auc_high"]
    shown = ["classical_auc", "double_output_auc", *(name for name in bounds if name in frame)]
    means = frame.groupby("line")[shown].mean()
    means = means.dropna(subset=["double_output_auc"])
    lines = [line for line in order(frame, "double_output_auc") if line in means.index]
    figure, grid = panels(1, 1, 1.0 + 0.17 * len(lines))
    axes = grid[0, 0]
    lines_down(axes, lines)
    table = means.loc[lines]
    at = np.arange(len(lines))
    axes.axvline(0.5, color="#555555", linestyle=":", linewidth=0.8)
    if "retrain" in table.index:
        reference = table["double_output_auc"].to_dict()["retrain"]
        axes.axvline(reference, color=BLACK, linestyle="--", linewidth=0.8)
    axes.hlines(
        at, table["classical_auc"], table["double_output_auc"], color=QUIET, linewidth=1, zorder=1
    )
    if set(bounds) <= set(table):
        axes.hlines(
            at, *(table[end] for end in bounds), color=BLUE, linewidth=2.2, alpha=0.35, zorder=2
        )
    axes.plot(table["classical_auc"], at, "D", ms=3.5, color=ORANGE, label="output before alone")
    axes.plot(table["double_output_auc"], at, "o", ms=4.5, color=BLUE, label="both outputs")
    axes.set_xlabel("AUC")
    figure.legend(loc="outside upper right", ncols=2)
    entitle(figure, frame["setting"].iloc[0])
    return figure


BASELINES = {"avg": "public mean", "max_diff": "MaxDiff"}


@styled
def reconstructions(scores: pd.DataFrame, title: str) -> Figure | None:
    """Share of deletions (up) whose cosine is at most x (across); lower curves leak more.

    A curve covers the deletions of all seeds; the dotted baselines are those of retraining.

    Args:
        scores: ``pool``, ``line``, ``method``, ``score`` of one setting.
        title: the setting.
    """
    hrec_scores = scores[scores["pool"] == "hrec"]
    if hrec_scores.empty:
        return None
    figure, grid = panels(1, 1, 3.3)
    axes = grid[0, 0]
    lines = order(hrec_scores.assign(worst=-hrec_scores["score"]), "worst")
    rest = [line for line in lines if line not in CONTROLS]
    for line in lines:
        place = rest.index(line) if line in rest else 0
        colour = CONTROL.get(line, COLOURS[place % len(COLOURS)])
        dash = "-" if line in CONTROL else DASHES[place // len(COLOURS) % len(DASHES)]
        width = 1.9 if line in CONTROL else 1.1
        values = hrec_scores.loc[hrec_scores["line"] == line, "score"].dropna()
        if len(values):
            axes.ecdf(values, color=colour, linestyle=dash, linewidth=width, label=line)
    first = min(scores["method"], key=lambda name: (name != "retrain", name))
    for pool, name in BASELINES.items():
        values = scores.loc[(scores["pool"] == pool) & (scores["method"] == first), "score"]
        if len(values.dropna()):
            colour = "#777777" if pool == "avg" else ORANGE
            axes.ecdf(values.dropna(), color=colour, linestyle=":", linewidth=1.4, label=name)
    axes.set_xlim(right=1)
    axes.set_xlabel("cosine of the reconstruction with the deleted record")
    axes.set_ylabel("share of deletions")
    axes.grid()
    figure.legend(loc="outside right upper")
    entitle(figure, title)
    return figure


PICTURES = 8
"""Most pictures per setting: one per method, from its first seed."""


@styled
def pictures(files: dict[str, Path], title: str) -> Figure | None:
    """Pictures that an attack stored, each with the name of its method as title.

    Args:
        files: PNG by method, controls first.
        title: the setting.
    """
    if not files:
        return None
    seen = {line: imread(path) for line, path in list(files.items())[:PICTURES]}
    across = 1 if max(shape(image) for image in seen.values()) > 1.5 else min(4, len(seen))
    down = -(-len(seen) // across)
    each = 5.6 / across
    tall = sum(
        max(each / shape(image) for image in list(seen.values())[row * across : (row + 1) * across])
        for row in range(down)
    )
    figure, grid = panels(down, across, tall + 0.25 * down + 0.3, 5.6)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (line, picture) in zip(grid.flat, seen.items(), strict=False):
        axes.imshow(picture, interpolation="none")
        axes.set_title(line)
    entitle(figure, title)
    return figure


def shape(picture: NDArray[np.floating]) -> float:
    """Width over height."""
    height, width = picture.shape[:2]
    return float(width / height)
