"""What a machine has to work on, without torch."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from unlearnbench.sweep import estimate, machine
from unlearnbench.sweep import packing as pack
from unlearnbench.sweep.packing import Request
from unlearnbench.sweep.plan import Plan


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 3),
        ("", 0),
        ("-1", 0),
        ("0,2", 2),
        ("1,-1,2", 1),
        ("0,1,2,3,4", 3),
        ("GPU-a,GPU-b", 2),
    ],
)
def test_gpus_are_those_that_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus(tmp_path) == count


@pytest.mark.tried(
    "a process may use fewer cores than the machine has, or several GPUs",
    "the plan counts as many workers as the sweep starts",
)
@pytest.mark.parametrize(("gpus", "workers"), [(0, 1), (1, 2), (3, 6)])
def test_the_plan_counts_as_the_worker_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    assert len(machine.places("auto", None, gpus)) == workers
    seen: list[Mapping[bool, Request]] = []
    monkeypatch.setattr(pack, "arrays", lambda *given: seen.append(given[3]) or [])
    settings = {"device": "auto", "workers": None, "paths": {"results": str(tmp_path)}}
    estimate.prepared_plan(Plan((), 0, {}), [], settings, "x")
    assert seen[0][True] == seen[0][False] == Request(workers, workers, gpus)
