"""What is submitted, with SLURM's commands played by scripts that write it down."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands_of_slurm import Commands

from unlearnbench.cli import status
from unlearnbench.config import compose
from unlearnbench.core.errors import ConfigError
from unlearnbench.sweep import local as launch
from unlearnbench.sweep import run_record, submit
from unlearnbench.sweep.packing import Request
from unlearnbench.sweep.slurm import Refused
from unlearnbench.sweep.submit import Options, Task


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path, monkeypatch)


def test_a_job_array_a_wave_one_after_the_other(cluster: Commands) -> None:
    said = cluster.submit("hydra.launcher.target_minutes=2")
    assert said[0] == "9 cells → 3 originals, 3 retrains, 3 unlearned; 3 waves, 7 tasks"
    trained, unlearned, rows = cluster.batches()
    assert trained["array"] == "0-2%3"
    assert unlearned["array"] == rows["array"] == "0-1%2"
    assert "dependency" not in trained
    assert unlearned["dependency"] == "afterany:101"
    assert rows["dependency"] == "afterany:102"
    assert all(one["signal"] == "USR2@120" and one["time"] == "240" for one in (trained, rows))
    assert "requeue" in trained


def test_waves_of_several_arrays_wait_for_all_of_them(
    cluster: Commands,
) -> None:
    cluster.says("scontrol", "echo 'MaxArraySize            = 2'")
    cluster.submit("hydra.launcher.target_minutes=1", "hydra.launcher.array_parallelism=3")
    told = [(one.get("array"), one.get("dependency")) for one in cluster.batches()]
    first = "afterany:101:102:103"
    assert told == [
        ("0-1%1", None),
        ("0-1%1", None),
        ("0-1%1", None),
        ("0-1%1", first),
        (None, first),
        ("0-1%1", "afterany:104:105"),
        (None, "afterany:104:105"),
    ]


def test_gpus_are_asked_for_where_there_are_any_and_not_for_rows(cluster: Commands) -> None:
    cluster.says("sinfo", 'test "$5" = fast && echo gpu:a100:4 || echo "(null)"')
    partitions = ["hydra.launcher.partition=fast", "hydra.launcher.rows_partition=slow"]
    cluster.submit(*partitions, "hydra.launcher.workers_per_task=3", "hydra.launcher.mem=8G")
    for one in cluster.batches()[:2]:
        assert (one["gpus-per-node"], one["partition"]) == ("1", "fast")
        assert (one["cpus-per-task"], one["mem"]) == ("3", "8G")
        assert "--cpus-per-task=3" in one["command"]
    assert "gpus-per-node" not in cluster.batches()[2]
    assert cluster.batches()[2]["partition"] == "slow"
    orders = [pickle.loads(path.read_bytes()).args[0] for path in pickles(cluster)]
    assert [one.device for one in orders] == ["cuda", "cuda", "cpu"]
    assert {one.workers for one in orders} == {3}


def pickles(cluster: Commands) -> list[Path]:
    return sorted(cluster.results.glob("runs/*/slurm/*_submitted.pkl"))


def test_other_flags_are_passed_on(cluster: Commands) -> None:
    more = ["account=me", "qos=low", "cpus=7", "time=30", "signal_seconds=60"]
    words = [f"hydra.launcher.{one}" for one in more]
    cluster.submit(*words, "+hydra.launcher.additional_parameters.nice=100", "device=cpu")
    for one in cluster.batches():
        told = ("account", "qos", "cpus-per-task", "time", "signal", "nice")
        assert [one[name] for name in told] == ["me", "low", "7", "30", "USR2@60", "100"]


def test_all_jobs_are_submitted_once(cluster: Commands) -> None:
    cluster.submit("hydra.launcher.target_minutes=1")
    orders = [pickle.loads(path.read_bytes()).args[0] for path in pickles(cluster)]
    keys = [job.key for one in orders for job in one.jobs]
    assert len(keys) == len(set(keys)) == 6 + 3 + 3
    assert len({one.task for one in orders}) == len(orders)
    assert all(one.results.is_absolute() and one.store.is_absolute() for one in orders)


def test_what_is_refused_leaves_nothing_in_the_queue(cluster: Commands) -> None:
    sbatch = (cluster.folder / "sbatch").read_text()
    refusal = "grep -q afterany $1 && { echo 'sbatch: error: no such partition' >&2; exit 1; }"
    cluster.says("sbatch", f"{refusal}\n{sbatch}")
    with pytest.raises(Refused, match=r"^sbatch, wave 2: no such partition$"):
        cluster.submit()
    (name,) = (cluster.folder.parent / "cancelled").read_text().split()
    assert name.startswith("--name=study-")
    with pytest.raises(ValueError, match="no sweep has been run"):
        status.status(None, [])


@pytest.mark.tried(
    "submitting is interrupted, or the disk fills up or memory runs out on the way",
    "what was submitted is cancelled, by name, and the run does not count",
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(28, "full")])
@pytest.mark.parametrize("call", ["told", "mapped"])
def test_a_submission_that_breaks_off_leaves_nothing_in_the_queue(
    cluster: Commands, monkeypatch: pytest.MonkeyPatch, error: BaseException, call: str
) -> None:
    tell, mapped = run_record.Run.tell, submit._Executor.map_array

    def breaks(*arguments: Any, **told: Any) -> Any:
        if call == "mapped":
            mapped(*arguments)
        if call == "mapped" or "arrays" in told:
            raise error
        return tell(*arguments, **told)

    place, name = (run_record.Run, "tell") if call == "told" else (submit._Executor, "map_array")
    monkeypatch.setattr(place, name, breaks)
    with pytest.raises((type(error), Refused)):
        cluster.submit()
    monkeypatch.undo()
    assert "--name=study-" in (cluster.folder.parent / "cancelled").read_text()
    with pytest.raises(ValueError, match="no sweep has been run"):
        run_record.runs(cluster.results)


def test_without_slurm_it_is_told(cluster: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster.folder / "srun").unlink()
    monkeypatch.setenv("PATH", str(cluster.folder))
    with pytest.raises(Refused, match="there is no SLURM here"):
        cluster.submit()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["time=0"], "hydra.launcher.time=0: must be in [1, 1e9]"),
        (["gpus=-1"], "hydra.launcher.gpus=-1: must be in [0, 1e9] integer or null"),
        (["mem=lots"], "hydra.launcher.mem=lots: must be a size, such as 16G"),
        (["time=1h"], "hydra.launcher.time=1h: must be int, as its default 240"),
        (["partitio=a"], "hydra.launcher.partitio is no key here; did you mean partition"),
    ],
)
def test_a_mistake_in_an_option_is_one_line(words: list[str], told: str, cluster: Commands) -> None:
    with pytest.raises(ConfigError) as error:
        cluster.submit(*[f"hydra.launcher.{word}" for word in words])
    assert str(error.value).startswith(told)
    assert not cluster.results.exists()


# ---------------------------------------------------------------------------------------------
# A task.


def test_a_task_that_is_stopped_before_it_began_is_queued_again_as_it_is() -> None:
    again = Task().checkpoint("orders")  # type: ignore[arg-type]
    assert (type(again.function), again.args) == (Task, ("orders",))
    assert pickle.loads(pickle.dumps(again.function)).host is None


def test_a_task_stops_its_host_before_it_is_queued_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The host is played by a process that takes half a second to stop."""
    told = tmp_path / "told"
    text = f"""
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(0.5)
    pathlib.Path({str(told)!r}).write_text("stopped")
    sys.exit(75)
signal.signal(signal.SIGUSR2, stop)
print("ready", flush=True)
time.sleep(60)
"""
    task = Task()
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    task.host = launch.WorkerProcess.__new__(launch.WorkerProcess)
    task.host.process = process
    task.checkpoint("orders")  # type: ignore[arg-type]
    assert told.read_text() == "stopped"
    assert process.returncode == launch.STOPPED[0]
    assert task.host.stopped


