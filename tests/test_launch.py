"""Sweeps on worker processes: killed, doubled, on one and on two workers."""

import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from disks import full
from sweeps import (
    ARTIFACTS,
    CELLS,
    FILES_OF_ROWS,
    RAISING,
    SWEEP,
    TINY,
    Preloaded,
    Undisturbed,
    checksums,
    finished,
    table,
    until,
)
from test_store import GROUP

from unlearnbench import __main__
from unlearnbench.cli.main import mistakes_in_one_line
from unlearnbench.config import compose
from unlearnbench.core import provenance
from unlearnbench.core.errors import ConfigError
from unlearnbench.results.compact import compact
from unlearnbench.results.load import load_results
from unlearnbench.store import maintenance
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import journal, run_record, scheduler
from unlearnbench.sweep import local as launch

pytest_plugins = ["sweep_fixtures"]

SETTINGS = {"device": "cpu", "workers": 1, "controls": ["original"]}


def test_every_model_is_made_once_and_every_cell_has_rows(undisturbed: Undisturbed) -> None:
    assert len(checksums(undisturbed.results)) == ARTIFACTS
    wide = load_results(undisturbed.results, wide=True)
    assert len(wide) == CELLS
    assert set(wide["status"]) == {"ok"}
    assert set(wide["method"]) == {
        "original",
        "retrain",
        "second_retrain",
        "finetune",
        "gradient_ascent",
    }


