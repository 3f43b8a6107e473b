"""The page: one HTML file with the leaderboard, figures, methods, failures and provenance.

It asks nothing of any network. Sorting and filtering are DataTables', which itables ships.
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
        numbers: what ``compare.compared`` makes of them.
        notes: what is to be said of all of it.
        sections: tables beside the leaderboard, each with what is to be said of it.
        drawn: tells the figures' files once they are there; of these the SVG are in the page.
        undrawn: settings that have no figures of their own.
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
    given, held = records(numbers), threats(rows)
    library = _library()
    here = resources.files(__package__)
    style, script = (here / "page.css").read_text(), (here / "page.js").read_text()
    library_style = library.with_suffix(".css").read_text()
    page = engine.get_template("page.html").render(
        study=study,
        summary=_summary(study),
        notes=notes,
        verdicts=list(verdicts(rows, study.found, numbers)),
        board=board(numbers, given, held, looking(rows)),
        sections=[section for section in sections if section.tables],
        methods=list(_methods(rows, given)),
        threats=_threats(held),
        provenance=_provenance(study),
        glossary=_glossary(numbers),
        policy=_policy([script], [library_style, style]),
        style=style,
        script=script,
        library_style=library_style,
        library=b64encode(library.read_bytes()).decode(),
        undrawn=undrawn,
        figures=_figures(drawn()),  # last: they are drawn meanwhile
    )
    study.out.mkdir(parents=True, exist_ok=True)
    path = study.out / "index.html"
    atomic.write(path, page)
    return path


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """What a browser lets the page do: run and apply what was written here, ask for nothing.

    The library is a module that the script makes an address of. What else comes into the page, by
    whatever name of a method, is not run.

    Args:
        scripts: the text of each of its elements, to the byte.
        styles: the same.
    """
    allowed = [
        " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in each)
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


def _summary(study: Study) -> list[tuple[str, str]]:
    """What the study is made of, in numbers."""
    rows = study.asked
    methods, attacks, defenses = (
        set(rows[name].unique()) for name in ("method", "attack", "defense")
    )
    told = {
        "method": len(methods - set(UNRANKED)),
        "data set": rows["dataset"].nunique(),
        "model": rows["model"].nunique(),
        "attack": len(attacks - {"none"}),
        "defense": len(defenses - {"none"}),
        "seed": rows["seed"].nunique(),
        "number": len(study.frame),
    }
    return [(f"{n:,}", what if n == 1 else f"{what}s") for what, n in told.items() if n]


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
        heading, says = SAYS[kind.partition("_of_")[0]]
        large = max(one["width"] for one in each) > HALF_PAGE
        wide = large or len(each) > 1
        shape = " wide" * wide + " large" * large
        told.append({"kind": kind, "heading": heading, "says": says, "each": each, "shape": shape})
    return sorted(told, key=lambda group: list(SAYS).index(group["kind"].partition("_of_")[0]))


def _methods(rows: pd.DataFrame, given: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Each method: its settings, what it gave where, what failed."""
    bare = [one for one in given if (one["defense"], one["variant"]) == ("none", "")]
    there = {one["metric"] for one in bare}
    shown = [name for name in MAIN if name in there]
    each = sorted({tuple(one[part] for part in BLOCK) for one in bare})
    blocks = pd.DataFrame(each, columns=BLOCK)
    called = dict(zip(each, names(blocks, BLOCK), strict=True))
    found: dict[str, dict[tuple[str, str], dict[str, Record]]] = {}
    for one in bare:
        where = called[tuple(one[part] for part in BLOCK)], one["own"]
        found.setdefault(one["method"], {}).setdefault(where, {})[one["metric"]] = one
    failures: dict[str, Counter[tuple[str, str]]] = {}
    for method, status, reason in missing.troubles(rows)[["method", "status", "reason"]].to_numpy():
        failures.setdefault(method, Counter())[status, reason] += 1
    each_once = rows.drop_duplicates("method")
    traits = dict(zip(each_once["method"], each_once["traits"].fillna(""), strict=True))
    for method in sorted(traits, key=lambda name: (name in CONTROLS, name)):
        about = options.told("method", method)
        own = found.get(method, {})
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
            "changed": sorted({word for _, words in own for word in override_words(words)}),
            "traits": [options.TRAITS.get(trait, trait) for trait in traits[method].split()],
            "columns": [COLUMNS[name][0] for name in shown],
            "results": results,
            "failures": [{"status": s, "reason": why, "n": n} for (s, why), n in bad_ones],
        }


def _threats(held: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"name": name, "label": options.told("attack", name).label, "threat": holds}
        for name, holds in held.items()
    ]


def _provenance(study: Study) -> dict[str, list[str]]:
    """Commit, version, machines and dates, as rows and runs say."""
    told = {
        "commit": _values(study.frame, "commit"),
        "version": [f"unlearnbench {one}" for one in _values(study.frame, "version")],
        "computed on": _values(study.frame, "device"),
        "schema of the rows": _values(study.frame, "schema"),
    }
    goes = _kept(study.folder / "manifest.yaml", study.name)
    for _, run in [*load.runs(study.folder)][::-1]:
        if run["sweep"] == study.name:
            words = " ".join(["unlearnbench", *run["words"]])
            host = run["owner"]["host"].split(" ")[0]
            where = f" on {host}" if host else ""
            goes.append(f"{run['began']}{where}, launcher {run['launcher']['name']}: {words}")
    return {**told, "runs": goes or ["no record of them here"]}


def _kept(path: Path, name: str) -> list[str]:
    """What a manifest says of rows that were kept apart from the runs that made them."""
    if not path.exists():
        return []
    try:
        one = yaml.load(path.read_text(), yaml.CSafeLoader).get(name)
        if one is None:
            return []
        where = f"on {one['processor']}, torch {one['torch']}, rows kept {one['kept']}"
        return [f"{one['command']}: {where}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        damage.passed_over(path, error, "take it from where the rows are from")
        return []


def _values(frame: pd.DataFrame, name: str) -> list[str]:
    return sorted(map(str, frame[name].dropna().unique()))


def _glossary(numbers: pd.DataFrame) -> list[dict[str, str]]:
    there = set(numbers["metric"].unique())
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
