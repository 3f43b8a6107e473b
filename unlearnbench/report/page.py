"""The page: one HTML file with the leaderboard, figures, methods, failures and provenance.

It asks nothing of any network. Sorting and filtering are DataTables', which itables ships.
"""

import importlib.util
import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from unlearnbench.report import figures, glossary, missing, options, tables
from unlearnbench.report.compare import BLOCK, LINE
from unlearnbench.report.leaderboard import CONTROLS
from unlearnbench.report.ranking import UNRANKED
from unlearnbench.report.runs import differing, names, needed
from unlearnbench.report.study import Study
from unlearnbench.report.tables import COLUMNS, MARKS, ORDER
from unlearnbench.report.text import Section
from unlearnbench.report.verdict import WORDS, threat, verdicts

HERE = Path(__file__).parent

AXES = {
    "dataset": "Data set",
    "model": "Model",
    "train": "Training",
    "forget": "Forget set",
    "setup": "Settings",
    "forget_hash": "Forget rows",
    "defense": "Defense",
    "variant": "Attack settings",
}
"""Columns beside the method, and their headings."""

ALWAYS = ("dataset", "model", "forget", "defense")
"""Axes that have a column whether they vary or not."""

MAIN = (
    *("test_acc", "ret_dev", "rte", "mia_test_auc", "ulira_auc", "lira_auc", "rmia_auc"),
    *("double_output_auc", "class_shadow_auc", "hrec_cos", "inversion_centred_cosine_forgotten"),
    *("rmse_test", "rmse_forget"),
)
"""Metrics that are shown before a reader asks for others."""


