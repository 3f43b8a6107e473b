"""The page: one HTML file with the leaderboard, figures, methods, failures and provenance.

The page makes no network request. DataTables, from itables, sorts and filters the leaderboard.
"""

import importlib.util
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from unlearnbench.config.arguments import override_words
from unlearnbench.core import atomic, damage
from unlearnbench.report.analysis import missing
from unlearnbench.report.analysis.columns import CONTROLS
from unlearnbench.report.analysis.compare import BLOCK
from unlearnbench.report.analysis.ranking import UNRANKED
from unlearnbench.report.analysis.runs import names
from unlearnbench.report.analysis.study import Study
from unlearnbench.report.page import glossary, options
from unlearnbench.report.page.board import MAIN, board, cell, records
from unlearnbench.report.page.captions import SAYS
from unlearnbench.report.page.verdict import Record, threats, verdicts
from unlearnbench.report.tables.tables import COLUMNS, looking
from unlearnbench.report.tables.text import Section
from unlearnbench.results import load


def write(
    study: Study,
    numbers: pd.DataFrame,
    notes: Sequence[str],
    sections: Sequence[Section],
    drawn: Callable[[], Sequence[Path]],
    undrawn: Sequence[str],
) -> Path:
    """Write ``index.html`` of a study's report.

    Args:
        study: the rows.
        numbers: ``compare.compared`` of the rows.
        notes: remarks on the whole study.
        sections: tables beside the leaderboard, each with its text.
        drawn: waits for the figures and returns their files; the page includes the SVG files.
        undrawn: settings that have no figures of their own.

    Returns:
        The path of the page.
    """
    engine = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["coded"] = _coded
    rows = study.asked
    compared_rows, threat_by_attack = records(numbers), threats(rows)
    library = _library()
    here = resources.files(__package__)
    style, script = (here / "page.css").read_text(), (here / "page.js").read_text()
    library_style = library.with_suffix(".css").read_text()
    page = engine.get_template("page.html").render(
        study=study,
        summary=_summary(study),
        notes=notes,
        verdicts=list(verdicts(rows, study.found, numbers)),
        board=board(numbers, compared_rows, threat_by_attack, looking(rows)),
        sections=[section for section in sections if section.tables],
        methods=list(_methods(rows, compared_rows)),
        threats=_threats(threat_by_attack),
        provenance=_provenance(study),
        glossary=_glossary(numbers),
        policy=_policy([script], [library_style, style]),
        style=style,
        script=script,
        library_style=library_style,
        library=b64encode(library.read_bytes()).decode(),
        undrawn=undrawn,
        figures=_figures(drawn()),  # last: other processes draw them meanwhile
    )
    study.out.mkdir(parents=True, exist_ok=True)
    path = study.out / "index.html"
    atomic.write(path, page)
    return path


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Content security policy: only these scripts and styles run, and no request is made.

    The script loads the library as a module from a ``blob:`` URL. Any other script in the page, for
    instance one in the name of a method, does not run.

    Args:
        scripts: exact text of each script element.
        styles: exact text of each style element.
    """
    allowed = [
        " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in each)
        for each in (scripts, styles)
    ]
    rules = {
        "default-src": "'none'",
        "script-src": f"{allowed[0]} blob:",
        "style-src": allowed[1],
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _coded(text: str) -> Markup:
    """HTML of a text, with ``<code>`` for what is between backticks."""
    parts = [
        Markup("<code>{}</code>").format(p) if i % 2 else escape(p)
        for i, p in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _library() -> Path:
    """Path of DataTables in itables, without the import of itables, which takes a second."""
    spec = importlib.util.find_spec("itables")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "html" / "dt_bundle.js"


def _summary(study: Study) -> list[tuple[str, str]]:
    """Counts of a study: methods, data sets, models, attacks, defenses, seeds and numbers."""
    rows = study.asked
    methods, attacks, defenses = (
        set(rows[name].unique()) for name in ("method", "attack", "defense")
    )
    counts = {
        "method": len(methods - set(UNRANKED)),
        "data set": rows["dataset"].nunique(),
        "model": rows["model"].nunique(),
        "attack": len(attacks - {"none"}),
        "defense": len(defenses - {"none"}),
        "seed": rows["seed"].nunique(),
        "number": len(study.frame),
    }
    return [(f"{n:,}", noun if n == 1 else f"{noun}s") for noun, n in counts.items() if n]


# ---------------------------------------------------------------------------------------------
# Sections beside the leaderboard.


HALF_PAGE = 650
"""Width in pixels above which a figure takes the full width of the page."""

SCALE = 1.6
"""Most pixels of the page per point of a figure."""


def _figures(drawn: Sequence[Path]) -> list[dict[str, Any]]:
    """SVG figures in groups by kind, each with its Base64 text and its width in pixels."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in drawn:
        if path.suffix == ".svg":
            kind, _, setting = path.stem.partition("-")
            drawing = path.read_bytes()
            width = round(float(re.findall(rb'<svg[^>]* width="([\d.]+)pt"', drawing)[0]) * SCALE)
            source = b64encode(drawing).decode()
            figure = {"setting": setting.replace("-", " "), "source": source, "width": width}
            groups.setdefault(kind, []).append(figure)
    kinds = []
    for kind, each in groups.items():
        heading, says = SAYS[kind.partition("_of_")[0]]
        large = max(figure["width"] for figure in each) > HALF_PAGE
        wide = large or len(each) > 1
        shape = " wide" * wide + " large" * large
        kinds.append({"kind": kind, "heading": heading, "says": says, "each": each, "shape": shape})
    return sorted(kinds, key=lambda group: list(SAYS).index(group["kind"].partition("_of_")[0]))


