"""Tables and paths of pictures on the terminal."""

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
    """A console that prints text literally: no markup, emoji names or escape sequences."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text as printed by itself, in a table or in a title."""
        return super().render_str(printable(text), **options)


# Without a terminal 80 columns are assumed, too few for a table.
console = Plain(
    markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 200
)

GIVE_WAY = ("VA %", "MIA AUC", "RTE with tuning", "Indisc ↑")
"""Columns that are dropped on a narrow terminal; the Markdown file has them."""

SHOWN_PICTURES = 5
"""Number of pictures whose paths are printed; the others are counted."""


def tables(frame: pd.DataFrame, folder: Path, sweep: str | None) -> bool:
    """Print the tables of some rows and the failures; write those of a sweep to files.

    Returns:
        Whether no cell failed.
    """
    from unlearnbench.report.tables import (
        along,
        leaderboard,  # imports SciPy, so only when tables are made
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
        for suffix, text in written.items():
            if text is not None:
                path = folder / "tables" / f"{study}{suffix}.md"
                path.parent.mkdir(exist_ok=True)
                atomic.write(path, text)
                console.print(f"wrote {path}")
    tracebacks = f", tracebacks in {folder / 'failures'}" if failed else ""
    console.print(f"rows in {folder / 'rows'}{tracebacks}")
    if study is not None:
        console.print(f"statistics, figures and a page of them: unlearnbench report {study}")
    return not failed


def show(title: str, table: pd.DataFrame) -> None:
    """Print one table of the leaderboard; if it is too wide, put intervals below the means."""
    drawn = _drawn(title, table, " ± ")
    unbounded = console.options.update(max_width=10_000)
    for column in ("", *GIVE_WAY):
        if console.measure(drawn, options=unbounded).maximum <= console.width:
            break
        table = table.drop(columns=column, errors="ignore")
        drawn = _drawn(title, table, "\n±")
    console.print(drawn)


def _drawn(title: str, table: pd.DataFrame, separator: str) -> Table:
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        is_method = column == "method"
        drawn.add_column(
            column, justify="left" if is_method else "right", no_wrap=is_method, overflow="fold"
        )
    for row in table.fillna("–").to_numpy():
        drawn.add_row(*(cell.replace(" ± ", separator) for cell in row))
    return drawn


def tell(wide: pd.DataFrame, folder: Path) -> bool:
    """Print skipped and failed cells with their reasons, and the paths of pictures.

    Returns:
        Whether any cell failed.
    """
    for status in ("skipped", "failed"):
        cells = wide[wide["status"] == status]
        for reason, group in cells.groupby("reason"):
            names = (group["method"] + " seed " + group["seed"].astype(str)).unique().tolist()
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            console.print(f"{status}: {', '.join(names[:3])}{more}: {reason}", soft_wrap=True)
    named_paths = pictures(wide, folder)
    for name, path in named_paths[:SHOWN_PICTURES]:
        console.print(f"picture of {name}: {path}", soft_wrap=True)
    if named_paths[SHOWN_PICTURES:]:
        console.print(f"{len(named_paths) - SHOWN_PICTURES} more pictures in {folder / 'pictures'}")
    return bool((wide["status"] == "failed").any())


def pictures(wide: pd.DataFrame, folder: Path) -> list[tuple[str, Path]]:
    """Name and path of each picture that belongs to one of these cells."""
    by_mark = {path.stem[-8:]: path for path in (folder / "pictures").glob("*.png")}
    about = wide["method"] + " seed " + wide["seed"].astype(str)
    return [
        (name, by_mark[key[:8]])
        for name, key in zip(about, wide["key"], strict=True)
        if key[:8] in by_mark
    ]


def show_plain(table: pd.DataFrame) -> None:
    """Print a table whose first column holds names and whose other columns hold numbers."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        first = column == table.columns[0]
        drawn.add_column(column, justify="left" if first else "right", overflow="fold")
    for row in table.to_numpy():
        drawn.add_row(*row)
    console.print(drawn)
