"""Submission of a plan to SLURM through submitit: job arrays by wave, and the task that they run.

Tasks return nothing through submitit: their results are on disk when they end. Imports no torch.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit

from unlearnbench.core.errors import ConfigError
from unlearnbench.sweep import packing as pack
from unlearnbench.sweep import slurm, trusted
from unlearnbench.sweep.local import WorkerProcess
from unlearnbench.sweep.packing import Array, Request
from unlearnbench.sweep.plan import Orders
from unlearnbench.sweep.run_record import Run
from unlearnbench.sweep.slurm import Refused

STOP_SECONDS = 60
"""Seconds to wait for a working process after a stop request; it needs less."""


@dataclass(frozen=True)
class Options:
    """Options of ``hydra/launcher=slurm``; see ``conf/hydra/launcher/slurm.yaml``."""

    partition: str | None
    rows_partition: str | None
    account: str | None
    qos: str | None
    time: int
    target_minutes: float
    assumed_seconds: float
    array_parallelism: int
    workers_per_task: int
    gpus: int | None
    cpus: int | None
    mem: str | None
    signal_seconds: int
    requeues: int
    setup: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        above_0 = ("time", "target_minutes", "assumed_seconds", "array_parallelism")
        for name in (*above_0, "workers_per_task", "cpus", "signal_seconds"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ConfigError(f"hydra.launcher.{name}={value}: must be a number above 0")
        for name in ("gpus", "requeues"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value >= 0):
                raise ConfigError(f"hydra.launcher.{name}={value}: must be a number from 0 on")
        if self.mem is not None and not re.fullmatch(r"\d+[KMGT]?B?", str(self.mem)):
            raise ConfigError(f"hydra.launcher.mem={self.mem}: must be a size, such as 16G")

    def requests(self, device: str) -> dict[bool, Request]:
        """Resources per task, by whether its jobs run faster on a GPU."""
        workers = self.workers_per_task
        gpus = self.gpus
        if gpus is None:
            gpus = int(device != "cpu" and slurm.has_gpus(self.partition))
        cpus = self.cpus or workers
        return {True: Request(workers, cpus, gpus), False: Request(workers, cpus, 0)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def submitted(
    run: Run, made: Sequence[Array], settings: Mapping[str, Any], options: Options
) -> Run:
    """Submit arrays; each wave starts after the end of the wave before it, failed or not.

    Args:
        run: the run; the number of each array is written to its ``run.json`` at once.
        made: the arrays, in the order of their waves.
        settings: ``paths`` and ``device`` of the config.
        options: the options of the launcher.

    Raises:
        Refused: SLURM rejects an array. After any exception the submitted arrays are cancelled.
    """
    begun: list[str] = []
    try:
        return _submitted(run, made, settings, options, begun)
    except BaseException:
        slurm.cancel(begun)  # an array can be in the queue before its number is known
        raise


def _submitted(
    run: Run,
    made: Sequence[Array],
    settings: Mapping[str, Any],
    options: Options,
    begun: list[str],
) -> Run:
    before: list[str] = []
    now: list[str] = []
    records: list[dict[str, Any]] = []
    for place, array in enumerate(made):
        if place and array.wave > made[place - 1].wave:
            before, now = now, []
        arrays_of_wave = sum(other.wave == array.wave for other in made)
        executor = _executor(run, array, options, before, arrays_of_wave)
        orders = [
            Orders(
                jobs=jobs,
                results=Path(settings["paths"]["results"]).absolute(),
                store=Path(settings["paths"]["store"]).absolute(),
                run=run.folder.absolute(),
                task=array.place(index),
                device=_device(array, settings["device"]),
                workers=array.request.workers,
            )
            for index, jobs in enumerate(array.tasks)
        ]
        begun.append(array.name)
        try:
            jobs = executor.map_array(Task(), orders)
        except (submitit.core.utils.FailedJobError, OSError) as error:
            if not isinstance(error, OSError):  # sbatch has rejected it
                begun.pop()
            reason = " ".join(re.findall(r"error: (.*)", str(error))) or str(error)
            raise Refused(f"sbatch, wave {array.wave}: {reason}") from error
        number = jobs[0].job_id.split("_")[0]
        now.append(number)
        record = {"name": array.name, "wave": array.wave, "gpus": array.request.gpus}
        records.append({**record, "tasks": len(array.tasks), "job": number})
        run = run.tell(arrays=records, submitted=place + 1 == len(made))
    return run


def _device(array: Array, wanted: str) -> str:
    """The device of an array's tasks; a requested GPU is the first visible one, ``cuda``."""
    if array.request.gpus:
        return "cuda"
    return wanted if pack.on_gpu(array.tasks[0][0]) else "cpu"


def _executor(
    run: Run, array: Array, options: Options, before: Sequence[str], arrays_of_wave: int
) -> submitit.SlurmExecutor:
    folder = run.folder / "slurm"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)  # whatever access lists the parent folder passes on
    os.close(trusted.check(folder))
    try:
        executor = _Executor(folder, max_num_timeout=options.requeues)
    except RuntimeError as error:  # submitit finds no srun
        raise Refused("hydra/launcher=slurm: there is no SLURM here (srun, sbatch)") from error
    rows = not pack.on_gpu(array.tasks[0][0])
    request = array.request
    parameters = {
        "partition": options.rows_partition if rows else options.partition,
        "account": options.account,
        "qos": options.qos,
        "mem": options.mem,
        "gpus_per_node": request.gpus or None,
        "dependency": f"afterany:{':'.join(before)}" if before else None,
        "setup": options.setup or None,
    }
    executor.update_parameters(
        job_name=array.name,
        time=options.time,
        cpus_per_task=request.cpus,
        array_parallelism=max(1, options.array_parallelism // arrays_of_wave),
        signal_delay_s=options.signal_seconds,
        # Some versions of srun ignore the number of cores given to sbatch, and use one.
        srun_args=[f"--cpus-per-task={request.cpus}"],
        additional_parameters={"requeue": True, **options.additional_parameters},
        **{name: value for name, value in parameters.items() if value is not None},
    )
    return executor


class _Executor(submitit.SlurmExecutor):
    """An executor whose jobs check the folder's owner and mode before they unpickle from it."""

    @property
    def _submitit_command_str(self) -> str:
        folder = shlex.quote(str(self.folder))
        return f"{self.python} -u -m unlearnbench.sweep.trusted {folder}"


class Task:
    """The function that submitit calls in each task: it starts one working process."""

    host: WorkerProcess | None = None

    def __call__(self, orders: Orders) -> None:
        """Run the jobs; the failures of jobs are in the rows and the journal.

        Raises:
            RuntimeError: the working process ended before all jobs were settled.
        """
        remaining = len(orders.jobs)
        with WorkerProcess(orders, sys.stderr) as self.host:
            for event in self.host:
                sys.stdout.write(f"{event.status} {event.kind} {event.key} {event.reason}\n")
                remaining -= 1
        if self.host.stopped:  # The signal has not reached this process yet: wait for the one that
            time.sleep(STOP_SECONDS)  # calls ``checkpoint``, or for the one that ends the task.
        if remaining:
            raise RuntimeError(f"the working process has ended, and {remaining} jobs are left")

    def checkpoint(self, orders: Orders) -> submitit.helpers.DelayedSubmission:
        """Stop before the time limit or a preemption, and queue the task again.

        The store contains the finished artifacts; the journal contains the settled jobs.
        """
        if self.host is not None:
            self.host.stop(STOP_SECONDS)
        return submitit.helpers.DelayedSubmission(Task(), orders)
