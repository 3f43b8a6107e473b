"""What goes wrong on a cluster, for real: after it, and after ``retry`` where it takes that, the
table is complete and equal, and nothing finished was made again.
"""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from clusters import (
    CELLS,
    LAUNCHER,
    TRAININGS,
    WORDS,
    Sweep,
    children,
    counted,
    killed,
    table_here,
    until,
)
from disks import full
from sweeps import checksums, finished, table

from unlearnbench.results.load import load_results

pytestmark = pytest.mark.slurm


def submitted(sweep: Sweep, *more: str) -> str:
    """Submit; two models are being trained, at the gate, when it returns."""
    said = sweep.says(*WORDS, *LAUNCHER, *more)
    until(lambda: len(sweep.begun()) == 2)
    return said


def half_way(sweep: Sweep, trainings: int) -> None:
    """So many have begun when it returns, and all but two of them are done."""
    sweep.open(trainings - 2)
    until(lambda: len(sweep.begun()) == trainings)


def complete(sweep: Sweep, reference: Path, before: dict[Path, tuple[int, int]]) -> None:
    pd.testing.assert_frame_equal(table(sweep.results), table(reference))
    assert checksums(sweep.results) == checksums(reference)
    assert before.items() <= finished(sweep.results).items()
    assert counted(sweep.says("status"))["done"] == CELLS
    assert not list(sweep.results.glob("store/*/*.tmp"))


def step_processes(sweep: Sweep, node: str) -> list[int]:
    """The processes of jobs on a node: step daemons, and all below them."""
    daemons = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if _told(path, "comm") == "slurmstepd\n" and _of(path, sweep)
    ]
    spool = f"/spool/{node}"
    mine = [pid for pid in daemons if spool in _told(Path(f"/proc/{pid}"), "cmdline")]
    mine = mine or daemons
    return [*mine, *(pid for one in mine for pid in children(one))]


def _told(path: Path, name: str) -> str:
    try:
        return (path / name).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _of(path: Path, sweep: Sweep) -> bool:
    return f"SLURM_CONF={sweep.environment['SLURM_CONF']}" in _told(path, "environ").split("\0")


# ---------------------------------------------------------------------------------------------
# Tasks.


def test_scancel_of_a_task(sweep: Sweep, reference: Path) -> None:
    submitted(sweep)
    first = min(sweep.cluster.jobs(), key=lambda job: (int(job["array"]), job["index"]))
    sweep.cluster.ask("scancel", f"{first['array']}_{first['index']}")
    until(lambda: len(sweep.cluster.jobs()) == 4)
    status = sweep.says("status")
    assert counted(status, "1 trained")["missing"] == 9
    assert counted(status)["waiting"] == CELLS  # later waves make what they find missing
    sweep.open()
    sweep.wait()
    complete(sweep, reference, {})
    assert sweep.says("retry").endswith("cells: 40 done\n")


def test_scancel_of_the_last_wave_and_retry(sweep: Sweep, reference: Path) -> None:
    submitted(sweep)
    rows = sweep.record()["arrays"][-1]["job"]
    sweep.cluster.ask("scancel", rows)
    until(lambda: not [job for job in sweep.cluster.jobs() if job["array"] == rows])
    sweep.open()
    sweep.wait()
    before = finished(sweep.results)
    assert len(before) == len(finished(reference))
    status = sweep.says("status")
    assert counted(status)["missing"] == CELLS
    assert "missing, 40 cells: SLURM says CANCELLED" in status
    said = sweep.says("retry")
    assert said.startswith(
        "40 cells → 8 originals, 10 retrains, 16 unlearned; 34 in store; 1 wave, 1"
    )
    sweep.wait()
    complete(sweep, reference, before)


def test_retry_leaves_alone_what_is_under_way(sweep: Sweep) -> None:
    submitted(sweep)
    assert sweep.says("retry").endswith("nothing to try again; cells: 40 waiting\n")
    assert len(sweep.cluster.jobs()) == 5
    sweep.says("cancel")
    sweep.wait()


def test_scontrol_requeue(sweep: Sweep, reference: Path) -> None:
    submitted(sweep)
    half_way(sweep, 6)
    before = finished(sweep.results)
    assert before
    task = next(job for job in sweep.cluster.jobs() if job["state"] == "RUNNING")
    sweep.cluster.ask("scontrol", "requeue", f"{task['array']}_{task['index']}")
    sweep.open()
    sweep.wait()
    complete(sweep, reference, before)


