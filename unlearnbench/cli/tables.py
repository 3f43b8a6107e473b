"""Tables and pictures on the terminal."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unlearnbench.core import atomic
from unlearnbench.core.errors import printable
from unlearnbench.results.frame import widen


class Plain(Console):
    """A console on which text is text: no markup, no names of emoji, no escape sequences."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Text to be printed, wherever it stands: by itself, in a table, in a title."""
        return super().render_str(printable(text), **how)


# A table does not fit the 80 columns that are assumed where there is no terminal.
console = Plain(
    markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 200
)

GIVE_WAY = ("VA %", "MIA AUC", "RTE with tuning", "Indisc ↑")
"""Columns that a terminal too narrow for all does without; the Markdown file has them."""

SHOWN_PICTURES = 5
"""Pictures whose paths are printed; of the others their number."""


def tables(frame: pd.DataFrame, folder: Path, sweep: str | None) -> bool:
    """Print the tables of some rows, and what went wrong; keep those of a sweep in files.

    Returns:
        Whether no cell failed.
    """
    from unlearnbench.report.tables import (
        along,
        leaderboard,  # with SciPy: where there are tables
    )

    wide = widen(frame)
    for title, table in leaderboard.tables(wide):
        show(title, table)
    marks = leaderboard.note(wide)
    if marks:
        console.print(marks)
    failed = tell(wide, folder)
    study = sweep if len(wide) else None
    if study is not None:
        written = {"": leaderboard.markdown(wide), "_along": along.markdown(frame)}
        for end, text in written.items():
            if text is not None:
                path = folder / "tables" / f"{study}{end}.md"
                path.parent.mkdir(exist_ok=True)
                atomic.write(path, text)
                console.print(f"wrote {path}")
    tracebacks = f", tracebacks in {folder / 'failures'}" if failed else ""
    console.print(f"rows in {folder / 'rows'}{tracebacks}")
    if study is not None:
        console.print(f"statistics, figures and a page of them: unlearnbench report {study}")
    return not failed


def show(title: str, table: pd.DataFrame) -> None:
    """Print one table of the leaderboard: where it is too wide, intervals under their means."""
    drawn = _drawn(title, table, " ± ")
    unbounded = console.options.update(max_width=10_000)
    for column in ("", *GIVE_WAY):
        if console.measure(drawn, options=unbounded).maximum <= console.width:
            break
        table = table.drop(columns=column, errors="ignore")
        drawn = _drawn(title, table, "\n±")
    console.print(drawn)


def _drawn(title: str, table: pd.DataFrame, between: str) -> Table:
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        name = column == "method"
        drawn.add_column(column, justify="left" if name else "right", no_wrap=name, overflow="fold")
    for line in table.fillna("–").to_numpy():
        drawn.add_row(*(cell.replace(" ± ", between) for cell in line))
    return drawn


def tell(wide: pd.DataFrame, folder: Path) -> bool:
    """Print what was skipped and what failed, and what there is to look at.

    Returns:
        Whether any cell failed.
    """
    for status in ("skipped", "failed"):
        cells = wide[wide["status"] == status]
        for reason, same in cells.groupby("reason"):
            names = (same["method"] + " seed " + same["seed"].astype(str)).unique().tolist()
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            console.print(f"{status}: {', '.join(names[:3])}{more}: {reason}", soft_wrap=True)
    drawn = pictures(wide, folder)
    for what, path in drawn[:SHOWN_PICTURES]:
        console.print(f"picture of {what}: {path}", soft_wrap=True)
    if drawn[SHOWN_PICTURES:]:
        console.print(f"{len(drawn) - SHOWN_PICTURES} more pictures in {folder / 'pictures'}")
    return bool((wide["status"] == "failed").any())


def pictures(wide: pd.DataFrame, folder: Path) -> list[tuple[str, Path]]:
    """Whose is where, of those of these cells that have a picture of their own."""
    by_mark = {path.stem[-8:]: path for path in (folder / "pictures").glob("*.png")}
    about = wide["method"] + " seed " + wide["seed"].astype(str)
    return [
        (whose, by_mark[key[:8]])
        for whose, key in zip(about, wide["key"], strict=True)
        if key[:8] in by_mark
    ]


def show_plain(table: pd.DataFrame) -> None:
    """Print a table whose first column is names, and the others figures."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        first = column == table.columns[0]
        drawn.add_column(column, justify="left" if first else "right", overflow="fold")
    for one in table.to_numpy():
        drawn.add_row(*one)
    console.print(drawn)
