"""The documentation holds: examples run, commands compose, pages and links are there."""

import fnmatch
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.utils import get_args_parser

from unlearnbench.check import properties, run
from unlearnbench.check.subject import PASS, SKIP, subject_of
from unlearnbench.cli import commands
from unlearnbench.config import compose as compose_module
from unlearnbench.config import validate
from unlearnbench.config.arguments import parse_arguments
from unlearnbench.config.compose import cells, expand, launcher
from unlearnbench.config.overrides import without_launcher
from unlearnbench.core.cell import AXES, Cell
from unlearnbench.pipeline import rows as rows_module
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.report.page import glossary
from unlearnbench.results import load
from unlearnbench.tune import request

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WRITTEN = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
WRITTEN.remove(DOCS / "tried.md")  # its commands are those that are refused
OWN = {"dataset": "datasets", "model": "models", "forget": "forget_sets", "method": "methods"}
OWN |= {"defense": "defenses", "attack": "attacks"}
"""Axis to the page that shows how to add an option to it."""

FENCED = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def composed_once() -> Iterator[None]:
    """What many commands choose alike is composed once; checking only reads it."""
    found: dict[Any, Any] = {}
    compose = validate.hydra_compose

    def once(name: str, overrides: Any = (), return_hydra_config: bool = False) -> Any:
        key = (name, *overrides, return_hydra_config)
        if key not in found:
            found[key] = compose(name, list(overrides), return_hydra_config)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "hydra_compose", once)
        yield


# ---------------------------------------------------------------------------------------------
# Examples: the files they show are written to a folder, their test and their command are run.


def files(page: str) -> dict[str, str]:
    """The titled blocks of a page: a file's path, or ``run``, to what is in it."""
    blocks = FENCED.findall((DOCS / f"{page}.md").read_text())
    return {title: text for _, title, text in blocks if title}