def test_a_host_that_ends_with_work_left_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        stopped = False

        def __init__(self, *_: object) -> None:
            pass

        def __iter__(self) -> "iter":  # type: ignore[valid-type]
            return iter([])

        def __enter__(self) -> "Dead":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(submit, "WorkerProcess", Dead)
    with pytest.raises(RuntimeError, match="2 jobs are left"):
        Task()(SimpleNamespace(jobs=[1, 2]))  # type: ignore[arg-type]


def test_options_are_what_the_yaml_says() -> None:
    _, told = compose.launcher(["hydra/launcher=slurm"])
    assert Options(**told).requests("cpu")[True] == Request(1, 1, 0)
    assert signal.SIGUSR2 in {-code for code in launch.STOPPED[1:]}


@pytest.mark.tried(
    "another member of the group replaces what a SLURM job unpickles",
    "the folder is its owner's alone, and a job that finds it otherwise ends before it reads",
)
def test_what_jobs_unpickle_lies_in_a_folder_of_its_owner_alone(cluster: Commands) -> None:
    before = os.umask(0o002)
    try:
        cluster.submit("device=cpu")
    finally:
        os.umask(before)
    folders = {path.parent for path in pickles(cluster)}
    assert {folder.stat().st_mode & 0o7777 for folder in folders} == {0o700}
    for one in cluster.batches():
        assert "-m unlearnbench.sweep.trusted" in one["command"]