def test_any_number_of_workers_gives_the_same_bytes(
    preloaded: Preloaded, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    code, _ = preloaded.run([*SWEEP, "workers=1"], tmp_path)
    assert code == 0
    assert checksums(tmp_path) == checksums(undisturbed.results)
    pd.testing.assert_frame_equal(table(tmp_path), table(undisturbed.results))


def test_killed_at_ten_moments_and_run_again(
    preloaded: Preloaded, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    draw = random.Random(1)
    codes = []
    # Hydra's second and a half would be ten times the same; what is killed is all that comes after.
    grid = compose.expand([*SWEEP[1:], f"paths.results={tmp_path}"])
    settings = {**compose.settings(grid[0]), "workers": 2}
    whole = partial(launch.run, compose.cells(grid, settings["controls"]), settings)
    for moment in range(10):
        before = finished(tmp_path)
        wanted = draw.uniform(moment, moment + 1) / 10 * (ARTIFACTS + FILES_OF_ROWS)
        sweep = preloaded.start([], tmp_path, whole)
        if made(tmp_path) < wanted:
            until(lambda n=wanted, sweep=sweep: made(tmp_path) >= n or not sweep.running)
        else:
            time.sleep(draw.uniform(0, 0.3))
        if sweep.running:
            # All of it, as a power cut; or the command only, whose workers must end by themselves.
            (os.killpg if moment % 2 else os.kill)(sweep.pid, signal.SIGKILL)
        codes.append(sweep.wait())
        assert before.items() <= finished(tmp_path).items()
    assert codes.count(-signal.SIGKILL) >= 6
    before = finished(tmp_path)
    code, _ = preloaded.run([*SWEEP, "workers=2"], tmp_path)
    assert code == 0
    assert before.items() <= finished(tmp_path).items()
    assert checksums(tmp_path) == checksums(undisturbed.results)
    pd.testing.assert_frame_equal(table(tmp_path), table(undisturbed.results))
    assert not list(tmp_path.glob("store/*/*.tmp"))


@pytest.mark.slow
def test_workers_killed_at_fifty_moments(
    preloaded: Preloaded, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """What they were at has failed; run again it has not, and what was finished stays."""
    draw, kills = random.Random(2), 0
    grid = compose.expand([*SWEEP[1:], f"paths.results={tmp_path}"])
    settings = {**compose.settings(grid[0]), "workers": 2}
    whole = partial(launch.run, compose.cells(grid, settings["controls"]), settings)
    while kills < 50:
        before = finished(tmp_path)
        sweep = preloaded.start([], tmp_path, whole)
        while sweep.running and kills < 50:
            time.sleep(draw.uniform(0, 0.3))
            workers = [worker for host in children(sweep.pid) for worker in children(host)]
            if workers:
                os.kill(draw.choice(workers), signal.SIGKILL)
                kills += 1
        sweep.wait()
        assert before.items() <= finished(tmp_path).items()
        if len(before) == ARTIFACTS and kills < 50:  # nothing is left to disturb
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
    before = finished(tmp_path)
    code, _ = preloaded.run([*SWEEP, "workers=2"], tmp_path)
    assert code == 0
    assert before.items() <= finished(tmp_path).items()
    assert checksums(tmp_path) == checksums(undisturbed.results)
    pd.testing.assert_frame_equal(table(tmp_path), table(undisturbed.results))


def made(results: Path) -> int:
    return len(finished(results)) + len(list(results.glob("rows/*.parquet")))


def test_run_again_there_is_nothing_to_do(preloaded: Preloaded, undisturbed: Undisturbed) -> None:
    before = finished(undisturbed.results)
    parts = {path: path.stat().st_mtime_ns for path in undisturbed.results.glob("rows/*")}
    code, sweep = preloaded.run(SWEEP, undisturbed.results)
    assert code == 0
    assert sweep.out.startswith(f"{CELLS} cells, all there")
    assert finished(undisturbed.results) == before
    assert {p: p.stat().st_mtime_ns for p in undisturbed.results.glob("rows/*")} == parts
    # The leaderboard is that of the first time.
    title = "dataset breast_cancer"
    assert sweep.out.split(title)[1] == undisturbed.said.split(title)[1]


def test_two_sweeps_at_once_train_each_model_once(preloaded: Preloaded, tmp_path: Path) -> None:
    log = tmp_path / "trainings"
    words = [word for word in SWEEP if not word.startswith("seed=")]
    words += ["seed=0,1", "workers=2", "train.call._target_=unruly.counted_fit"]
    both = [preloaded.start(words, tmp_path, UNRULY_LOG=str(log)) for _ in range(2)]
    assert [sweep.wait() for sweep in both] == [0, 0]
    times = Counter(log.read_text().split())
    assert len(times) == 2 + 3
    assert set(times.values()) == {1}
    assert len(load_results(tmp_path, wide=True)) == 5 * 2


def test_interrupted_no_process_is_left(preloaded: Preloaded, tmp_path: Path) -> None:
    log = tmp_path / "trainings"
    words = [*TINY, "workers=2", "train.call._target_=unruly.endless_fit"]
    sweep = preloaded.start(words, tmp_path, UNRULY_LOG=str(log))
    until(lambda: log.is_file() and log.read_text().count("began") == 2)
    os.kill(sweep.pid, signal.SIGINT)
    assert sweep.wait() == 130
    assert sweep.err == "unlearnbench: interrupted; the same command goes on from here\n"
    assert not list(tmp_path.glob("logs/*"))


def test_a_host_that_dies_is_told(preloaded: Preloaded, tmp_path: Path) -> None:
    log = tmp_path / "trainings"
    words = [*TINY, "workers=2", "train.call._target_=unruly.endless_fit"]
    sweep = preloaded.start(words, tmp_path, UNRULY_LOG=str(log))
    until(lambda: log.is_file() and log.read_text().count("began") == 2)
    (host,) = children(sweep.pid)
    os.kill(host, signal.SIGKILL)
    assert sweep.wait() == 1
    assert sweep.err.startswith("unlearnbench: the working process ended: without a word")


def test_nothing_is_left_open(preloaded: Preloaded, tmp_path: Path) -> None:
    code, sweep = preloaded.run([], tmp_path, partial(watched, tmp_path))
    assert code == 0, sweep.err
    assert "launch.py" not in sweep.err


def watched(results: Path) -> None:
    warnings.simplefilter("always", ResourceWarning)
    grid = compose.expand([*TINY, "method.call.epochs=1", f"paths.results={results}"])
    launch.run(compose.cells(grid, ["original"]), compose.settings(grid[0]))
    gc.collect()


def test_nothing_is_left_open_of_a_host_that_read_no_orders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    more_than_a_pipe_holds = b"." * 2**20
    with (tmp_path / "errors").open("w") as errors:
        with launch.WorkerProcess(more_than_a_pipe_holds, errors) as host:  # type: ignore[arg-type]
            assert list(host) == []
        for pipe in (host.process.stdin, host.process.stdout):
            assert pipe is not None
            assert pipe.closed


def children(pid: int) -> list[int]:
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []  # it has ended
    return [int(one) for one in told.split()]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"workers": 0}, "workers=0: must be a number of processes, or null"),
        ({"workers": "many"}, "workers=many: must be a number of processes, or null"),
        ({"workers": True}, "workers=True: must be a number of processes, or null"),
        ({"device": "gpu"}, "device=gpu: must be auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "device=cuda:x: must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_nothing_to_work_on_is_refused_at_once(
    changed: dict[str, object], told: str, tmp_path: Path
) -> None:
    paths = {"results": str(tmp_path / "new"), "store": str(tmp_path / "new" / "store")}
    with pytest.raises(ConfigError, match=told):
        launch.run([], {**SETTINGS, "paths": paths, **changed})
    assert not (tmp_path / "new").exists()


def test_rows_that_cannot_be_written_are_told(preloaded: Preloaded, tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("in the way of a folder")
    code, sweep = preloaded.run([*TINY, "method.call.epochs=1"], tmp_path)
    assert code == 1
    assert sweep.err.startswith("unlearnbench: the rows of 4 cells could not be written: ")
    assert sweep.err.count("\n") == 1


# ---------------------------------------------------------------------------------------------
# The host breaks off.

CALLS = {
    "the journal's beginning": (journal.Journal, "__init__"),
    "a line of the journal": (journal.Journal, "began"),
    "a settled job in the journal": (journal.Journal, "settle"),
    "the journal's end": (journal.Journal, "ended"),
    "a touch of the journal": (journal.Journal, "beat"),
    "what failed before": (journal.Journal, "failures"),
    "a look into the store": (Store, "has"),
    "a fork": (scheduler.Scheduler, "_start"),
    "an event": (scheduler.Scheduler, "_tell"),
    "a worker's answer": (scheduler.Scheduler, "_settle"),
    "listening": (scheduler, "wait"),
    "counting devices": (scheduler, "devices"),
    "the size of what was made": (scheduler, "_bytes"),
}
ERRORS = {
    "a full disk": OSError(28, "No space left on device"),
    "no permission": PermissionError(13, "Permission denied"),
    "something else": RuntimeError("on purpose"),
}


def breaking(call: str, error: str, results: Path) -> None:
    """A sweep whose host breaks off at a call; the launching process has no such call."""
    (place, name), host = CALLS[call], scheduler.main

    def broken(*_: object, **__: object) -> None:
        raise ERRORS[error]

    def main() -> None:
        setattr(place, name, broken)
        host()

    scheduler.main = main
    grid = compose.expand([*TINY, "method.call.epochs=1", f"paths.results={results}"])
    settings = {**compose.settings(grid[0]), "workers": 2}
    with mistakes_in_one_line():
        launch.run(compose.cells(grid, ["original"]), settings)


@pytest.mark.tried(
    "the process that hands out jobs meets an error at any call that reads or writes",
    "the sweep ends with one line and exit code 1, and no process is left",
)
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", CALLS)
def test_a_host_that_breaks_off_ends_the_sweep(
    preloaded: Preloaded, tmp_path: Path, call: str, error: str
) -> None:
    sweep = preloaded.start([], tmp_path, partial(breaking, call, error, tmp_path))
    assert sweep.open_while_alive.poll(60), "it hangs"
    assert sweep.wait() == 1
    assert sweep.err.startswith("unlearnbench: the working process ended: ")
    assert sweep.err.count("\n") == 1
    assert str(ERRORS[error]) in sweep.err


AUDITED = {"open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.utime"}
"""What Python says of itself before it reads or writes."""


def broken_at(number: int, error: BaseException, results: Path) -> None:
    """The command, in whose process an access to the results raises an error, by its number."""
    own, accesses = os.getpid(), [0]

    def hook(event: str, about: tuple[object, ...]) -> None:
        if event in AUDITED and os.getpid() == own and str(about[0]).startswith(str(results)):
            accesses[0] += 1
            if accesses[0] == number:
                raise error

    sys.addaudithook(hook)
    __main__.main()


@pytest.fixture(scope="module")
def swept(preloaded: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("swept")
    code, sweep = preloaded.run(["-m", *TINY, "method.call.epochs=1", "seed=0,1"], results)
    assert code == 0, sweep.err
    return results


@pytest.mark.tried(
    "a command meets a full disk, no memory or an interrupt where it reads or writes results",
    "it ends with one line and exit code 1, or 130, and no process is left",
)
@pytest.mark.parametrize("error", [OSError(28, "full"), MemoryError(), KeyboardInterrupt()])
@pytest.mark.parametrize("number", [1, 8])
@pytest.mark.parametrize(
    "words", [TINY, ["tune", *TINY, "trials=1"], ["collect"], ["compact"], ["status"], ["report"]]
)
def test_a_command_that_breaks_off_says_so_in_a_line(
    preloaded: Preloaded,
    swept: Path,
    tmp_path: Path,
    words: list[str],
    number: int,
    error: BaseException,
) -> None:
    results = tmp_path / "results"
    shutil.copytree(swept, results)
    sweep = preloaded.start(words, results, partial(broken_at, number, error, results))
    assert sweep.open_while_alive.poll(120), "it hangs"
    code = sweep.wait()
    assert code in (0, 130 if isinstance(error, KeyboardInterrupt) else 1)
    assert "Traceback" not in sweep.err
    assert (sweep.err.count("\n") == 1) == bool(code)


@pytest.mark.tried(
    "the disk of the results fills up during a sweep",
    "the sweep ends with one line and exit code 1, and no process is left",
)
@pytest.mark.parametrize("size", ["64k", "256k", "512k"])
def test_a_full_disk_ends_the_sweep(preloaded: Preloaded, tmp_path: Path, size: str) -> None:
    with full(tmp_path / "disk", size) as folder:
        (folder / "filler").write_bytes(b"." * 40_000)
        words = [*SWEEP, "workers=2"]
        sweep = preloaded.start(words, folder)
        assert sweep.open_while_alive.poll(120), "it hangs"
        assert sweep.wait() == 1
    assert sweep.err.count("\n") <= 1
    assert "No space left on device" in sweep.err + sweep.out


# ---------------------------------------------------------------------------------------------
# Two users.


def as_member(uid: int, function: Callable[[], object]) -> None:
    """Call a function as a user of the group, with the umask that is documented."""
    provenance.commit()  # kept: this user may have no access to where Python lies
    os.setgroups([])
    os.setgid(GROUP)
    os.setuid(uid)
    os.umask(0o002)
    function()


def looked_after(results: Path) -> None:
    """Compact the rows, read them, and delete every artifact."""
    compact(results)
    assert set(load_results(results)["status"]) == {"ok"}
    assert len(run_record.runs(results)) >= 2
    store = Store(results / "store")
    for key in maintenance.waste(store, days=-1, keep="all").artifacts:
        store.remove(key)


@pytest.mark.tried(
    "two users of a group share a results folder",
    "each retries, compacts, reads and deletes what the other has made",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users")
def test_two_users_share_a_results_folder(preloaded: Preloaded) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # whose parents both may enter
        Path(name).chmod(0o755)
        folder, options = Path(name) / "results", Path(name) / "options" / "method"
        folder.mkdir()
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2775)
        options.mkdir(parents=True)
        (options / "raising.yaml").write_text(RAISING)
        words = [*TINY, "method=finetune,raising", f"paths.results={folder}"]
        grid = compose.expand([*words, f"hydra.searchpath=[file://{options.parent}]"])
        settings = {**compose.settings(grid[0]), "workers": 1}
        cells = compose.cells(grid, ["original"])
        whole = partial(launch.run, cells, settings, sweep="shared")
        for uid, how in ((11111, "wild"), (22222, "calm")):
            code, sweep = preloaded.run([], folder, partial(as_member, uid, whole), UNRULY=how)
            assert code == 0, sweep.err
        assert {path.stat().st_uid for path in (folder / "runs").iterdir()} == {11111, 22222}
        for uid in (11111, 22222):
            look = partial(as_member, uid, partial(looked_after, folder))
            code, sweep = preloaded.run([], folder, look)
            assert code == 0, sweep.err
            shutil.rmtree(folder / "store" / "sweeps", ignore_errors=True)  # nothing is needed
        assert not list(Store(folder / "store").artifacts())
