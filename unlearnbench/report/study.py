"""A study: the rows of one sweep, and where its report goes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Study:
    """What a report is made of.

    Attributes:
        name: of the sweep.
        frame: its rows, one a number, as ``load_results`` gives them.
        wide: one row a cell, as ``load_results(wide=True)`` gives it.
        folder: of the results.
        out: where the report goes, ``<folder>/<name>/report``.
    """

    name: str
    frame: pd.DataFrame
    wide: pd.DataFrame
    folder: Path
    out: Path
