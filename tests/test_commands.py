"""``plan``, ``status``, ``retry``, ``cancel``, ``collect`` and ``compact``, on sweeps here."""

import os
import re
import signal
from pathlib import Path

import pandas as pd
import pytest
from clusters import counted
from sweeps import RAISING, TINY, Preloaded, finished, table, until

from unlearnbench.cli import status
from unlearnbench.config.arguments import parse_arguments
from unlearnbench.core.errors import ConfigError
from unlearnbench.results.load import load_results
from unlearnbench.sweep import control, estimate

pytest_plugins = ["sweep_fixtures"]

FAST = [*TINY, "attack.call.splits=2", "workers=2"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    (folder / "method").mkdir()
    (folder / "method" / "raising.yaml").write_text(RAISING)
    return folder


def says(preloaded: Preloaded, results: Path, *words: str, code: int = 0, **more: str) -> str:
    ended, sweep = preloaded.run(words, results, **more)
    assert ended == code, sweep.out + sweep.err
    return sweep.out + sweep.err


def test_failed_cells_are_told_and_tried_again(
    preloaded: Preloaded, options: Path, tmp_path: Path
) -> None:
    words = [*FAST, "method=finetune,raising", "seed=0,1", f"hydra.searchpath=[file://{options}]"]
    says(preloaded, tmp_path, "-m", *words, code=1)
    said = says(preloaded, tmp_path, "status")
    assert counted(said) == {
        "done": 8,
        "skipped": 0,
        "running": 0,
        "waiting": 0,
        "failed": 2,
        "missing": 0,
        "all": 10,
    }
    assert counted(said, "2 unlearned")["failed"] == 2
    assert counted(said, "1 trained")["done"] == 5
    assert "failed, 2 cells: raising seed 0, raising seed 1: KeyError: 'on\\npurpose'" in said
    assert re.search(r"slowest: \w+ of breast_cancer × logreg seed \d", said)
    there = finished(tmp_path)
    says(preloaded, tmp_path, "retry", code=1)
    says(preloaded, tmp_path, "retry", "--oom")  # none of them
    said = says(preloaded, tmp_path, "retry", "--failed", UNRULY="calm")
    assert said.startswith("2 cells → 2 originals, 2 retrains, 2 unlearned; 4 in store; 2 waves\n")
    assert set(load_results(tmp_path)["status"]) == {"ok"}
    assert there.items() <= finished(tmp_path).items()
    assert counted(says(preloaded, tmp_path, "status"))["done"] == 10
    assert says(preloaded, tmp_path, "retry").endswith("nothing to try again; cells: 10 done\n")
    collected = says(preloaded, tmp_path, "collect")
    assert len(re.findall(r"^ (finetune|raising) ", collected, re.MULTILINE)) == 2


def test_a_plan_knows_what_was(preloaded: Preloaded, tmp_path: Path) -> None:
    words = [*FAST, "method=finetune"]
    said = says(preloaded, tmp_path, "plan", *words, "seed=range(3)")
    assert said.startswith("12 cells → 3 originals, 4 retrains, 3 unlearned; 3 waves\n")
    assert said.count("unknown ") == 3 * 4
    assert (
        "unknown, for nothing like it was done here: 3 original of breast_cancer × logreg" in said
    )
    says(preloaded, tmp_path, *words, "seed=7")
    said = says(preloaded, tmp_path, "plan", *words, "seed=range(3)")
    assert "unknown" not in said
    assert re.search(r"^ all +13 +3 +[\d.e-]+ +0 +[\d.]+ kB", said, re.MULTILINE)
    nothing = says(preloaded, tmp_path, "plan", *words, "seed=7")
    assert nothing == "4 cells, all there\n"


def test_a_running_sweep_is_seen_and_cancelled(preloaded: Preloaded, tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    words = ["-m", *FAST, "method=finetune", "seed=0,1", "train.call._target_=unruly.gated_fit"]
    environment = {"UNRULY_LOG": str(log), "UNRULY_GATE": str(gate)}
    sweep = preloaded.start(words, tmp_path, **environment)
    until(lambda: log.is_file() and log.read_text().count("\n") == 2)
    said = says(preloaded, tmp_path, "status")
    assert counted(said, "1 trained")["running"] == 2
    assert counted(said, "1 trained")["waiting"] == 3
    assert counted(said)["waiting"] == 8
    assert "tasks: 1 running" in said
    assert "interrupted process" in says(preloaded, tmp_path, "cancel")
    assert sweep.wait() == 130
    assert "interrupted" in sweep.err
    said = says(preloaded, tmp_path, "status")
    assert counted(said)["missing"] == 8
    assert "missing, 8 cells: no task is left" in said
    gate.write_text("5")  # passes, one a training
    says(preloaded, tmp_path, "retry", **environment)
    assert counted(says(preloaded, tmp_path, "status"))["done"] == 8


def test_a_sweep_whose_host_was_killed_is_missing(preloaded: Preloaded, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["-m", *FAST, "seed=0,1", "train.call._target_=unruly.endless_fit"]
    sweep = preloaded.start(words, tmp_path, UNRULY_LOG=str(log))
    until(lambda: log.is_file() and log.read_text().count("began") == 2)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    said = says(preloaded, tmp_path, "status")
    assert counted(said)["missing"] == 8
    assert counted(said, "1 trained")["missing"] == 5


def test_compacted_rows_are_the_same(preloaded: Preloaded, tmp_path: Path) -> None:
    words = ["-m", *FAST, "method=finetune", "seed=range(3)"]
    says(preloaded, tmp_path, *words)
    before = table(tmp_path)
    assert len(list(tmp_path.glob("rows/*"))) == 3
    assert says(preloaded, tmp_path, "compact").startswith("rows: 3 files are one\n")
    assert len(list(tmp_path.glob("rows/*"))) == 1
    pd.testing.assert_frame_equal(table(tmp_path), before)
    assert says(preloaded, tmp_path, "compact").startswith("rows: nothing to do\n")
    assert says(preloaded, tmp_path, *words).startswith("12 cells, all there\n")


def test_words_are_sorted() -> None:
    told = parse_arguments("retry", ["deep", "--oom", "a.b=1", "-m"])
    assert told == ("deep", {"--oom": True}, ["a.b=1"])
    told = parse_arguments("report", ["--figures", "mnist*", "deep"])
    assert told == ("deep", {"--figures": "mnist*"}, [])
    assert parse_arguments("status", []) == (None, {}, [])
    name, _, words = parse_arguments("plan", ["--config-dir", "/x", "seed=1"])
    assert (name, words) == (None, ["seed=1", "hydra.searchpath=['file:///x']"])
    for command, words in (("status", ["a", "b"]), ("plan", ["a"])):
        with pytest.raises(ConfigError, match=f"unlearnbench {command}: a"):
            parse_arguments(command, words)


def test_more_memory_is_twice_as_much() -> None:
    told = {"name": "slurm", "mem": "300M"}
    assert control._more_memory(told, []) == ["hydra.launcher.mem=600M"]
    assert control._more_memory(told, ["hydra.launcher.mem=2G"]) == []
    with pytest.raises(ConfigError, match=r"say how much: hydra\.launcher\.mem="):
        control._more_memory({**told, "mem": None}, [])
    assert control._more_memory({"name": "local"}, []) == ["workers=1"]


@pytest.mark.parametrize(
    ("seconds", "told"), [(3.14159, "3.14 s"), (119, "2 min"), (7260, "2 h 1 min")]
)
def test_durations(seconds: float, told: str) -> None:
    assert status.duration(seconds) == told


@pytest.mark.parametrize(
    ("size", "told"), [(999, "999 B"), (45_600_000, "45.6 MB"), (2e15, "2e+03 TB")]
)
def test_amounts(size: float, told: str) -> None:
    assert estimate.amount(size) == told
