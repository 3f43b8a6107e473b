"""The report's files: what is written where, from Parquet alone."""

import csv
import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from report.studies import rows

from unlearnbench.__main__ import main, report
from unlearnbench.report import files
from unlearnbench.results import load, schema
from unlearnbench.results import parts as parts_module
from unlearnbench.sweep import estimate


def write(folder: Path, sweep: str, *parts: list[dict[str, Any]]) -> None:
    told = [row for part in parts for row in part]
    cells = {row["key"]: row["utility_key"] for row in told}
    listed = [{"sweep": sweep, "key": key, "utility_key": model} for key, model in cells.items()]
    parts_module.write(folder / "rows", sweep, told, schema.ROWS)
    parts_module.write(folder / "sweeps", sweep, listed, schema.SWEEP)


PARTS = [
    rows("retrain", {"test_acc": [0.5, 0.6]}),
    rows("scrub", {"test_acc": [0.6, 0.8]}),
]


def test_files_of_a_study(tmp_path: Path) -> None:
    write(tmp_path, "study", *PARTS)
    write(tmp_path, "other", rows("salun", {"test_acc": [0.1, 0.2]}))
    study = files.study(tmp_path, "study")
    made = files.report(study)
    assert {path.name for path in made} >= {"leaderboard.md", "leaderboard.csv", "leaderboard.tex"}
    assert all(path.is_relative_to(tmp_path / "study" / "report") for path in made)
    table = pd.read_csv(study.out / "leaderboard.csv").set_index("method")
    assert table.loc["scrub", "gap"] == pytest.approx(0.15)
    assert "salun" not in (study.out / "leaderboard.md").read_text()
    texts = [path for path in made if path.stem == "leaderboard"]
    first = [path.read_bytes() for path in texts]
    files.report(study)
    assert [path.read_bytes() for path in texts] == first


def test_cells_without_rows_are_told(tmp_path: Path) -> None:
    write(tmp_path, "study", *PARTS)
    listed = pd.read_parquet(tmp_path / "sweeps" / "study.parquet").to_dict("records")
    more = [{**listed[0], "key": "not there", "utility_key": "not there"}]
    parts_module.write(tmp_path / "sweeps", "study", [*listed, *more], schema.SWEEP)
    files.report(files.study(tmp_path, "study"))
    told = (tmp_path / "study" / "report" / "leaderboard.md").read_text()
    assert "The grid is incomplete: of 5 cells 1 have no rows yet." in told


def test_times_of_several_devices_are_called_so(tmp_path: Path) -> None:
    write(tmp_path, "study", PARTS[0], rows("scrub", {"test_acc": [0.6]}, device="H100"))
    files.report(files.study(tmp_path, "study"))
    told = (tmp_path / "study" / "report" / "leaderboard.md").read_text()
    assert "device H100, cpu" in told
    assert "Times of several devices cannot be compared" in told


def test_an_unknown_sweep_is_refused_with_those_there_are(tmp_path: Path) -> None:
    write(tmp_path, "study", *PARTS)
    with pytest.raises(FileNotFoundError, match=r"no sweep studi in .*: study"):
        files.study(tmp_path, "studi")
    with pytest.raises(FileNotFoundError, match="no results"):
        files.study(tmp_path / "nowhere", "study")
    parts_module.write(
        tmp_path / "sweeps",
        "empty",
        [{"sweep": "empty", "key": "k", "utility_key": "k"}],
        schema.SWEEP,
    )
    with pytest.raises(FileNotFoundError, match="no cell of empty has rows"):
        files.study(tmp_path, "empty")


def test_the_command_takes_the_latest_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no sweep in"):
        report([])
    write(tmp_path, "first", *PARTS)
    write(tmp_path, "second", *PARTS)
    for name, earlier in (("first", 100), ("second", 200)):
        path = tmp_path / "sweeps" / f"{name}.parquet"
        os.utime(path, (earlier, earlier))
    report([])
    assert not (tmp_path / "first").exists()
    assert (tmp_path / "second" / "report" / "leaderboard.md").is_file()
    report(["first", f"paths.results={tmp_path}"])
    assert (tmp_path / "first" / "report" / "leaderboard.tex").is_file()
    assert "leaderboard.md" in capsys.readouterr().out


