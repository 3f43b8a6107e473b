"""A study: the rows of one sweep, the tables that a report derives from them, and its folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from unlearnbench.report.analysis import compare, runs


@dataclass(frozen=True)
class Study:
    """Input of a report.

    Attributes:
        name: name of the sweep.
        frame: its result rows, one per number, as ``load_results`` returns them.
        wide: one row per cell, as ``load_results(wide=True)`` returns it.
        folder: the results folder.
        out: output folder of the report, ``<folder>/<name>/report``.
    """

    name: str
    frame: pd.DataFrame
    wide: pd.DataFrame
    folder: Path
    out: Path

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Cells with a value, with line and setting name: see ``runs.placed``."""
        return runs.placed(self.wide)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Rows at the end of runs: see ``compare.runs``."""
        return compare.runs(self.frame)

    @cached_property
    def asked(self) -> pd.DataFrame:
        """``rows`` with one row per cell and status: see ``compare.told_once``."""
        return compare.told_once(self.rows)

    @cached_property
    def found(self) -> pd.DataFrame:
        """The numeric rows of ``rows`` and derived metrics: see ``compare.values``."""
        return compare.values(self.rows)
