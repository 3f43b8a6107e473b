"""Trainings that went wrong: they distort what an attack finds in all the others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unlearnbench.metric import utility
from unlearnbench.protocol._member import Figures


def outlier_figures(name: str, accuracies: Sequence[NDArray[np.floating]]) -> Figures:
    """How many trainings of some kinds are outliers of their kind, the lowest accuracy, the median.

    Args:
        name: what the names of the figures begin with.
        accuracies: of the models of each kind (M,).
    """
    every_M = np.concatenate(accuracies)
    if not len(every_M):
        return {}
    outliers = sum(int(utility.low_outliers(of_kind).sum()) for of_kind in accuracies)
    figures = {"outliers": outliers, "acc_min": every_M.min(), "acc_median": np.median(every_M)}
    return {f"{name}_{key}": (float(value), len(every_M)) for key, value in figures.items()}
