"""Jobs into tasks and arrays: all of them, in order, no longer than wished."""

import pytest

from unlearnbench.config import compose
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import packing as pack
from unlearnbench.sweep.packing import Request
from unlearnbench.sweep.plan import Job, plan

REQUESTS = {True: Request(2, 2, 1), False: Request(2, 2, 0)}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, ...]:
    words = [
        "attack=none",
        "method=finetune,gradient_ascent",
        "dataset=wine,digits",
        "seed=range(5)",
    ]
    cells = compose.cells(compose.expand(words), ["retrain"])
    return plan(cells, Store(tmp_path_factory.mktemp("store")), set()).jobs


def in_tasks(tasks: list[tuple[Job, ...]]) -> list[str]:
    return sorted(job.key for task in tasks for job in task)


@pytest.mark.parametrize(
    ("seconds", "target", "workers", "sizes"),
    [
        (60, 600, 1, [10] * 2),
        (60, 600, 2, [20]),
        (60, 300, 2, [10] * 2),
        (60, 59, 1, [1] * 20),  # longer than the target
        (60, 59, 4, [4] * 5),  # the workers of a task are all busy
        (0, 60, 1, [20]),
        (60, float("inf"), 1, [20]),
    ],
)
def test_tasks_last_what_they_should(
    seconds: float, target: float, workers: int, sizes: list[int], jobs: tuple[Job, ...]
) -> None:
    chosen = [job for job in jobs if job.kind == "unlearned"]
    tasks = pack.tasks(chosen, {job.key: seconds for job in chosen}, target, workers)
    assert [len(task) for task in tasks] == sizes
    assert in_tasks(tasks) == sorted(job.key for job in chosen)


def test_a_long_job_and_short_ones(jobs: tuple[Job, ...]) -> None:
    chosen = [job for job in jobs if job.kind == "unlearned" and names(job) == {"wine"}]
    seconds = {job.key: 10.0 for job in chosen} | {chosen[4].key: 1000.0}
    tasks = pack.tasks(chosen, seconds, 40, 1)
    assert [len(task) for task in tasks] == [4, 1, 4, 1]


def names(job: Job) -> set[str]:
    return {cell.dataset["name"] for cell in job.cells}


def test_a_task_stays_with_one_data_set_where_it_can(jobs: tuple[Job, ...]) -> None:
    chosen = [job for job in jobs if job.kind == "unlearned"]
    tasks = pack.tasks(chosen, {job.key: 60 for job in chosen}, 300, 1)
    assert all(len(set().union(*map(names, task))) == 1 for task in tasks)


def test_arrays_are_one_a_wave_and_request_and_no_longer_than_allowed(
    jobs: tuple[Job, ...],
) -> None:
    seconds = {job.key: 60.0 for job in jobs}
    made = pack.arrays("s", jobs, seconds, REQUESTS, 60, 1000)
    assert [(array.name, array.wave, array.request.gpus) for array in made] == [
        ("s.1", 1, 1),
        ("s.2", 2, 1),
        ("s.3", 3, 0),
    ]
    everything = [task for array in made for task in array.tasks]
    assert in_tasks(everything) == sorted(job.key for job in jobs)
    short = pack.arrays("s", jobs, seconds, REQUESTS, 60, 3)
    assert max(len(array.tasks) for array in short) == 3
    assert [task for array in short for task in array.tasks] == everything
    assert len({array.name for array in short}) == len(short)


def test_only_attacks_on_stored_outputs_need_no_gpu() -> None:
    told = {}
    for attack in ("umia", "none", "model_inversion"):
        (cell,) = compose.cells([[f"attack={attack}"]])
        told[attack] = pack.on_gpu(Job("rows", "", (cell,), (), 3))
        assert pack.on_gpu(Job("unlearned", "", (cell,), (), 2))
    assert told == {"umia": False, "none": False, "model_inversion": True}