def test_rows_that_were_kept_say_where_they_are_from(tmp_path: Path) -> None:
    write(tmp_path, "study", *PARTS)
    about = "{command: unlearnbench -m sweep=x, processor: Abacus, torch: 2.0, kept: '2026-01-02'}"
    (tmp_path / "manifest.yaml").write_text(f"study: {about}")
    page = files.report(files.study(tmp_path, "study"))[-1].read_text()
    assert "unlearnbench -m sweep=x: on Abacus, torch 2.0, rows kept 2026-01-02" in page
    (tmp_path / "manifest.yaml").write_text(f"other: {about}")
    assert "Abacus" not in files.report(files.study(tmp_path, "study"))[-1].read_text()


def test_a_report_needs_neither_torch_nor_hydra(tmp_path: Path) -> None:
    write(tmp_path, "study", *PARTS)
    program = (
        "import sys; from unlearnbench.__main__ import report; report(['study']); "
        "sys.exit(', '.join({'torch', 'hydra', 'scipy.stats'} & set(sys.modules)) or None)"
    )
    environment = {**os.environ, "UNLEARNBENCH_RESULTS": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env=environment)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "unlearnbench: no sweep nothing in "),
        (["seed=1", "sede=2"], "unlearnbench: sede is no key here; did you mean seed"),
        (["a", "b"], "unlearnbench: unlearnbench report: a b: one sweep at most"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "study", *PARTS)
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["unlearnbench", "report", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert str(ended.value).startswith(told)
    assert "\n" not in str(ended.value)


def test_without_words_results_are_where_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (None, tmp_path):
        if folder is not None:
            monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(folder))
        told = estimate.results_folder(["paths.store=elsewhere"])
        assert told == estimate.results_folder([]) == load.default_folder()


# ---------------------------------------------------------------------------------------------
# What is text stays text.

