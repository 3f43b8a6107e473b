"""Expectations from what was: the closest alike, the median of them, unknown where none is."""

from pathlib import Path

import pandas as pd
import pytest

from unlearnbench.config import compose
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import cost, run_record
from unlearnbench.sweep.journal import Journal
from unlearnbench.sweep.packing import Array, Request
from unlearnbench.sweep.plan import Plan, plan


def planned(*words: str) -> Plan:
    cells = compose.cells(compose.expand(["model=logreg", *words]), ["retrain"])
    return plan(cells, Store(Path("/nowhere")), set())


def table(made: Plan) -> pd.DataFrame:
    frame: pd.DataFrame = run_record.listed(made.jobs, {}).to_pandas()
    return frame


def took(folder: Path, made: Plan, seconds: dict[str, list[float]], device: str = "cpu") -> None:
    """A run in which the jobs of each kind took so many seconds, one after the other."""
    run = run_record.begin("sweep", made, {"paths": {"results": folder, "store": folder}})
    run_record.write_jobs(run, run_record.listed(made.jobs, {}))
    journal = Journal(run.folder, "local")
    for kind, times in seconds.items():
        chosen = [job for job in made.jobs if job.kind == kind]
        for job, one in zip(chosen, times, strict=False):
            told = {"seconds": one, "bytes": 100 * one, "device": device}
            journal.settle(job.key, "done", "", **told)


def expected(folder: Path, made: Plan, gpu: bool = False) -> pd.DataFrame:
    jobs = table(made)
    found = cost.expected(jobs, cost.history(folder), [gpu] * len(jobs))
    return found.assign(kind=jobs["kind"], method=jobs["method"])


SEEDS = "seed=range(4)"


def test_the_same_with_other_seeds_costs_the_median(tmp_path: Path) -> None:
    took(tmp_path, planned("dataset=wine", SEEDS), {"original": [1, 2, 30], "unlearned": [7.0]})
    found = expected(tmp_path, planned("dataset=wine", "seed=range(10,14)"))
    assert set(found.loc[found["kind"] == "original", "seconds"]) == {2.0}
    assert set(found.loc[found["kind"] == "original", "bytes"]) == {200.0}
    assert set(found.loc[found["kind"] == "unlearned", "seconds"]) == {7.0}
    assert found.loc[found["kind"] == "retrained", "seconds"].isna().all()


def test_the_closest_alike_is_asked_first(tmp_path: Path) -> None:
    took(tmp_path, planned("dataset=wine", SEEDS, "train.call.epochs=300"), {"unlearned": [99.0]})
    took(tmp_path, planned("dataset=wine", SEEDS), {"unlearned": [5.0] * 3})
    methods = planned("dataset=wine", "method=finetune,scrub", "seed=7")
    found = expected(tmp_path, methods).query("kind == 'unlearned'").set_index("method")["seconds"]
    assert found.to_dict() == {"finetune": 5.0, "scrub": 5.0}  # scrub: as another method
    long = expected(tmp_path, planned("dataset=wine", "train.call.epochs=300", "seed=7"))
    assert set(long.loc[long["kind"] == "unlearned", "seconds"]) == {99.0}


def test_another_data_set_or_device_says_nothing(tmp_path: Path) -> None:
    took(tmp_path, planned("dataset=wine", SEEDS), {"original": [1.0], "rows": [1.0]})
    assert expected(tmp_path, planned("dataset=digits"))["seconds"].isna().all()
    assert expected(tmp_path, planned("dataset=wine", "seed=9"), gpu=True)["seconds"].isna().all()


def test_a_file_of_rows_costs_by_its_cells(tmp_path: Path) -> None:
    few = planned("dataset=wine", "seed=0", "attack=none")  # two cells: finetune, retrain
    took(tmp_path, few, {"rows": [4.0]})
    more = planned("dataset=wine", "seed=1", "attack=none", "method.call.epochs=range(1,6)")
    found = expected(tmp_path, more)
    assert found.loc[found["kind"] == "rows", "seconds"].tolist() == [pytest.approx(12.0)]


def test_nothing_is_known_of_an_empty_folder(tmp_path: Path) -> None:
    assert expected(tmp_path, planned("dataset=wine"))["seconds"].isna().all()


def test_the_bill_adds_up() -> None:
    jobs = planned("dataset=wine", "seed=range(3)").jobs
    originals = [job for job in jobs if job.kind == "original"]
    others = [job for job in jobs if job.kind == "retrained"]
    seconds = [1800.0, 3600.0, 7200.0, 360.0, 360.0, float("nan")]
    figures = pd.DataFrame(
        {"seconds": seconds, "bytes": [10.0] * 6}, index=[job.key for job in originals + others]
    )
    gpu = Array("a", 1, Request(2, 4, 1), (tuple(originals[:2]), tuple(originals[2:])))
    cpu = Array("b", 2, Request(1, 1, 0), (tuple(others),))
    bill = cost.bill([gpu, cpu], figures)
    # ½ h and 1 h on two workers take 1 h, the longest; 2 h alone take 2 h.
    assert bill["core_hours"].tolist() == pytest.approx([3 * 4, 0.2])
    assert bill["gpu_hours"].tolist() == pytest.approx([3, 0])
    assert bill["bytes"].tolist() == [30, 30]
    assert bill["unknown"].tolist() == [0, 1]
    assert bill["tasks"].tolist() == [2, 1]
