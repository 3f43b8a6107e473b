"""``results/<sweep>/report/``: all files that ``unlearnbench report`` writes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from unlearnbench.config.arguments import sweep_name
from unlearnbench.core import atomic
from unlearnbench.core.errors import printable
from unlearnbench.report.analysis import compare, missing
from unlearnbench.report.analysis.study import Study
from unlearnbench.report.figures import drawing
from unlearnbench.report.page import page
from unlearnbench.report.tables import tables, text
from unlearnbench.results import load
from unlearnbench.results.frame import widen

NAME = "leaderboard"

MIXED = (
    "Times of several devices cannot be compared, nor can memory: where one task's were measured "
    "on several, RTE and peak memory are left out."
)


def latest(folder: Path) -> str:
    """Name of the sweep that started last.

    Raises:
        FileNotFoundError: the folder has no sweep.
    """
    if not (names := load.sweeps(folder)):
        raise FileNotFoundError(f"no sweep in {folder}: run one with -m, or name another folder")
    return names[-1]


def study(folder: Path, name: str) -> Study:
    """Read the available rows of a sweep.

    Args:
        folder: the results folder.
        name: name of the sweep.

    Raises:
        FileNotFoundError: the sweep does not exist, or none of its cells has rows.
    """
    frame = _as_objects(load.rows(folder, name))
    if frame.empty:
        raise FileNotFoundError(f"no cell of {name} has rows yet: unlearnbench status {name}")
    return Study(sweep_name(name), frame, widen(frame), folder, folder / name / "report")


def _as_objects(table: pa.Table) -> pd.DataFrame:
    """Table with strings as Python objects, one per distinct value, control characters escaped.

    A report compares and counts strings throughout, which takes longer on the Arrow-backed strings
    of pandas.
    """
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.combine_chunks()
        if not pa.types.is_dictionary(array.type):
            columns[name] = array.to_pandas()
            continue
        each = map(printable, array.dictionary.to_pylist())
        texts = np.array([*each, None], object)  # the last entry stands for a missing value
        columns[name] = pd.Series(texts[array.indices.fill_null(-1).to_numpy()], dtype=object)
    return pd.DataFrame(columns)


def report(source: Study, figures: str | None = None) -> list[Path]:
    """Write the report of a study; existing files with the same names are replaced.

    Args:
        source: the study.
        figures: pattern of setting names that get their own figures, as ``drawing.left_out`` takes
            it.

    Returns:
        The files: ``leaderboard.md``, ``.csv`` and ``.tex``, figures, ``index.html``.

    Raises:
        ValueError: no setting name matches the pattern.
    """
    without = drawing.left_out(source, figures)
    statuses, value_rows = source.asked, source.found  # cached before the fork, for figures too
    with drawing.beside(source, without) as drawn:
        numbers = compare.compared(source.rows, value_rows)
        sections = tables.sections(statuses, value_rows, numbers)
        source.out.mkdir(parents=True, exist_ok=True)
        notes = list(_notes(source))
        texts = {
            "md": text.markdown(source.name, notes, sections),
            "csv": _csv(numbers),
            "tex": text.latex(source.name, sections),
        }
        written = [
            _written(source.out / f"{NAME}.{end}", content) for end, content in texts.items()
        ]
        other_sections = [section for section in sections if section.heading != "Leaderboard"]
        page_path = page.write(source, numbers, notes, other_sections, drawn, without)
        return [*written, *drawn(), page_path]


def _csv(table: pd.DataFrame) -> str:
    """A table as CSV, written by Arrow, which is faster than pandas.

    Text that a spreadsheet reads as a formula has an apostrophe in front.
    """
    buffer = pa.BufferOutputStream()
    columns: dict[str, Any] = {}
    for name in table.select_dtypes(["object", "string"]):
        codes, texts = pd.factorize(table[name])
        columns[str(name)] = np.array([*map(_no_formula, texts), None], object)[codes]
    arrow = pa.Table.from_pandas(table.assign(**columns), preserve_index=False)
    csv.write_csv(arrow, buffer, csv.WriteOptions(quoting_style="needed"))
    return str(buffer.getvalue().to_pybytes(), "utf-8")


FORMULA = re.compile(r"[\t\r\n]|\s*[=+@\-＝＋－＠−]")
"""Start of text that a spreadsheet executes, full-width signs included."""


def _no_formula(text: object) -> object:
    return f"'{text}" if isinstance(text, str) and FORMULA.match(text) else text


def _written(path: Path, content: str) -> Path:
    atomic.write(path, content)
    return path


def _notes(source: Study) -> Iterator[str]:
    """Notes on the whole report: whether the grid is complete, and where its rows come from."""
    rows = source.asked
    yield missing.sentence(rows, load.load_sweep(source.folder, source.name))
    provenance = {
        name: sorted(rows[name].dropna().unique()) for name in ("version", "commit", "device")
    }
    said = (
        f"{name} {', '.join(map(str, values))}" for name, values in provenance.items() if values
    )
    yield f"{len(source.frame):,} rows, of {'; '.join(said)}."
    costs = source.rows[source.rows["metric"].isin(compare.COSTS)]
    if len(provenance["device"]) > 1 or not compare.comparable(costs).all():
        yield MIXED
