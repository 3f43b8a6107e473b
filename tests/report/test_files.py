"""The report's files: what is written where, from Parquet alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report.studies import rows

from unlearnbench import commands, results
from unlearnbench.__main__ import main, report
from unlearnbench.report import files


def write(folder: Path, sweep: str, *parts: list[dict[str, Any]]) -> None:
    told = [row for part in parts for row in part]
    cells = {row["key"]: row["utility_key"] for row in told}
    listed = [{"sweep": sweep, "key": key, "utility_key": model} for key, model in cells.items()]
    results.write(folder / "rows", sweep, told, results.ROWS)
    results.write(folder / "sweeps", sweep, listed, results.SWEEP)


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
    results.write(tmp_path / "sweeps", "study", [*listed, *more], results.SWEEP)
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
    results.write(
        tmp_path / "sweeps",
        "empty",
        [{"sweep": "empty", "key": "k", "utility_key": "k"}],
        results.SWEEP,
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
        told = commands.results_folder(["paths.store=elsewhere"])
        assert told == commands.results_folder([]) == results.default_folder()
