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
    words: Sequence[str],
    *,
    swept: bool = False,
    only: Collection[str] | None = None,
) -> bool:
    """Run the cells that lists of overrides ask for, and print their table.

    Args:
        overrides: one list a cell.
        settings: of the config.
        study: the option ``sweep=`` that they came from, whose tables are kept in files.
        words: overrides that say the same, sweeps and all.
        swept: whether it is a sweep, which has a name of its own where it is no study.
        only: keys of the cells to work at; all by default.

    Returns:
        Whether no cell failed.
    """
    cells = compose.cells(overrides, settings["controls"])
    for told in compose.notes(overrides):
        console.print(told, soft_wrap=True)
    sweep = study or (run_record.unnamed(cells) if swept else None)
    frame = launch.run(cells, settings, sweep=sweep, words=words, only=only, watch=JobProgressBar)
    return tables(frame, Path(settings["paths"]["results"]), study)


def check(words: Sequence[str]) -> bool:
    """``unlearnbench check``: the conformance suite on the methods that the words ask for.

    Returns:
        Whether no property failed.
    """
    from unlearnbench.check.run import check
    from unlearnbench.check.subject import FAIL, PASS

    colours = {PASS: "green", FAIL: "red"}
    totals: dict[str, int] = {}
    for verdicts in check(words):
        for told in verdicts:
            totals[told.result] = totals.get(told.result, 0) + 1
            result = told.result, colours.get(told.result, "yellow")
            said = printable(f" {told.asked}: {told.reason}" if told.reason else f" {told.asked}")
            line = Text.assemble(printable(told.method), ": ", result, said)
            console.print(line, soft_wrap=True)
    console.print(", ".join(f"{count} {result}" for result, count in totals.items()))
    return FAIL not in totals


def plan(words: Sequence[str]) -> bool:
    """``unlearnbench plan``: what a sweep, or a search, would do and should cost, not doing it."""
    from unlearnbench.sweep import estimate

    if words[:1] == ["tune"]:
        from unlearnbench.tune import run

        line, bill, notes = run.expected(words[1:])
    else:
        _, _, overrides = parse_arguments("plan", words)
        line, bill, notes = estimate.plan(overrides)
    console.print(line)
    if len(bill):
        show_plain(bill)
    for told in notes:
        console.print(told, soft_wrap=True)
    return True


def submit(
    words: Sequence[str],
    overrides: Sequence[Sequence[str]],
    settings: dict[str, Any],
    study: str | None,
    only: Collection[str] | None = None,
) -> bool:
    """Submit a sweep to SLURM, say what was submitted, and do not wait for it."""
    from unlearnbench.sweep import control

    cells = compose.cells(overrides, settings["controls"])
    sweep = study or run_record.unnamed(cells)
    for told in control.submit(cells, words, settings, sweep, only):
        console.print(told, soft_wrap=True)
    return True


def tune(words: Sequence[str]) -> bool:
    """``unlearnbench tune``: search for the settings of methods.

    Returns:
        Whether settings were found for all of them.
    """
    from unlearnbench.tune import choose, request, run, write

    asked = request.ask(words)
    for told in asked.notes:
        console.print(told, soft_wrap=True)
    todo = run.plan(asked)
    if todo.jobs and run.on_slurm(asked):
        for told in run.submit(asked, todo):
            console.print(told, soft_wrap=True)
        return True
    console.print(run.line(asked, todo))
    run.run(asked, todo, TrialProgressBar)
    there = choose.found(asked)
    show_plain(choose.table(there))
    for folder in write.write(asked, there):
        console.print(f"wrote {folder}: take these settings with tuned={folder}", soft_wrap=True)
    console.print(f"trials in {asked.results / 'trials'}, studies in {asked.results / 'studies'}")
    return all(one.chosen is not None for one in there)


def status(words: Sequence[str]) -> bool:
    """``unlearnbench status``: how far a sweep is."""
    from unlearnbench.cli.status import status as status_of

    sweep, _, overrides = parse_arguments("status", words)
    counts, told = status_of(sweep, overrides)
    show_plain(counts)
    for line in told:
        console.print(line, soft_wrap=True)
    return True


def retry(words: Sequence[str]) -> bool:
    """``unlearnbench retry``: what failed or is missing once more, where the sweep ran before."""
    from unlearnbench.sweep import control, estimate

    sweep, flags, overrides = parse_arguments("retry", words)
    again = control.retry(sweep, flags, overrides)
    if not again.chosen:
        console.print(f"{again.sweep}: {again.reason}")
        return True
    grid = estimate.grid_of(again.words)
    settings = compose.settings(grid[0])
    if again.launcher == "slurm":
        return submit(again.words, grid, settings, again.sweep, again.chosen)
    swept = again.sweep != run_record.SINGLE
    named = again.study, again.words
    return execute(grid, settings, *named, swept=swept, only=again.chosen)


def cancel(words: Sequence[str]) -> bool:
    """``unlearnbench cancel``: end what is under way of a sweep."""
    from unlearnbench.sweep import control

    sweep, _, overrides = parse_arguments("cancel", words)
    for line in control.cancel(sweep, overrides):
        console.print(line, soft_wrap=True)
    return True


def collect(words: Sequence[str]) -> bool:
    """``unlearnbench collect``: the tables of the rows that a sweep has, computing nothing.

    Returns:
        Whether no cell failed and none is missing.
    """
    from unlearnbench.sweep import control

    sweep, _, overrides = parse_arguments("collect", words)
    name, folder, missing = control.rows_there(sweep, overrides)
    works = tables(load.load_results(folder, sweep=name), folder, name)
    if missing:
        console.print(f"{missing:,} cells of {name} have no rows yet: unlearnbench status {name}")
    return works and not missing


def compact(words: Sequence[str]) -> bool:
    """``unlearnbench compact``: the files of rows, of scores and of ROC curves into one each."""
    from unlearnbench.sweep import estimate

    _, _, overrides = parse_arguments("compact", words)
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
"""What is not a cell or a sweep: the command's first word, and what it does with the others."""
