"""From the jobs of a plan to tasks that last about as long as wished. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearnbench.sweep.plan import Job


@dataclass(frozen=True)
class Request:
    """What each task of an array gets: processes that work, CPU cores, GPUs."""

    workers: int
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Array:
    """Tasks of one wave with one request; a task is some jobs."""

    name: str
    wave: int
    request: Request
    tasks: tuple[tuple[Job, ...], ...]

    def place(self, task: int) -> str:
        """The name of one of its tasks."""
        return f"{self.name}-{task}"


def on_gpu(job: Job) -> bool:
    """Whether a job is better done on a GPU: all but attacks on outputs that are stored."""
    attacks = (cell.attack.get("traits") or {} for cell in job.cells)
    return job.kind != "rows" or any(traits.get("white_box") for traits in attacks)


def tasks(
    jobs: Sequence[Job], seconds: Mapping[str, float], target: float, workers: int
) -> list[tuple[Job, ...]]:
    """Pack jobs into tasks of about the target's length, those on one data set together.

    With W workers a task of jobs that take s₁, s₂, … lasts at least Σsᵢ/W. A job that takes longer
    than the target shares its task with W − 1 others.

    Args:
        jobs: in an order in which they can be done; it is kept within a task.
        seconds: of each job, by key.
        target: seconds that a task should last.
        workers: of a task.
    """
    packed: list[list[Job]] = []
    length = 0.0
    for job in sorted(jobs, key=lambda job: job.cells[0].dataset["name"]):
        share = seconds[job.key] / workers
        if not packed or (length + share > target and len(packed[-1]) >= workers):
            packed.append([])
            length = 0.0
        packed[-1].append(job)
        length += share
    return [tuple(task) for task in packed]


def arrays(
    name: str,
    jobs: Sequence[Job],
    seconds: Mapping[str, float],
    requests: Mapping[bool, Request],
    target: float,
    most: int,
) -> list[Array]:
    """The arrays of a plan, in the order of its waves.

    Args:
        name: that theirs begin with.
        jobs: of the plan.
        seconds: of each job, by key.
        requests: of tasks whose jobs are better done on a GPU, and of the others.
        target: seconds that a task should last.
        most: tasks that an array may have.
    """
    groups: dict[tuple[int, bool], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.wave, on_gpu(job)), []).append(job)
    made: list[Array] = []
    for (wave, gpu), group in sorted(groups.items(), key=lambda one: (one[0][0], not one[0][1])):
        packed = tasks(group, seconds, target, requests[gpu].workers)
        for first in range(0, len(packed), most):
            chunk = tuple(packed[first : first + most])
            made.append(Array(f"{name}.{len(made) + 1}", wave, requests[gpu], chunk))
    return made
