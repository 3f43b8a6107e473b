"""Sweeps on a real SLURM that nothing goes wrong with, or only what a cell does to itself."""

import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from clusters import CELLS, LAUNCHER, TRAININGS, WORDS, Sweep, counted, until
from sweeps import RAISING, TINY, checksums, finished, table

from unlearnbench.results.load import load_results

pytestmark = pytest.mark.slurm


def test_a_sweep_gives_the_table_of_the_local_launcher(sweep: Sweep, reference: Path) -> None:
    plan = sweep.says("plan", *WORDS, *LAUNCHER)
    said = sweep.says(*WORDS, *LAUNCHER)  # returns while nothing is trained: the gate is shut
    line = "40 cells → 8 originals, 10 retrains, 16 unlearned; 3 waves, 5 tasks"
    assert said.splitlines()[0] == plan.splitlines()[0] == line
    until(lambda: len(sweep.begun()) == 2)
    status = sweep.says("status")
    assert counted(status)["waiting"] == CELLS
    assert counted(status, "1 trained")["running"] == 2
    assert counted(status, "1 trained")["waiting"] == TRAININGS - 2
    assert re.search(r"tasks: 3 waiting, 2 running", status)
    sweep.open()
    sweep.wait()
    pd.testing.assert_frame_equal(table(sweep.results), table(reference))
    assert checksums(sweep.results) == checksums(reference)
    assert len(sweep.begun()) == TRAININGS
    status = sweep.says("status")
    assert counted(status) == {**dict.fromkeys(counted(status), 0), "done": CELLS, "all": CELLS}
    assert "retry" not in status
    there = finished(sweep.results)
    assert sweep.says("retry").endswith(f"nothing to try again; cells: {CELLS} done\n")
    assert sweep.says(*WORDS, *LAUNCHER).startswith(f"{CELLS} cells, all there\n")
    assert finished(sweep.results) == there
    assert "finetune" in sweep.says("collect")


def test_the_record_says_what_was_asked_and_submitted(sweep: Sweep) -> None:
    sweep.says(*WORDS, *LAUNCHER)
    told = sweep.record()
    assert set(WORDS[1:]) | set(LAUNCHER) == set(told["words"])
    assert [array["wave"] for array in told["arrays"]] == [1, 2, 3]
    queued = {job["name"]: job["array"] for job in sweep.cluster.jobs()}
    assert queued == {array["name"]: array["job"] for array in told["arrays"]}
    before = sweep.cluster.ask("squeue", "-h", "-o", "%F %E", "-t", "PENDING")
    for first, then in zip(told["arrays"], told["arrays"][1:], strict=False):
        assert re.search(rf"^{then['job']} afterany:{first['job']}", before, re.MULTILINE)
    assert sweep.says("cancel").startswith(told["sweep"])
    sweep.wait()
    assert counted(sweep.says("status"))["missing"] == CELLS


def test_gpus_are_asked_for_and_not_for_rows(sweep: Sweep) -> None:
    sweep.says(*WORDS, *(word for word in LAUNCHER if word != "device=cpu"))
    arrays = [array["job"] for array in sweep.record()["arrays"]]
    asked = [sweep.cluster.ask("scontrol", "show", "job", job) for job in arrays]
    assert ["gpu:1" in told for told in asked] == [True, True, False]
    sweep.says("cancel")
    sweep.wait()


def test_arrays_have_no_more_elements_than_the_cluster_allows(sweep: Sweep) -> None:
    limit = re.search(r"MaxArraySize\s*=\s*(\d+)", sweep.cluster.ask("scontrol", "show", "config"))
    assert limit is not None
    assert int(limit[1]) == 1001
    words = [
        *WORDS,
        "dataset=wine",
        "seed=range(600)",
        *LAUNCHER,
        "hydra.launcher.target_minutes=1",
    ]
    sweep.says(*words, "hydra.launcher.array_parallelism=8")
    arrays = sweep.record()["arrays"]
    tasks = [(array["wave"], array["tasks"]) for array in arrays]
    assert tasks == [(1, 1001), (1, 200), (2, 1001), (2, 199), (3, 600)]
    told = sweep.cluster.ask("scontrol", "show", "job", arrays[0]["job"])
    assert "ArrayTaskThrottle=4" in told  # the eight are of the wave, not of each array
    sweep.says("cancel")
    sweep.wait()


def test_a_raising_cell_is_a_failed_row_and_the_rest_completes(
    sweep: Sweep, tmp_path: Path
) -> None:
    (tmp_path / "options" / "method").mkdir(parents=True)
    (tmp_path / "options" / "method" / "raising.yaml").write_text(RAISING)
    sweep.open()
    words = ["-m", "dataset=breast_cancer", "model=logreg", "train.call.epochs=2", "seed=0,1"]
    words += ["method=finetune,raising", "attack.call.splits=2", *LAUNCHER]
    sweep.says(*words, f"hydra.searchpath=[file://{tmp_path / 'options'}]")
    sweep.wait()
    wide = load_results(sweep.results, wide=True)
    status = Counter(zip(wide["method"] == "raising", wide["status"], strict=True))
    assert status == {(False, "ok"): 2 * 4, (True, "failed"): 2}
    said = sweep.says("status")
    assert (counted(said)["done"], counted(said)["failed"]) == (8, 2)
    assert "failed, 2 cells: raising seed 0, raising seed 1: KeyError: 'on\\npurpose'" in said
    assert "failed: raising seed 0" in sweep.says("collect", code=1)
    there = finished(sweep.results)
    sweep.says("retry", "--failed", UNRULY="calm")
    sweep.wait()
    assert set(load_results(sweep.results)["status"]) == {"ok"}
    assert there.items() <= finished(sweep.results).items()


def test_two_sweeps_at_once_train_each_model_once(sweep: Sweep, reference: Path) -> None:
    both = [sweep.start(*WORDS, *LAUNCHER) for _ in range(2)]
    for one in both:
        said, _ = one.communicate()
        assert one.returncode == 0, said
    until(lambda: len(sweep.cluster.jobs()) == 10)
    sweep.open()
    sweep.wait()
    pd.testing.assert_frame_equal(table(sweep.results), table(reference))
    times = Counter(line.split()[0] for line in sweep.begun())
    assert len(times) == TRAININGS
    assert set(times.values()) == {1}


def test_what_slurm_does_not_take_is_one_line(sweep: Sweep) -> None:
    said = sweep.says(*WORDS, *LAUNCHER, "hydra.launcher.rows_partition=nope", code=1)
    last = said.splitlines()[-1]
    assert last.startswith("unlearnbench: sbatch, wave 3: invalid partition specified: nope")
    sweep.wait()  # the waves before it were cancelled
    assert sweep.begun() == []
    assert "no sweep has been run" in sweep.says("status", code=1)


def test_hydras_own_launcher_runs_cells_one_by_one(sweep: Sweep) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the plugin is an extra")
    sweep.open()
    words = [*TINY, "attack=none", "controls=[retrain]", "method=finetune,original", "seed=0,1"]
    stock = ["hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=1"]
    sweep.says("-m", *words, *stock, "hydra.launcher.timeout_min=10")
    wide = load_results(sweep.results, wide=True)
    assert set(wide["status"]) == {"ok"}
    assert sorted(wide["method"]) == ["finetune", "finetune", "original", "original"] + 2 * [
        "retrain"
    ]
