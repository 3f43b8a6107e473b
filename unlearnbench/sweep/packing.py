"""Pack the jobs of a plan into tasks of about a target length. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unlearnbench.sweep.plan import Job


@dataclass(frozen=True)
class Request:
    """Resources of each task of an array: worker processes, CPU cores, GPUs."""

    workers: int
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Array:
    """Tasks of one wave with the same request; a task is a tuple of jobs."""

    name: str
    wave: int
    request: Request
    tasks: tuple[tuple[Job, ...], ...]

    def place(self, task: int) -> str:
        """The name of a task, given its index."""
        return f"{self.name}-{task}"


def on_gpu(job: Job) -> bool:
    """Whether a job runs faster on a GPU: every job except attacks on stored outputs."""
    attacks = (cell.attack.get("traits") or {} for cell in job.cells)
    return job.kind != "rows" or any(traits.get("white_box") for traits in attacks)


def tasks(
    jobs: Sequence[Job], seconds: Mapping[str, float], target: float, workers: int
) -> list[tuple[Job, ...]]:
    """Pack jobs into tasks of about the target length, with jobs on the same data set together.

    With W workers a task of jobs that take s₁, s₂, … lasts at least Σsᵢ/W. A job that takes longer
    than the target shares its task with W − 1 others.

    Args:
        jobs: the jobs in an executable order, which is preserved within a task.
        seconds: duration of each job, by key.
        target: target length of a task in seconds.
        workers: number of workers per task.
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
        name: prefix of the names of the arrays.
        jobs: the jobs of the plan.
        seconds: duration of each job, by key.
        requests: resources per task, by whether its jobs run faster on a GPU.
        target: target length of a task in seconds.
        most: largest number of tasks in an array.
    """
    groups: dict[tuple[int, bool], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.wave, on_gpu(job)), []).append(job)
    made: list[Array] = []
    for (wave, gpu), group in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1])):
        packed = tasks(group, seconds, target, requests[gpu].workers)
        for first in range(0, len(packed), most):
            chunk = tuple(packed[first : first + most])
            made.append(Array(f"{name}.{len(made) + 1}", wave, requests[gpu], chunk))
    return made