def test_a_signal_before_the_time_limit_queues_the_task_again(
    sweep: Sweep, reference: Path
) -> None:
    submitted(sweep)
    half_way(sweep, 6)
    before = finished(sweep.results)
    array = sweep.record()["arrays"][0]["job"]
    sweep.cluster.ask("scancel", "--signal=USR2", array)
    until(lambda: sweep.cluster.ask("scontrol", "show", "job", array).count("Restarts=1") == 2)
    later = [job["state"] for job in sweep.cluster.jobs() if job["array"] != array]
    assert later == ["PENDING"] * 3
    sweep.open()
    sweep.wait()
    complete(sweep, reference, before)
    assert load_results(sweep.results)["status"].eq("ok").all()


def test_killed_for_memory_and_retried_with_more(sweep: Sweep, reference: Path) -> None:
    """The kernel kills the process that asks for too much; this cluster keeps no limit, we do."""
    submitted(sweep)
    half_way(sweep, 4)
    trained = len(finished(sweep.results))
    pid = int(sweep.begun()[-1].split()[1])
    killed([pid])
    until(lambda: list(sweep.results.glob("runs/*/failed/*")))
    sweep.open()
    sweep.wait()
    before = finished(sweep.results)
    assert len(before) > trained
    status = sweep.says("status")
    assert counted(status)["failed"] >= 3  # all that the model is compared with, or starts
    assert "the worker process was killed (SIGKILL)" in status
    assert counted(status)["done"] == CELLS - counted(status)["failed"]
    sweep.says("retry", "--oom")
    assert sweep.record()["launcher"]["mem"] == "600M"
    sweep.wait()
    complete(sweep, reference, before)


def test_a_time_limit_in_the_middle_of_training(sweep: Sweep, reference: Path) -> None:
    submitted(sweep, "hydra.launcher.time=2", "hydra.launcher.signal_seconds=5")
    array = sweep.record()["arrays"][0]["job"]
    half_way(sweep, 5)
    before = finished(sweep.results)
    until(lambda: "Restarts=1" in sweep.cluster.ask("scontrol", "show", "job", array))
    sweep.open()
    sweep.wait()
    complete(sweep, reference, before)


LONG = [
    "-m",
    "model=logreg",
    "method=original",
    "controls=[]",
    "attack=none",
    "train.call.epochs=40",
]
LONG += ["train.call._target_=unruly.stepping_fit", "train.checkpoint_minutes=0.01"]