@pytest.mark.tried(
    "an attack on one output with traits.ends: the example in docs/attacks.md",
    "its floor and ceiling are the figures of the controls (were the method's own)",
)
@pytest.mark.parametrize("axis", OWN)
def test_an_option_of_ones_own(
    axis: str, new_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = files(OWN[axis])
    told = shown.pop("run").replace("$PWD", str(tmp_path))
    for name, text in shown.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code, option, test = shown
    name = Path(code).stem
    assert (option, test) == (f"conf/{axis}/{name}.yaml", f"test_{name}.py")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(Path(test).stem)
        tests = [one for key, one in vars(module).items() if key.startswith("test_")]
        assert tests
        for one in tests:
            one()
        export, *lines = told.splitlines()
        assert export == f"export PYTHONPATH={tmp_path}"
        used = [option for line in lines for option in worked(new_workspace, line, axis)]
        assert name in used
        if axis == "attack":
            held_to_controls(new_workspace, lines[0])
    finally:
        for one in (name, Path(test).stem):
            sys.modules.pop(one, None)


def held_to_controls(workspace: Workspace, line: str) -> None:
    """Both ends of each method are the figures that the controls' own rows have."""
    _, *words = shlex.split(line, comments=True)
    figures = {}
    for method in ("original", "retrain", "finetune", "gradient_ascent"):
        (cell,) = cells([[*words, f"method={method}", "forget.call.fraction=0.3"]])
        rows = rows_module.rows_of(workspace, cell).rows
        figures[method] = {row["metric"]: row["value"] for row in rows if row["attack"] != "none"}
    floor, ceiling = (figures[control]["gap_bal_acc"] for control in ("retrain", "original"))
    assert len({one["gap_bal_acc"] for one in figures.values()}) > 2
    for one in figures.values():
        assert one["gap_bal_acc_floor"] == floor
        assert one["gap_bal_acc_ceiling"] == ceiling
        assert one["gap_bal_acc_gap"] == pytest.approx(one["gap_bal_acc"] - floor)
        share = (one["gap_bal_acc"] - floor) / (ceiling - floor)
        assert one["gap_bal_acc_normalised"] == pytest.approx(share)


def worked(workspace: Workspace, line: str, axis: str) -> Iterator[str]:
    """Do what a command asks for, in this process; the options of an axis that it was done of."""
    _, *words = shlex.split(line, comments=True)
    if words[0] == "check":
        yield from examined(words[1:])
        return
    overrides = [word for word in words if word != "-m"]
    grid = expand(overrides)
    assert len(grid) == 1 or "-m" in words
    for cell in cells(grid):
        found = rows_module.rows_of(workspace, cell)
        assert found.error is None, f"{line}: {found.error}"
        assert {"test_acc", "ret_dev"} <= {row["metric"] for row in found.rows}
        yield str(getattr(cell, axis)["name"])


def examined(words: list[str]) -> list[str]:
    """The properties of a method that can be asked of it in no time; the suite has all of them."""
    (option,) = run._options(words)
    subject = subject_of(option)
    quick = list(properties.properties())[:2]
    told = [run.verdict_of(subject, asked) for asked in quick]
    assert {one.result for one in told} <= {PASS, SKIP}, told
    return [option["name"]]


# ---------------------------------------------------------------------------------------------
# Options and metrics: each is on its page.


def first_columns(page: str) -> list[str]:
    """The code spans in the first column of the tables of a page."""
    lines = (DOCS / f"{page}.md").read_text().splitlines()
    return [
        name
        for line in lines
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", line)[1])
    ]


@pytest.mark.parametrize("axis", AXES)
def test_every_option_is_on_its_page(axis: str) -> None:
    told = first_columns({**OWN, "train": "models"}[axis])
    assert set(validate.options(axis)) <= set(told), set(validate.options(axis)) - set(told)


def test_threats_are_as_the_options_have_them() -> None:
    paths = (ROOT / "conf" / "attack").iterdir()
    told = {path.stem: yaml.safe_load(path.read_text()) for path in paths}
    for page in ("attacks", "glossary"):
        lines = (DOCS / f"{page}.md").read_text().splitlines()
        for name, option in told.items():
            if name in ("none", "ulira_deep_unlearn"):  # an option of ulira
                continue
            mine = [line for line in lines if re.match(rf"\| (`\w+`, )*`{name}`", line)]
            assert any(option["threat"] in line for line in mine), f"{page}: {name}"


FIGURES = ["dataset=breast_cancer", "model=logreg", "train.call.epochs=3", "method.call.epochs=1"]
EXACT = ["train=exact", "method=retrain", "attack=hrec", "single_deletions.count=10"]
INVERSION = ["attack=model_inversion", "attack.call.process=none", "attack.call.starts=2"]
CELLS = {
    "umia": FIGURES,
    "lira": [*FIGURES, "attack=lira", "shadow_models.models=8"],
    "rmia": [*FIGURES, "attack=rmia", "shadow_models.models=8"],
    "ulira": [*FIGURES, "attack=ulira", "shadow_models.models=12"],
    "class_shadow": [
        *[*FIGURES, "forget=by_class", "attack=class_shadow", "attack.call.epochs=1"],
        *["attack.shadow_models.models=4", "attack.shadow_models.targets=2"],
    ],
    "double_output": [
        *[*FIGURES, "attack=double_output"],
        *["request_pairs.originals=3", "request_pairs.requests=3", "request_pairs.size=100"],
    ],
    "hrec": ["dataset=wine", "model=softmax_regression", *EXACT],
    "hrec of a regression": ["dataset=diabetes", "model=ridge", *EXACT],
    "hrec of features": [
        *["dataset=wine", "model=ridge", "model.call.features=40", *EXACT],
        *["attack.call.steps=5", "attack.call.restarts=1"],
    ],
    "inversion": [*FIGURES, "forget=by_class", *INVERSION, "attack.call.iterations=5"],
    "amnesiac": [*FIGURES, "method=amnesiac", "attack=none"],
    "influence": [
        *["dataset=breast_cancer", "model=logreg", "train.call.epochs=3", "attack=none"],
        *["method=influence", "method.call.iterations=5"],
    ],
    "dp_sgd": [
        *["dataset=breast_cancer", "model=logreg", "train=dp_sgd", "train.call.epochs=1"],
        *["method=retrain", "attack=none"],
    ],
    "relearn": [*FIGURES, "attack=relearn", "attack.call.steps=3"],
    "weights": [*FIGURES, "attack=weights"],
    "zrf": [*FIGURES, "attack=zrf"],
    "along": [*FIGURES, "forget=by_class", "train.trace_every=1", "attack=none"],
}


@pytest.mark.parametrize("name", CELLS)
def test_every_metric_of_the_rows_is_in_the_glossary(
    name: str, cell: Callable[..., Cell], workspace: Workspace
) -> None:
    known = [re.sub(r"<[^>]+>", "*", one) for one in first_columns("glossary")]
    (one,) = cells([CELLS[name]])
    found = rows_module.rows_of(workspace, one)
    assert found.error is None, found.error
    metrics = {row["metric"] for row in found.rows}
    unknown = {one for one in metrics if not any(fnmatch.fnmatch(one, name) for name in known)}
    assert not unknown


def rows_of(metric: str) -> list[list[str]]:
    """The lines of the glossary's tables that a metric stands in by its own name, as columns."""
    lines = (DOCS / "glossary.md").read_text().splitlines()
    parts = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| `")]
    return [[part.strip() for part in line] for line in parts if f"`{metric}`" in line[0]]


BEST = {
    glossary.HIGHER: r"higher|1\b",
    glossary.LOWER: r"lower|0\b",
    glossary.HALF: "½",
    glossary.AS_RETRAINED: "as retrained",
    glossary.LEAKS: "higher",
}


@pytest.mark.parametrize("metric", glossary.ENTRIES)
def test_the_page_of_a_report_says_what_the_glossary_says(metric: str) -> None:
    entry = glossary.ENTRIES[metric]
    ((_, _, _, best, source),) = (line for line in rows_of(metric) if len(line) == 5)
    numbers = set(re.findall(r"\d{4}\.\d{5}", entry.source))
    assert numbers <= set(re.findall(r"\d{4}\.\d{5}", source))
    assert re.search(BEST.get(entry.better, ""), best), entry.better


# ---------------------------------------------------------------------------------------------
# Commands, and options named in passing.


def told(path: Path) -> list[str]:
    """The commands of a page: whole lines of code, and code spans."""
    text = path.read_text()
    lines = re.sub(r" *\\\n *", " ", text).splitlines()
    found = [line.strip() for line in lines if re.match(r" *(\.venv/bin/)?unlearnbench ", line)]
    prose = FENCED.sub("", re.sub(r"(?m)^    .*$", "", text))
    found += [" ".join(one.split()) for one in re.findall(r"`(unlearnbench [^`]+)`", prose)]
    return [line for line in found if not re.search(r"\$PWD|…|<", line)]


@pytest.mark.usefixtures("composed_once")
@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_every_command_composes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path))
    monkeypatch.setenv("UNLEARNBENCH_DATA", str(tmp_path))
    for name in ("acs/2018/1-Year", "UTKFace"):  # of these sets the files are part of the keys
        (tmp_path / name).mkdir(parents=True)
    for line in told(path):
        _, *words = shlex.split(line, comments=True)
        try:
            composes(tuple(words))
        except Exception as error:
            raise AssertionError(f"{path.name}: {line}") from error


@cache
def composes(words: tuple[str, ...]) -> None:
    """Raise where the command would refuse these words."""
    first, *rest = words[1:] if words[:2] == ("plan", "tune") else words
    if first == "store":
        assert rest[0] in ("verify", "du", "gc")
        return
    if first == "check" and re.fullmatch(r"method=\w+\.\w+", rest[0]):
        return  # of a function that the example shows, where it is run
    if first == "tune":
        assert rest == ["--help"] or request.ask(rest).studies
        return
    if first in (*commands.COMMANDS, "report"):
        named, _, overrides = parse_arguments(first, rest)
        kept = load.sweeps(ROOT / "results" / "reference")
        of_reference = "paths.results=results/reference" in overrides
        assert named is None or named in (kept if of_reference else config_sweeps())
        swept = True
    else:
        given = get_args_parser().parse_args(list(words))
        overrides, swept = given.overrides, given.multirun
    if not overrides or set(overrides) <= {f"sweep={name}" for name in config_sweeps()}:
        return  # a study as it is: that each composes is held elsewhere
    launcher(overrides)
    own = without_launcher(overrides)
    own = [word for word in own if not word.startswith("tuned=")]  # what a search has found
    study = compose_module.study(own)
    grid = expand([*study, *own])
    assert len(grid) == 1 or swept, "a sweep needs -m"
    if not any("path=" in word for word in own):  # of a file that is the reader's
        assert cells(grid[:1])


def config_sweeps() -> set[str]:
    return {path.stem for path in (ROOT / "conf" / "sweep").iterdir()}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_options_and_sweeps_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    made_up = {Path(name).stem for page in OWN.values() for name in files(page)}
    for axis, name in re.findall(rf"\b({'|'.join(AXES)})=(\w+)", text):
        assert name in {*validate.options(axis), *made_up, "glob"}, f"{axis}={name}"
    assert set(re.findall(r"\bsweep=(\w+)", text)) <= config_sweeps()


def test_every_sweep_is_told_of() -> None:
    assert config_sweeps() <= set(first_columns("running"))


# ---------------------------------------------------------------------------------------------
# Pages and links.


def leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for one in nav if isinstance(nav, list) else []:
        yield from leaves(one)
    for one in nav.values() if isinstance(nav, dict) else []:
        yield from leaves(one)


def test_every_page_is_in_the_navigation() -> None:
    there = set(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert {path.name for path in PAGES} <= there
    reference = {f"results/reference/{one.name}" for one in ROOT.glob("results/reference/*.md")}
    assert reference <= there


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_links_hold_where_the_files_are_read_in_place(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / link).exists(), link


class Requests(HTMLParser):
    """What a browser asks for by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href") or "")
        self.found += [given[name] or "" for name in ("src", "srcset", "poster") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``make docs`` builds it."""
    build = pytest.importorskip("mkdocs.commands.build", reason="MkDocs is of the extra docs")
    pytest.importorskip("material", reason="its theme is of the extra docs")
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_the_site_builds_without_a_warning(site: Path) -> None:
    """Strict: a link or an anchor that leads nowhere is an error."""
    for path in PAGES:
        assert (site / f"{path.stem}.html").is_file()
        assert "<p>|" not in (site / f"{path.stem}.html").read_text(), "a line outside its table"


def test_the_site_asks_for_nothing_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        requests = Requests()
        requests.feed(path.read_text())
        outside = [one for one in requests.found if re.match(r"(https?:)?//", one)]
        assert not outside, path
        assert 'class="mermaid"' not in path.read_text()  # which the theme would fetch a script for
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", path.read_text()), path


def test_the_page_of_faults_is_what_the_tests_try(
    collected: list[pytest.Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the files that are collected here; ``pytest tests`` collects all."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    tried = importlib.import_module("tried")
    written = tried.PAGE.read_text()
    for section in tried.sections(collected).values():
        assert section in written, "run python scripts/tried.py"
    if {item.path for item in collected} == set((ROOT / "tests").rglob("test_*.py")):
        assert written == tried.page(collected), "run python scripts/tried.py"
