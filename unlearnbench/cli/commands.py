"""The commands of the command line."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from unlearnbench.cli import store
from unlearnbench.cli.progress_bars import JobProgressBar, TrialProgressBar
from unlearnbench.cli.tables import console, show_plain, tables
from unlearnbench.config import compose
from unlearnbench.config.arguments import parse_arguments
from unlearnbench.core.errors import printable
from unlearnbench.results import load
from unlearnbench.results.compact import compact as compact_tables
from unlearnbench.sweep import local as launch
from unlearnbench.sweep import run_record


def execute(
    overrides: Sequence[Sequence[str]],
    settings: dict[str, Any],
    study: str | None,
    argv: Sequence[str],
    *,
    swept: bool = False,
    only: Collection[str] | None = None,
) -> bool:
    """Run the cells of several lists of overrides, and print their table.

    Args:
        overrides: one list per cell.
        settings: the settings of the config.
        study: the option ``sweep=`` of these cells, whose tables are written to files.
        argv: the same overrides as typed, sweeps included.
        swept: whether the cells are a sweep; without ``study`` it gets a name of its own.
        only: keys of the cells to compute; all by default.

    Returns:
        Whether no cell failed.
    """
    cells = compose.cells(overrides, settings["controls"])
    for message in compose.notes(overrides):
        console.print(message, soft_wrap=True)
    sweep = study or (run_record.unnamed(cells) if swept else None)
    frame = launch.run(cells, settings, sweep=sweep, words=argv, only=only, watch=JobProgressBar)
    return tables(frame, Path(settings["paths"]["results"]), study)


def check(argv: Sequence[str]) -> bool:
    """``unlearnbench check``: run the conformance suite on the methods that the arguments select.

    Returns:
        Whether no property failed.
    """
    from unlearnbench.check.run import check
    from unlearnbench.check.subject import FAIL, PASS

    colours = {PASS: "green", FAIL: "red"}
    totals: dict[str, int] = {}
    for verdicts in check(argv):
        for verdict in verdicts:
            totals[verdict.result] = totals.get(verdict.result, 0) + 1
            result = verdict.result, colours.get(verdict.result, "yellow")
            description = printable(
                f" {verdict.asked}: {verdict.reason}" if verdict.reason else f" {verdict.asked}"
            )
            line = Text.assemble(printable(verdict.method), ": ", result, description)
            console.print(line, soft_wrap=True)
    console.print(", ".join(f"{count} {result}" for result, count in totals.items()))
    return FAIL not in totals


def plan(argv: Sequence[str]) -> bool:
    """``unlearnbench plan``: print the jobs and the estimated cost of a sweep or search."""
    from unlearnbench.sweep import estimate

    if argv[:1] == ["tune"]:
        from unlearnbench.tune import run

        line, bill, notes = run.expected(argv[1:])
    else:
        _, _, overrides = parse_arguments("plan", argv)
        line, bill, notes = estimate.plan(overrides)
    console.print(line)
    if len(bill):
        show_plain(bill)
    for note in notes:
        console.print(note, soft_wrap=True)
    return True


def submit(
    argv: Sequence[str],
    overrides: Sequence[Sequence[str]],
    settings: dict[str, Any],
    study: str | None,
    only: Collection[str] | None = None,
) -> bool:
    """Submit a sweep to SLURM and print what was submitted, without waiting for it."""
    from unlearnbench.sweep import control

    cells = compose.cells(overrides, settings["controls"])
    sweep = study or run_record.unnamed(cells)
    for message in control.submit(cells, argv, settings, sweep, only):
        console.print(message, soft_wrap=True)
    return True


def tune(argv: Sequence[str]) -> bool:
    """``unlearnbench tune``: search for the settings of methods.

    Returns:
        Whether the search chose settings for all methods.
    """
    from unlearnbench.tune import choose, request, run, write

    tuning = request.ask(argv)
    for message in tuning.notes:
        console.print(message, soft_wrap=True)
    job_plan = run.plan(tuning)
    if job_plan.jobs and run.on_slurm(tuning):
        for message in run.submit(tuning, job_plan):
            console.print(message, soft_wrap=True)
        return True
    console.print(run.line(tuning, job_plan))
    run.run(tuning, job_plan, TrialProgressBar)
    study_results = choose.found(tuning)
    show_plain(choose.table(study_results))
    for folder in write.write(tuning, study_results):
        console.print(f"wrote {folder}: take these settings with tuned={folder}", soft_wrap=True)
    console.print(f"trials in {tuning.results / 'trials'}, studies in {tuning.results / 'studies'}")
    return all(result.chosen is not None for result in study_results)


def status(argv: Sequence[str]) -> bool:
    """``unlearnbench status``: print the progress of a sweep."""
    from unlearnbench.cli.status import status as status_of

    sweep, _, overrides = parse_arguments("status", argv)
    counts, messages = status_of(sweep, overrides)
    show_plain(counts)
    for message in messages:
        console.print(message, soft_wrap=True)
    return True


def retry(argv: Sequence[str]) -> bool:
    """``unlearnbench retry``: run failed and missing cells again, on the sweep's launcher."""
    from unlearnbench.sweep import control, estimate

    sweep, flags, overrides = parse_arguments("retry", argv)
    rerun = control.retry(sweep, flags, overrides)
    if not rerun.chosen:
        console.print(f"{rerun.sweep}: {rerun.reason}")
        return True
    grid = estimate.grid_of(rerun.words)
    settings = compose.settings(grid[0])
    if rerun.launcher == "slurm":
        return submit(rerun.words, grid, settings, rerun.sweep, rerun.chosen)
    swept = rerun.sweep != run_record.SINGLE
    study_and_argv = rerun.study, rerun.words
    return execute(grid, settings, *study_and_argv, swept=swept, only=rerun.chosen)


def cancel(argv: Sequence[str]) -> bool:
    """``unlearnbench cancel``: stop the running jobs of a sweep."""
    from unlearnbench.sweep import control

    sweep, _, overrides = parse_arguments("cancel", argv)
    for message in control.cancel(sweep, overrides):
        console.print(message, soft_wrap=True)
    return True


def collect(argv: Sequence[str]) -> bool:
    """``unlearnbench collect``: print the tables of a sweep's existing rows, without computing.

    Returns:
        Whether no cell failed and none is missing.
    """
    from unlearnbench.sweep import control

    sweep, _, overrides = parse_arguments("collect", argv)
    name, folder, missing = control.rows_there(sweep, overrides)
    succeeded = tables(load.load_results(folder, sweep=name), folder, name)
    if missing:
        console.print(f"{missing:,} cells of {name} have no rows yet: unlearnbench status {name}")
    return succeeded and not missing


def compact(argv: Sequence[str]) -> bool:
    """``unlearnbench compact``: merge the files of rows, scores and ROC curves into one each."""
    from unlearnbench.sweep import estimate

    _, _, overrides = parse_arguments("compact", argv)
    folder = estimate.results_folder(overrides)
    for table, files in compact_tables(folder).items():
        console.print(f"{table}: {files:,} files are one" if files else f"{table}: nothing to do")
    return True


COMMANDS = {
    "check": check,
    "plan": plan,
    "tune": tune,
    "status": status,
    "retry": retry,
    "cancel": cancel,
    "collect": collect,
    "compact": compact,
    "store": store.command,
}
"""Commands that are neither a cell nor a sweep: first argument → function of the others."""