def _methods(rows: pd.DataFrame, compared_rows: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """One entry per method: its settings, its results by block, and its failures."""
    bare = [row for row in compared_rows if (row["defense"], row["variant"]) == ("none", "")]
    metrics = {row["metric"] for row in bare}
    shown = [name for name in MAIN if name in metrics]
    each = sorted({tuple(row[column] for column in BLOCK) for row in bare})
    blocks = pd.DataFrame(each, columns=BLOCK)
    called = dict(zip(each, names(blocks, BLOCK), strict=True))
    rows_by_method: dict[str, dict[tuple[str, str], dict[str, Record]]] = {}
    for row in bare:
        where = called[tuple(row[column] for column in BLOCK)], row["own"]
        rows_by_method.setdefault(row["method"], {}).setdefault(where, {})[row["metric"]] = row
    failures: dict[str, Counter[tuple[str, str]]] = {}
    for method, status, reason in missing.troubles(rows)[["method", "status", "reason"]].to_numpy():
        failures.setdefault(method, Counter())[status, reason] += 1
    each_once = rows.drop_duplicates("method")
    traits = dict(zip(each_once["method"], each_once["traits"].fillna(""), strict=True))
    for method in sorted(traits, key=lambda name: (name in CONTROLS, name)):
        about = options.told("method", method)
        own = rows_by_method.get(method, {})
        results = [
            {"where": " ".join(filter(None, where)), "cells": [cell(of.get(m)) for m in shown]}
            for where, of in sorted(own.items())
        ]
        bad_ones = sorted(failures.get(method, Counter()).items())
        yield {
            "name": method,
            "label": about.label,
            "says": about.says,
            "known": about.known,
            "settings": about.settings,
            "changed": sorted({word for _, overrides in own for word in override_words(overrides)}),
            "traits": [options.TRAITS.get(trait, trait) for trait in traits[method].split()],
            "columns": [COLUMNS[name][0] for name in shown],
            "results": results,
            "failures": [{"status": s, "reason": why, "n": n} for (s, why), n in bad_ones],
        }


def _threats(threat_by_attack: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"name": name, "label": options.told("attack", name).label, "threat": holds}
        for name, holds in threat_by_attack.items()
    ]


def _provenance(study: Study) -> dict[str, list[str]]:
    """Commit, version, devices and commands, from the rows and the records of runs."""
    provenance = {
        "commit": _values(study.frame, "commit"),
        "version": [f"unlearnbench {version}" for version in _values(study.frame, "version")],
        "computed on": _values(study.frame, "device"),
        "schema of the rows": _values(study.frame, "schema"),
    }
    goes = _manifest_lines(study.folder / "manifest.yaml", study.name)
    for _, run in [*load.runs(study.folder)][::-1]:
        if run["sweep"] == study.name:
            command = " ".join(["unlearnbench", *run["words"]])
            host = run["owner"]["host"].split(" ")[0]
            where = f" on {host}" if host else ""
            goes.append(f"{run['began']}{where}, launcher {run['launcher']['name']}: {command}")
    return {**provenance, "runs": goes or ["no record of them here"]}


def _manifest_lines(path: Path, name: str) -> list[str]:
    """The command and machine of a manifest, for rows that are stored without their runs."""
    if not path.exists():
        return []
    try:
        entry = yaml.load(path.read_text(), yaml.CSafeLoader).get(name)
        if entry is None:
            return []
        where = f"on {entry['processor']}, torch {entry['torch']}, rows kept {entry['kept']}"
        return [f"{entry['command']}: {where}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        damage.passed_over(path, error, "take it from where the rows are from")
        return []


def _values(frame: pd.DataFrame, name: str) -> list[str]:
    return sorted(map(str, frame[name].dropna().unique()))


def _glossary(numbers: pd.DataFrame) -> list[dict[str, str]]:
    metrics = set(numbers["metric"].unique())
    return [
        {
            "name": name,
            "heading": COLUMNS[name][0],
            "definition": entry.definition,
            "better": entry.better,
            "source": entry.source,
        }
        for name, entry in glossary.ENTRIES.items()
        if name in metrics and name in COLUMNS
    ]
