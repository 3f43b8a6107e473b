"""A study: the rows of one sweep, what several parts of a report make of them, where that goes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from unlearnbench.report.analysis import compare, runs


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

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The cells in the places of a report, see ``runs.placed``."""
        return runs.placed(self.wide)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows at the end of runs, see ``compare.runs``."""
        return compare.runs(self.frame)

    @cached_property
    def asked(self) -> pd.DataFrame:
        """One of these a cell, see ``compare.told_once``."""
        return compare.told_once(self.rows)

    @cached_property
    def found(self) -> pd.DataFrame:
        """The numbers among them, see ``compare.values``."""
        return compare.values(self.rows)
