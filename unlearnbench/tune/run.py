"""Hyper-parameter search: which studies words ask for, their jobs, what is chosen, what is written.

The order is that of the file: ask, plan, run, choose, write. Imports no torch.
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


def plan(asked: Asked) -> Plan:
    """The jobs that are left of the studies, and the models that they need.

    Args:
        asked: the studies.
    """
    options, slots = asked.options, []
    until = None if options["timeout"] is None else time.time() + options["timeout"]
    for study in asked.studies:
        there = search.told(asked.results, study)
        missing = [number for number in range(options["trials"]) if number not in there]
        slots += [Slot(study, number, until=until) for number in missing]
        if not study.fresh:
            continue
        known = search.candidates(there, options["best"])
        for place in range(options["best"] + 2):  # beside them the paper's choice, and the defaults
            done = place >= len(known) or len(known[place].fresh) == len(study.fresh)
            if missing or not done:
                slots.append(Slot(study, place, fresh=True, best=options["best"]))
    return searched(slots, asked.store)


def line(asked: Asked, todo: Plan) -> str:
    """What there is to do, in a line."""
    trials = [job for job in todo.jobs if job.slot is not None and not job.slot.fresh]
    whole = len(asked.studies) * asked.options["trials"]
    models = sum(job.slot is None for job in todo.jobs)
    stored = sum(todo.in_store.values())
    told = f"{len(asked.studies):,} studies of {asked.options['trials']:,} trials"
    told += f": {len(trials):,} to do" + (f", {whole - len(trials):,} there" if trials else "")
    if models or stored:
        told += f"; {models:,} originals and retrains to train, {stored:,} in store"
    return told


def expected(words: Sequence[str]) -> tuple[str, pd.DataFrame, list[str]]:
    """What there is to do, what it should cost by wave, and what is unknown of that or left out.

    Trials are alike as other jobs are, so there is a price as soon as any were tried here.

    Args:
        words: of the command line, after ``plan tune``.
    """
    asked = ask(words)
    todo = plan(asked)
    _, bill, unknown = estimate.expected(todo, asked.words, asked.settings)
    return line(asked, todo), bill, [*unknown, *asked.notes]


def run(asked: Asked, todo: Plan, watch: Callable[[Plan], Watcher]) -> None:
    """Do the jobs here; what is found is kept, and the log written, if they are interrupted too.

    Args:
        asked: the studies.
        todo: their jobs.
        watch: given the plan, returns who is told of its progress.
    """
    try:
        launch.carry_out(todo, asked.settings, asked.name, ["tune", *asked.words], watch)
    finally:
        log(asked)


def submit(asked: Asked, todo: Plan) -> Iterator[str]:
    """Hand the jobs to SLURM, and say where they are; the same command collects them afterwards.

    Args:
        asked: the studies.
        todo: their jobs.
    """
    yield line(asked, todo)
    yield from control.submit_search(todo, ["tune", *asked.words], asked.settings, asked.name)
    yield "when it is over, the same command without hydra/launcher writes tables and settings"


def on_slurm(asked: Asked) -> bool:
    """Whether the words ask for SLURM."""
    return compose.launcher(asked.words)[0] == "slurm"
