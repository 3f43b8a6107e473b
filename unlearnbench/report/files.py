"""``results/<sweep>/report/``: all that ``unlearnbench report`` writes."""

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
    """Name of the sweep that was begun last.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (known := load.sweeps(folder)):
        raise FileNotFoundError(f"no sweep in {folder}: run one with -m, or name another folder")
    return known[-1]


def study(folder: Path, name: str) -> Study:
    """What is there of a sweep.

    Args:
        folder: of the results.
        name: of the sweep.

    Raises:
        FileNotFoundError: there is no such sweep, or none of its cells has rows.
    """
    frame = _as_objects(load.rows(folder, name))
    if frame.empty:
        raise FileNotFoundError(f"no cell of {name} has rows yet: unlearnbench status {name}")
    return Study(sweep_name(name), frame, widen(frame), folder, folder / name / "report")


def _as_objects(table: pa.Table) -> pd.DataFrame:
    """Strings as Python's own, each of the few once, without signs that are no text.

    A report compares and counts them throughout, which takes longer on the strings that pandas has
    of Arrow.
    """
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        whole = column.combine_chunks()
        if not pa.types.is_dictionary(whole.type):
            columns[name] = whole.to_pandas()
            continue
        each = map(printable, whole.dictionary.to_pylist())
        words = np.array([*each, None], object)  # the last is for no word
        columns[name] = pd.Series(words[whole.indices.fill_null(-1).to_numpy()], dtype=object)
    return pd.DataFrame(columns)


def report(given: Study, figures: str | None = None) -> list[Path]:
    """Write the report of a study; what an earlier one left under the same names is replaced.

    Args:
        given: the study.
        figures: pattern of the names of settings that get figures of their own, as
            ``drawing.left_out`` takes it.

    Returns:
        The files: ``leaderboard.md``, ``.csv`` and ``.tex``, figures, ``index.html``.

    Raises:
        ValueError: no setting has a name of that pattern.
    """
    without = drawing.left_out(given, figures)
    asked, found = given.asked, given.found  # once, for those who draw too
    with drawing.beside(given, without) as drawn:
        numbers = compare.compared(given.rows, found)
        sections = tables.sections(asked, found, numbers)
        given.out.mkdir(parents=True, exist_ok=True)
        notes = list(_notes(given))
        texts = {
            "md": text.markdown(given.name, notes, sections),
            "csv": _csv(numbers),
            "tex": text.latex(given.name, sections),
        }
        written = [_written(given.out / f"{NAME}.{end}", whole) for end, whole in texts.items()]
        beside = [section for section in sections if section.heading != "Leaderboard"]
        whole = page.write(given, numbers, notes, beside, drawn, without)
        return [*written, *drawn(), whole]


def _csv(table: pd.DataFrame) -> str:
    """A table as CSV; by Arrow, which is faster at it than pandas.

    Text that a spreadsheet would take for a formula has an apostrophe before it there.
    """
    told = pa.BufferOutputStream()
    words: dict[str, Any] = {}
    for name in table.select_dtypes(["object", "string"]):
        codes, texts = pd.factorize(table[name])
        words[str(name)] = np.array([*map(_no_formula, texts), None], object)[codes]
    arrow = pa.Table.from_pandas(table.assign(**words), preserve_index=False)
    csv.write_csv(arrow, told, csv.WriteOptions(quoting_style="needed"))
    return str(told.getvalue().to_pybytes(), "utf-8")


FORMULA = re.compile(r"[\t\r\n]|\s*[=+@\-＝＋－＠−]")
"""How text begins that a spreadsheet executes, wide signs among it."""


def _no_formula(text: object) -> object:
    return f"'{text}" if isinstance(text, str) and FORMULA.match(text) else text


def _written(path: Path, whole: str) -> Path:
    atomic.write(path, whole)
    return path


def _notes(given: Study) -> Iterator[str]:
    """What is to be said of all of it: is it whole, and where does it come from."""
    rows = given.asked
    yield missing.sentence(rows, load.load_sweep(given.folder, given.name))
    told = {name: sorted(rows[name].dropna().unique()) for name in ("version", "commit", "device")}
    said = (f"{name} {', '.join(map(str, some))}" for name, some in told.items() if some)
    yield f"{len(given.frame):,} rows, of {'; '.join(said)}."
    costs = given.rows[given.rows["metric"].isin(compare.COSTS)]
    if len(told["device"]) > 1 or not compare.comparable(costs).all():
        yield MIXED