def write(
    study: Study,
    rows: pd.DataFrame,
    found: pd.DataFrame,
    numbers: pd.DataFrame,
    notes: Sequence[str],
    sections: Sequence[Section],
    drawn: Sequence[Path],
) -> Path:
    """Write ``index.html`` of a study's report.

    Args:
        study: the rows.
        rows: what ``compare.runs`` makes of them.
        found: the ``compare.values`` of these.
        numbers: what ``compare.compared`` makes of those.
        notes: what is to be said of all of it.
        sections: tables beside the leaderboard, each with what is to be said of it.
        drawn: figures; of these the SVG are in the page.
    """
    engine = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["coded"] = _coded
    library = _library()
    page = engine.get_template("page.html").render(
        study=study,
        summary=_summary(study, rows),
        notes=notes,
        verdicts=list(verdicts(rows, found, numbers)),
        board=_board(rows, numbers),
        figures=_figures(drawn),
        sections=[section for section in sections if section.tables],
        methods=list(_methods(rows, numbers)),
        threats=list(_threats(rows)),
        provenance=_provenance(study),
        glossary=_glossary(numbers),
        style=(HERE / "page.css").read_text(),
        script=(HERE / "page.js").read_text(),
        library_style=library.with_suffix(".css").read_text(),
        library=b64encode(library.read_bytes()).decode(),
    )
    study.out.mkdir(parents=True, exist_ok=True)
    path = study.out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _coded(text: str) -> Markup:
    """Words between backticks as code."""
    parts = [
        Markup("<code>{}</code>").format(p) if i % 2 else escape(p)
        for i, p in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _library() -> Path:
    """DataTables as itables ships it, without the second that importing itables takes."""
    found = importlib.util.find_spec("itables")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "html" / "dt_bundle.js"


def _summary(study: Study, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What the study is made of, in numbers."""
    methods = set(rows["method"]) - set(UNRANKED)
    told = {
        "method": len(methods),
        "data set": rows["dataset"].nunique(),
        "model": rows["model"].nunique(),
        "attack": len(set(rows["attack"]) - {"none"}),
        "defense": len(set(rows["defense"]) - {"none"}),
        "seed": rows["seed"].nunique(),
        "number": len(study.frame),
    }
    return [(f"{n:,}", what if n == 1 else f"{what}s") for what, n in told.items() if n]


# ---------------------------------------------------------------------------------------------
# The leaderboard: a line a method, setting and defense.


@dataclass(frozen=True)
class Column:
    """A metric's column.

    Attributes:
        metric: its name in the rows.
        heading: above it.
        attack: whose it is.
        main: whether it is shown at first.
        tip: what it means.
    """

    metric: str
    heading: str
    attack: str
    main: bool
    tip: str


def _board(rows: pd.DataFrame, numbers: pd.DataFrame) -> dict[str, Any]:
    """Columns in groups, one an attack, and lines of cells."""
    there = set(numbers.loc[numbers["mean"].notna(), "metric"])
    columns = [_column(name) for name in ORDER if name in there]
    columns.sort(key=lambda column: list(glossary.GROUPS).index(column.attack))
    apart = needed(numbers, list(AXES))
    axes = [name for name in AXES if name in ALWAYS or name in apart]
    groups: list[dict[str, Any]] = []
    for column in columns:
        if not groups or groups[-1]["attack"] != column.attack:
            own = numbers.loc[numbers["metric"] == column.metric, "attack"].iloc[0]
            tip = "" if own == "none" else f"The attacker holds: {threat(rows, own)}."
            heading = glossary.GROUPS[column.attack]
            groups.append({"attack": column.attack, "heading": heading, "tip": tip, "columns": []})
        groups[-1]["columns"].append(column)
    return {
        "axes": {name: AXES[name] for name in axes},
        "groups": groups,
        "columns": columns,
        "lines": list(_lines(numbers, axes, columns)),
        "order": _first_order(axes, columns),
    }


def _column(name: str) -> Column:
    entry = glossary.ENTRIES[name]
    parts = [
        entry.definition,
        f"{entry.better[:1].upper()}{entry.better[1:]}." * bool(entry.better),
    ]
    tip = " ".join(filter(None, parts))
    return Column(name, COLUMNS[name][0], glossary.attack_of(name), name in MAIN, tip)


def _first_order(axes: Sequence[str], columns: Sequence[Column]) -> str:
    """By block, then by the first of these metrics that there is."""
    by = [1 + axes.index(name) for name in ("dataset", "model", "forget", "defense")]
    names = [column.metric for column in columns]
    last = next((names.index(name) for name in ("ret_dev", "rmse_test") if name in names), None)
    if last is not None:
        by.append(1 + len(axes) + last)
    return json.dumps([[place, "asc"] for place in by])


def _lines(
    numbers: pd.DataFrame, axes: Sequence[str], columns: Sequence[Column]
) -> Iterator[dict[str, Any]]:
    """A line for each method under each defense; a model's utility stands under every defense."""
    shown = numbers[numbers["metric"].isin([column.metric for column in columns])]
    short = shown.assign(
        setup=differing(shown, "setup", BLOCK[:4]),
        variant=differing(shown, "variant", BLOCK[:4]),
        own=differing(shown, "own", ["method"]),
    )
    bare = (shown["defense"] == "none") & (shown["variant"] == "")
    of_model = shown["attack"] == "none"
    utility = dict(list(shown[bare & of_model].groupby([*BLOCK, *LINE], sort=False, dropna=False)))
    line = [*BLOCK, "defense", "variant", *LINE]
    for key, own in shown.groupby(line, sort=True, dropna=False):
        told = short.loc[own.index[0], line].astype(str)
        each = [own, utility.get((*key[: len(BLOCK)], *key[-2:]), own.iloc[:0])]
        cells = {one.metric: one for part in each for one in part.itertuples()}
        yield {
            "method": told["method"],
            "own": told["own"],
            "control": told["method"] in CONTROLS,
            "axes": [told[name] or "–" for name in axes],
            "cells": [_cell(cells.get(column.metric)) for column in columns],
        }


def _cell(one: Any) -> dict[str, Any] | None:
    if one is None or not np.isfinite(one.mean):
        return None
    seeds = f"n = {one.seeds}" + ("" if one.seeds == one.asked else f" of {one.asked}")
    said = [f"{seeds} seed{'s' if one.seeds != 1 else ''}"]
    if np.isfinite(one.half):
        said.append("± is half of the 95 % interval (Student)")
    if one.verdict in WORDS:
        said.append(WORDS[one.verdict])
    text = tables.written(one.metric, one.mean, one.half)
    mean, _, half = text.partition(" ± ")
    mark = MARKS.get(one.verdict, "")
    return {
        "sort": f"{one.mean:.9g}",
        "mean": mean,
        "half": half,
        "mark": mark,
        "tip": "; ".join(said),
    }


# ---------------------------------------------------------------------------------------------
# What stands beside it.


HALF_PAGE = 650
"""Pixels above which a figure takes the page's whole width."""

SCALE = 1.6
"""Pixels of the page for each point of a figure, at most."""


def _figures(drawn: Sequence[Path]) -> list[dict[str, Any]]:
    """SVG by kind, each as a data URL."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in drawn:
        if path.suffix == ".svg":
            kind, _, setting = path.stem.partition("-")
            drawing = path.read_bytes()
            width = round(float(re.findall(rb'<svg[^>]* width="([\d.]+)pt"', drawing)[0]) * SCALE)
            source = b64encode(drawing).decode()
            one = {"setting": setting.replace("-", " "), "source": source, "width": width}
            groups.setdefault(kind, []).append(one)
    told = []
    for kind, each in groups.items():
        heading, says = figures.SAYS[kind.partition("_of_")[0]]
        large = max(one["width"] for one in each) > HALF_PAGE
        wide = large or len(each) > 1
        shape = " wide" * wide + " large" * large
        told.append({"kind": kind, "heading": heading, "says": says, "each": each, "shape": shape})
    return sorted(
        told, key=lambda group: list(figures.SAYS).index(group["kind"].partition("_of_")[0])
    )


def _methods(rows: pd.DataFrame, numbers: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Each method: its settings, what it gave where, what failed."""
    bare = numbers[(numbers["defense"] == "none") & (numbers["variant"] == "")]
    shown = [name for name in MAIN if (bare["metric"] == name).any()]
    troubles = missing.troubles(rows)
    blocks = bare.drop_duplicates(BLOCK)[BLOCK]
    keys = list(blocks.itertuples(index=False, name=None))
    called = dict(zip(keys, names(blocks, BLOCK), strict=True))
    bad = dict(list(troubles.groupby("method", sort=False)))
    given = dict(list(bare.groupby("method", sort=False)))
    traits = rows.drop_duplicates("method").set_index("method")["traits"].fillna("")
    for method in sorted(set(rows["method"]), key=lambda m: (m in CONTROLS, m)):
        about = options.told("method", method)
        results = []
        own = given.get(method, bare.iloc[:0])
        for key, same in own.groupby([*BLOCK, "own"], sort=True, dropna=False):
            cells = {one.metric: _cell(one) for one in same.itertuples() if one.metric in shown}
            where = f"{called[key[:-1]]} {key[-1]}".strip()
            results.append({"where": where, "cells": [cells.get(name) for name in shown]})
        reasons = bad.get(method, troubles.iloc[:0])
        failures = [
            {"status": status, "reason": reason, "n": len(same)}
            for (status, reason), same in reasons.groupby(["status", "reason"], sort=True)
        ]
        yield {
            "name": method,
            "label": about.label,
            "known": about.known,
            "settings": about.settings,
            "changed": sorted({word for text in own["own"].unique() for word in text.split()}),
            "traits": [options.TRAITS.get(trait, trait) for trait in traits[method].split()],
            "columns": [COLUMNS[name][0] for name in shown],
            "results": results,
            "failures": failures,
        }


def _threats(rows: pd.DataFrame) -> Iterator[dict[str, str]]:
    for attack in sorted(set(rows["attack"]) - {"none"}):
        label = options.told("attack", attack).label
        yield {"name": attack, "label": label, "threat": threat(rows, attack)}


def _provenance(study: Study) -> dict[str, list[str]]:
    """Commit, version, machines and dates, as rows and runs say."""
    told = {
        "commit": _values(study.frame, "commit"),
        "version": [f"unlearnbench {one}" for one in _values(study.frame, "version")],
        "computed on": _values(study.frame, "device"),
        "schema of the rows": _values(study.frame, "schema"),
    }
    goes = []
    for path in sorted((study.folder / "runs").glob("*/run.json")):
        run = json.loads(path.read_text())
        if run.get("sweep") == study.name and "refused" not in run:
            words = " ".join(["unlearnbench", *run.get("words", [])])
            host = str(run.get("owner", {}).get("host", "")).split(" ")[0]
            launcher = run.get("launcher", {}).get("name", "local")
            where = f" on {host}" if host else ""
            goes.append(f"{run['began']}{where}, launcher {launcher}: {words}")
    return {**told, "runs": goes or ["no record of them here"]}


def _values(frame: pd.DataFrame, name: str) -> list[str]:
    return sorted(map(str, frame[name].dropna().unique()))


def _glossary(numbers: pd.DataFrame) -> list[dict[str, str]]:
    there = set(numbers["metric"])
    return [
        {
            "name": name,
            "heading": COLUMNS[name][0],
            "definition": entry.definition,
            "better": entry.better,
            "source": entry.source,
        }
        for name, entry in glossary.ENTRIES.items()
        if name in there and name in COLUMNS
    ]
