"""Hyper-parameter search: request, plan of jobs, run, choice of settings, output files.

The functions stand in this order. Imports no torch.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from unlearnbench.config import compose
from unlearnbench.search import journal_study as search
from unlearnbench.search.study import Slot
from unlearnbench.sweep import control, estimate
from unlearnbench.sweep import local as launch
from unlearnbench.sweep.local import Watcher
from unlearnbench.sweep.plan import Plan, searched
from unlearnbench.tune.request import Asked, ask
from unlearnbench.tune.write import log


def plan(request: Asked) -> Plan:
    """The jobs that remain of the studies, and the models that they need.

    Args:
        request: the studies and options.
    """
    options, slots = request.options, []
    until = None if options["timeout"] is None else time.time() + options["timeout"]
    for study in request.studies:
        finished = search.told(request.results, study)
        missing = [number for number in range(options["trials"]) if number not in finished]
        slots += [Slot(study, number, until=until) for number in missing]
        if not study.fresh:
            continue
        candidates = search.candidates(finished, options["best"])
        for place in range(options["best"] + 2):  # and the paper's choice and the defaults
            done = place >= len(candidates) or len(candidates[place].fresh) == len(study.fresh)
            if missing or not done:
                slots.append(Slot(study, place, fresh=True, best=options["best"]))
    return searched(slots, request.store)


def line(request: Asked, job_plan: Plan) -> str:
    """The number of jobs to do, in one line."""
    trials = [job for job in job_plan.jobs if job.slot is not None and not job.slot.fresh]
    total = len(request.studies) * request.options["trials"]
    models = sum(job.slot is None for job in job_plan.jobs)
    stored = sum(job_plan.in_store.values())
    message = f"{len(request.studies):,} studies of {request.options['trials']:,} trials"
    message += f": {len(trials):,} to do" + (f", {total - len(trials):,} there" if trials else "")
    if models or stored:
        message += f"; {models:,} originals and retrains to train, {stored:,} in store"
    return message


def expected(argv: Sequence[str]) -> tuple[str, pd.DataFrame, list[str]]:
    """The jobs to do, their estimated cost per wave, and notes on what is unknown or left out.

    Trials are priced as other jobs are: an estimate exists once a trial has run here.

    Args:
        argv: the arguments of the command line after ``plan tune``.
    """
    request = ask(argv)
    job_plan = plan(request)
    _, bill, unknown = estimate.expected(job_plan, request.words, request.settings)
    return line(request, job_plan), bill, [*unknown, *request.notes]


def run(request: Asked, job_plan: Plan, watch: Callable[[Plan], Watcher]) -> None:
    """Run the jobs on this machine. Results and the log are written after an interruption too.

    Args:
        request: the studies and options.
        job_plan: the jobs of the studies.
        watch: maps the plan to the watcher that receives its progress.
    """
    try:
        launch.carry_out(job_plan, request.settings, request.name, ["tune", *request.words], watch)
    finally:
        log(request)


def submit(request: Asked, job_plan: Plan) -> Iterator[str]:
    """Submit the jobs to SLURM, yielding messages; the same command collects the results later.

    Args:
        request: the studies and options.
        job_plan: the jobs of the studies.
    """
    yield line(request, job_plan)
    yield from control.submit_search(
        job_plan, ["tune", *request.words], request.settings, request.name
    )
    yield "when it is over, the same command without hydra/launcher writes tables and settings"


def on_slurm(request: Asked) -> bool:
    """Whether the arguments select the SLURM launcher."""
    return compose.launcher(request.words)[0] == "slurm"
