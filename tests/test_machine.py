"""What a machine has to work on, without torch."""

import os
from pathlib import Path

import pytest

from unlearnbench import commands, machine


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
    monkeypatch: pytest.MonkeyPatch, gpus: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    assert len(machine.places("auto", None, gpus)) == workers
    requests = []
    monkeypatch.setattr(commands, "Request", lambda *given: requests.append(given))
    with pytest.raises(Exception, match=""):  # what comes after the count has no request
        commands._prepared(object(), [], {"device": "auto", "workers": None}, "x")  # type: ignore[arg-type]
    assert requests == [(workers, workers, gpus)]