@pytest.mark.parametrize("trouble", ["scontrol requeue", "scancel --signal=USR2"])
def test_a_long_training_goes_on_from_its_checkpoint(
    sweep: Sweep, tmp_path: Path, trouble: str
) -> None:
    """Queued again with a signal and without one; what is walked twice is less than one writing."""
    alone = tmp_path / "alone" / "results"
    table_here(alone, LONG)
    sweep.says(*LONG, *LAUNCHER)
    array = sweep.record()["arrays"][0]["job"]
    until(lambda: len(sweep.begun()) > 150)
    stopped = len(sweep.begun())
    sweep.cluster.ask(*trouble.split(), array)  # of one task, which is not called array_0
    until(lambda: "Restarts=1" in sweep.cluster.ask("scontrol", "show", "job", array))
    assert not finished(sweep.results)
    sweep.wait()
    assert checksums(sweep.results) == checksums(alone)
    steps = 40 * (1222 // 64 + 1099 // 64)  # of both models; the rows left over join the last batch
    assert len(set(sweep.begun())) == 2
    assert steps <= len(sweep.begun()) < steps + stopped - 50, (stopped, len(sweep.begun()))


# ---------------------------------------------------------------------------------------------
# The process that submits.


def test_the_submitting_process_killed_half_way(sweep: Sweep, reference: Path) -> None:
    """The first wave is submitted, the second just about to be."""
    commands = sweep.results.parent / "bin"
    commands.mkdir()
    real = shutil.which("sbatch")
    script = f"#!/bin/sh\nmkdir {commands}/first || sleep 600\nexec {real} $@\n"
    (commands / "sbatch").write_text(script)
    (commands / "sbatch").chmod(0o755)
    process = sweep.start(*WORDS, *LAUNCHER, PATH=f"{commands}:{os.environ['PATH']}")
    until(lambda: len(sweep.begun()) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    assert len(sweep.cluster.jobs()) == 2
    sweep.open()
    sweep.wait()
    before = finished(sweep.results)
    status = sweep.says("status")
    assert counted(status)["missing"] == CELLS
    assert "was not submitted to its end" in status
    sweep.says("retry")
    sweep.wait()
    complete(sweep, reference, before)


# ---------------------------------------------------------------------------------------------
# The cluster.


def test_slurmctld_restarted(sweep: Sweep, reference: Path) -> None:
    submitted(sweep)
    half_way(sweep, 5)
    before = finished(sweep.results)
    os.kill(sweep.cluster.daemon("slurmctld"), signal.SIGTERM)
    time.sleep(2)
    status = sweep.says("status")
    assert "SLURM cannot be asked" in status
    assert counted(status)["waiting"] == CELLS
    sweep.cluster.up()
    sweep.open()
    sweep.wait()
    complete(sweep, reference, before)


def test_a_node_that_dies(sweep: Sweep, reference: Path) -> None:
    """slurmd and all it runs are killed: SLURM finds the node silent, and queues its task again."""
    before = without_a_node(sweep, step_processes)
    complete(sweep, reference, before)


def test_a_node_cut_off_and_two_copies_of_a_task(sweep: Sweep, reference: Path) -> None:
    """slurmd alone is killed: its task goes on, and SLURM starts the task elsewhere besides."""
    before = without_a_node(sweep, lambda sweep, node: [])
    complete(sweep, reference, before)
    assert set(Counter(line.split()[0] for line in sweep.begun()).values()) <= {1, 2}


def without_a_node(
    sweep: Sweep, beside: Callable[[Sweep, str], list[int]]
) -> dict[Path, tuple[int, int]]:
    """Kill slurmd of a node that is at work, and what is beside it; wait for the sweep to end."""
    submitted(sweep)
    half_way(sweep, 6)
    before = finished(sweep.results)
    node = next(job["node"] for job in sweep.cluster.jobs() if job["state"] == "RUNNING")
    killed([sweep.cluster.daemon(f"slurmd-{node}"), *beside(sweep, node)])
    until(lambda: "down" in sweep.cluster.ask("sinfo", "-h", "-N", "-n", node, "-o", "%T"))
    sweep.open()
    sweep.cluster.up()
    sweep.wait()
    return before


def test_status_where_slurm_has_forgotten_the_jobs(sweep: Sweep) -> None:
    submitted(sweep)
    half_way(sweep, 6)
    sweep.says("cancel")
    sweep.wait()
    there = len(finished(sweep.results))
    elsewhere = {"SLURM_CONF": str(sweep.results.parent / "none"), "PATH": "/usr/bin:/bin"}
    for environment in ({}, elsewhere):
        status = sweep.says("status", **environment)
        done = counted(status, "1 trained")["done"]
        assert done == there // 2
        state = "waiting" if environment else "missing"
        assert counted(status)[state] == CELLS


def test_a_full_disk(sweep: Sweep, reference: Path) -> None:
    """The store lies on a disk of its own, too small."""
    with full(sweep.results.parent / "disk", "300k") as disk:
        sweep.open()
        sweep.says(*WORDS, *LAUNCHER, f"paths.store={disk}")
        sweep.wait()
        said = sweep.says("status")
        assert "No space left on device" in said
        assert counted(said)["failed"]
        before = manifests(disk)
        assert before
        mounted_anew(disk, "size=50m")
        sweep.says("retry")
        sweep.wait()
        pd.testing.assert_frame_equal(table(sweep.results), table(reference))
        assert before.items() <= manifests(disk).items()


def test_a_store_that_may_only_be_read(sweep: Sweep, reference: Path) -> None:
    """From the middle of a sweep on; and rows are made again from one that is whole."""
    with full(sweep.results.parent / "disk", "50m") as disk:
        submitted(sweep, f"paths.store={disk}")
        half_way(sweep, 6)
        before = manifests(disk)
        assert before
        mounted_anew(disk, "ro")
        sweep.open()
        sweep.wait()
        said = sweep.says("status")
        assert "Read-only file system" in said
        assert counted(said)["failed"]
        assert manifests(disk) == before
        mounted_anew(disk, "rw")
        sweep.says("retry")
        sweep.wait()
        pd.testing.assert_frame_equal(table(sweep.results), table(reference))
        whole = manifests(disk)
        assert before.items() <= whole.items()
        mounted_anew(disk, "ro")
        shutil.rmtree(sweep.results / "rows")
        sweep.says("retry")
        sweep.wait()
        pd.testing.assert_frame_equal(table(sweep.results), table(reference))
        assert manifests(disk) == whole


def manifests(store: Path) -> dict[Path, int]:
    """All finished artifacts; one made again is another file."""
    return {path: path.stat().st_ino for path in store.glob("*/*/manifest.json")}


def mounted_anew(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def test_nothing_is_trained_more_often_than_it_was_disturbed(sweep: Sweep, reference: Path) -> None:
    """Killed for ever new reasons, and retried until it is whole."""
    sweep.open()
    sweep.says(*WORDS, *LAUNCHER)
    for trained in (3, 8, 13):
        until(lambda n=trained: len(sweep.begun()) >= n or not sweep.cluster.jobs())
        for job in sweep.cluster.jobs():
            sweep.cluster.ask("scancel", "--signal=KILL", job["job"])
            break
        sweep.wait()
        sweep.says("retry")
    sweep.wait()
    sweep.says("retry")
    sweep.wait()
    complete(sweep, reference, {})
    assert len(sweep.begun()) <= TRAININGS + 3 * 2