HOSTILE = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "a|b",
    "`code`",
    "a\nb",
    "<script>alert(1)</script>",
    "*bold* _it_ [x](http://x)",
    "$x^2$ $y",
    "%&#{}~^\\",
    "[x]",
    "\x1b[31mred\x1b[0m",
    "[red]x[/red] :smile:",
    "\u202etxt",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Texts of a report by their suffix, in which all names are such."""
    folder = tmp_path_factory.mktemp("results")
    values = {"test_acc": [0.5, 0.6], "ret_dev": [0.1, 0.2], "rte": [2.0, 3.0]}
    axes = {"dataset": "<script>alert(1)</script>", "model": "$x^2$ $y", "train": "=1+1"}
    about: dict[str, Any] = {**axes, "forget": "`a` | \n *b*", "commit": "=1", "device": "\x1b[1m"}
    parts = [rows("retrain", values, **about, overrides="split.y='<i>'")]
    for text in HOSTILE:
        words = {"overrides": f"method.call.x={text} split.y='<i>'", "threat": text}
        parts.append(rows(text, values, **about, **words))
        bad = {"status": "failed", "reason": text, "metric": None, "value": None, "key": text}
        parts.append([{**row, **bad} for row in rows(text, {"x": [0.0]}, **about, **words)])
    under = {**about, "overrides": "split.y='<i>'", "defense": "-2+3", "threat": "<b>"}
    for attack in ("<b>|$x$ $y", "@SUM(A1)"):
        parts.append(rows("retrain", {"mia_test_auc": [0.5, 0.6]}, attack, **under))
    write(folder, "study", *parts)
    found: dict[str, str] = {}
    for path in files.report(files.study(folder, "study")):
        if path.suffix != ".pdf":
            with path.open(encoding="utf-8", newline="") as file:
                found[path.suffix] = found.get(path.suffix, "") + (whole := file.read())
            if path.suffix == ".svg":
                ElementTree.fromstring(whole)  # control characters are no XML
    return found


drawn_badly = pytest.mark.filterwarnings("ignore:constrained_layout|Glyph")
"""Names of so many signs do not fit beside a figure."""


@pytest.mark.tried(
    "names that spreadsheets execute: =, +, -, @, a tab, a carriage return",
    "text in `leaderboard.csv`, with an apostrophe before it; numbers are numbers",
)
@drawn_badly
def test_no_cell_of_the_csv_is_a_formula(hostile: dict[str, str]) -> None:
    lines = list(csv.DictReader(io.StringIO(hostile[".csv"])))
    assert len(lines) > 3
    for line in lines:
        for name, value in line.items():
            if name in ("mean", "seeds", "records", "asked"):
                float(value)
            elif value and not re.fullmatch(r"-?[\d.]+(e-?\d+)?|-?inf|nan", value):
                assert value[0] not in "=+-@\t\r"


@pytest.mark.tried(
    "names with pipes, backticks, new lines, HTML, links",
    "text in `leaderboard.md`: no column, no markup, no tag more",
)
@drawn_badly
def test_markdown_is_as_wide_as_its_head_and_has_no_tags(hostile: dict[str, str]) -> None:
    widths = []
    bare = re.compile(r"(?<!\\)(?:\\\\)*([|`*\[\]~$])")
    for line in hostile[".md"].splitlines():
        if line.startswith("|"):
            cells = len([one for one in bare.findall(line) if one == "|"])
            widths.append(cells)
            assert set(bare.findall(line)) == {"|"}
        else:
            widths.append(0)
        assert not re.search(r"<[a-z/!?]", line)
        assert "\x1b" not in line
    assert all(a == b for a, b in itertools.pairwise(widths) if a and b)


@pytest.mark.tried("names with what LaTeX takes for commands", "text in `leaderboard.tex`")
@drawn_badly
def test_latex_has_as_many_columns_and_no_commands_of_a_name(hostile: dict[str, str]) -> None:
    commands = r"\\(?:usepackage|input|begin|end|centering|small|caption|label|toprule|midrule"
    commands += r"|bottomrule|text[a-z]+|pm|approx|neq|(?:up|down)arrow|to|dagger|chi|geq|circ"
    commands += r"|cdot|times|[&%$#_{}\\])"
    for line in hostile[".tex"].splitlines():
        rest = re.sub(commands, "", line)
        assert "\\" not in rest
        assert rest.count("{") == rest.count("}")
        assert not line.startswith(("[", "*"))
        assert "\x1b" not in line


@pytest.mark.tried(
    "names with HTML, with formulas and with escape sequences",
    "text on the page and in figures; the page runs nothing but its own scripts",
)
@drawn_badly
def test_a_name_is_no_part_of_the_page_or_of_a_figure(hostile: dict[str, str]) -> None:
    page = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", hostile[".html"], flags=re.S)
    assert "<script>" not in page
    assert "\x1b" not in page + hostile[".svg"]
    assert "&lt;script&gt;" in page
    assert hostile[".svg"].count("<svg") > 1


def test_costs_of_several_devices_are_said_to_be_left_out(tmp_path: Path) -> None:
    values = {"test_acc": [0.5, 0.6], "rte": [2.0, 3.0], "peak_bytes": [1e6, 2e6]}
    parts = [rows("retrain", values), rows("scrub", values, measured_on="H100")]
    write(tmp_path, "study", *parts)
    files.report(files.study(tmp_path, "study"))
    told = (tmp_path / "study" / "report" / "leaderboard.md").read_text()
    assert "Times of several devices cannot be compared, nor can memory" in told
    assert "RTE" not in told.partition("## Leaderboard")[2]
    assert "peak MB" not in told


@pytest.mark.tried(
    "`unlearnbench report ../sweeps/x`",
    "refused; nothing is written outside the results folder",
)
@pytest.mark.parametrize("name", ["../sweeps/study", "/tmp/x", "..", "rows", "-x", "sweeps"])
def test_a_report_stays_in_the_results(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results_folder = tmp_path / "results"
    write(results_folder, "study", *PARTS)
    write(tmp_path, "study", *PARTS)
    (tmp_path / "sweeps" / "study.parquet").rename(tmp_path / "study.parquet")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(results_folder))
    monkeypatch.setattr(sys, "argv", ["unlearnbench", "report", name])
    with pytest.raises(SystemExit) as ended:
        main()
    assert str(ended.value).startswith("unlearnbench: ")
    assert "\n" not in str(ended.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.tried(
    "another user of the results folder puts links where a report writes",
    "links are replaced, what they lead to stays as it is",
)
def test_a_report_follows_no_link(tmp_path: Path) -> None:
    write(tmp_path, "study", *PARTS)
    folder = tmp_path / "study" / "report"
    folder.mkdir(parents=True)
    other = tmp_path / "other"
    other.write_text("stays")
    for name in ("index.html", "leaderboard.md", "leaderboard.csv", "leaderboard.tex"):
        (folder / name).symlink_to(other)
    for path in files.report(files.study(tmp_path, "study")):
        assert not path.is_symlink()
    assert other.read_text() == "stays"
