"""The command ``unlearnbench``: a Hydra application around cells, plan and launch."""

import math
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from unlearnbench import atomic, config, damage, launch, record, results, upkeep
from unlearnbench.plan import Event, Plan
from unlearnbench.words import (
    ConfigError,
    options_folder,
    printable,
    sorted_words,
    text_of,
    with_search_path,
)


class Plain(Console):
    """A console on which text is text: no markup, no names of emoji, no escape sequences."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Text to be printed, wherever it stands: by itself, in a table, in a title."""
        return super().render_str(printable(text), **how)


# A table does not fit the 80 columns that are assumed where there is no terminal.
console = Plain(
    markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 200
)

GIVE_WAY = ("VA %", "MIA AUC", "RTE with tuning", "Indisc ↑")
"""Columns that a terminal too narrow for all does without; the Markdown file has them."""

SHOWN_PICTURES = 5
"""Pictures whose paths are printed; of the others their number."""

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that was interrupted, as shells have it."""

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


class Bar(launch.Watcher):
    """A live progress bar with counts and the time left."""

    def __init__(self, plan: Plan) -> None:
        console.print(str(plan))
        said = TextColumn("{task.description}", markup=False)
        columns = (said, BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self.left = {
            kind: sum(j.kind == kind for j in plan.jobs) for kind in (*plan.in_store, "rows")
        }
        shown = bool(plan.jobs)
        self.bar = self.progress.add_task("starting", total=len(plan.jobs), visible=shown)

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def event(self, event: Event) -> None:
        """Count a settled job."""
        self.left[event.kind] -= 1
        told = ", ".join(f"{count} {kind}" for kind, count in self.left.items() if count)
        self.progress.update(self.bar, advance=1, description=f"left: {told}" if told else "done")


class Search(launch.Watcher):
    """The same of a search: how many trials are left, the time, and the latest best score."""

    def __init__(self, plan: Plan) -> None:
        said = TextColumn("{task.description}", markup=False)
        columns = (said, BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console)
        self.methods = {job.key: job.cells[0].names["method"] for job in plan.jobs if job.slot}
        self.fresh = {job.key for job in plan.jobs if job.slot and job.slot.fresh}
        self.best: dict[str, float] = {}
        self.said: Counter[tuple[str, str]] = Counter()
        shown = bool(plan.jobs)
        self.bar = self.progress.add_task("starting", total=len(plan.jobs), visible=shown)

    def __enter__(self) -> "Search":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        for (status, reason), count in self.said.items():
            console.print(f"{status}: {count:,} jobs: {reason}", soft_wrap=True)

    def event(self, event: Event) -> None:
        """Count a settled job."""
        self.progress.advance(self.bar)
        if event.status != "done" and event.key not in self.fresh:
            self.said[event.status, event.reason] += 1
        method = self.methods.get(event.key, "")
        if event.score is not None and event.score < self.best.get(method, math.inf):
            self.best[method] = event.score
            told = f"best of {printable(method)}: {event.score:.4f}"
            self.progress.update(self.bar, description=told)


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
    cells = config.cells(overrides, settings["controls"])
    for told in config.notes(overrides):
        console.print(told, soft_wrap=True)
    sweep = study or (record.unnamed(cells) if swept else None)
    frame = launch.run(cells, settings, sweep=sweep, words=words, only=only, watch=Bar)
    return tables(frame, Path(settings["paths"]["results"]), study)


def tables(frame: pd.DataFrame, folder: Path, sweep: str | None) -> bool:
    """Print the tables of some rows, and what went wrong; keep those of a sweep in files.

    Returns:
        Whether no cell failed.
    """
    from unlearnbench.report import along, leaderboard  # with SciPy: where there are tables

    wide = results.widen(frame)
    for title, table in leaderboard.tables(wide):
        show(title, table)
    marks = leaderboard.note(wide)
    if marks:
        console.print(marks)
    failed = tell(wide, folder)
    study = sweep if len(wide) else None
    if study is not None:
        written = {"": leaderboard.markdown(wide), "_along": along.markdown(frame)}
        for end, text in written.items():
            if text is not None:
                path = folder / "tables" / f"{study}{end}.md"
                path.parent.mkdir(exist_ok=True)
                atomic.write(path, text)
                console.print(f"wrote {path}")
    tracebacks = f", tracebacks in {folder / 'failures'}" if failed else ""
    console.print(f"rows in {folder / 'rows'}{tracebacks}")
    if study is not None:
        console.print(f"statistics, figures and a page of them: unlearnbench report {study}")
    return not failed


def show(title: str, table: pd.DataFrame) -> None:
    """Print one table of the leaderboard: where it is too wide, intervals under their means."""
    drawn = _drawn(title, table, " ± ")
    unbounded = console.options.update(max_width=10_000)
    for column in ("", *GIVE_WAY):
        if console.measure(drawn, options=unbounded).maximum <= console.width:
            break
        table = table.drop(columns=column, errors="ignore")
        drawn = _drawn(title, table, "\n±")
    console.print(drawn)


def _drawn(title: str, table: pd.DataFrame, between: str) -> Table:
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        name = column == "method"
        drawn.add_column(column, justify="left" if name else "right", no_wrap=name, overflow="fold")
    for line in table.fillna("–").to_numpy():
        drawn.add_row(*(cell.replace(" ± ", between) for cell in line))
    return drawn


def tell(wide: pd.DataFrame, folder: Path) -> bool:
    """Print what was skipped and what failed, and what there is to look at.

    Returns:
        Whether any cell failed.
    """
    for status in ("skipped", "failed"):
        cells = wide[wide["status"] == status]
        for reason, same in cells.groupby("reason"):
            names = (same["method"] + " seed " + same["seed"].astype(str)).unique().tolist()
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            console.print(f"{status}: {', '.join(names[:3])}{more}: {reason}", soft_wrap=True)
    drawn = pictures(wide, folder)
    for what, path in drawn[:SHOWN_PICTURES]:
        console.print(f"picture of {what}: {path}", soft_wrap=True)
    if drawn[SHOWN_PICTURES:]:
        console.print(f"{len(drawn) - SHOWN_PICTURES} more pictures in {folder / 'pictures'}")
    return bool((wide["status"] == "failed").any())


def pictures(wide: pd.DataFrame, folder: Path) -> list[tuple[str, Path]]:
    """Whose is where, of those of these cells that have a picture of their own."""
    by_mark = {path.stem[-8:]: path for path in (folder / "pictures").glob("*.png")}
    about = wide["method"] + " seed " + wide["seed"].astype(str)
    return [
        (whose, by_mark[key[:8]])
        for whose, key in zip(about, wide["key"], strict=True)
        if key[:8] in by_mark
    ]


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """End with one line and exit code 1 on whatever is wrong; HYDRA_FULL_ERROR=1 shows all."""
    try:
        with damage.in_one_line():
            yield
    except KeyboardInterrupt:
        sys.stderr.write("unlearnbench: interrupted; the same command goes on from here\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if FULL_ERROR:
            raise
        sys.exit(f"unlearnbench: {printable(explained(error))}")


def explained(error: Exception) -> str:
    """One line that says what to do about a mistake on the command line."""
    swept = re.match(r"(Ambiguous value for argument|Sweep parameters) '([^']*)'", str(error))
    if swept:
        return f"{swept[2]} is a sweep: add -m"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return text_of(error)
    given = get_args_parser().parse_args()
    # Other words name a command, or a sweep.
    return config.explain(error, [word for word in given.overrides if "=" in word])


def typed(hydra_config: Any) -> list[str]:
    """The overrides that cells are composed of, from what Hydra has sorted into its own and ours.

    Args:
        hydra_config: the node ``hydra`` of the composed config.
    """
    told = OmegaConf.to_container(hydra_config.overrides, resolve=False)  # ${…} is the cell's
    assert isinstance(told, dict)
    return [*config.search_words(told["hydra"]), *told["task"]]


def asked(hydra_config: Any) -> list[str]:
    """The same, with what was said of the launcher: all that it takes to ask again."""
    told = OmegaConf.to_container(hydra_config.overrides.hydra, resolve=False)
    assert isinstance(told, list)
    return [*config.launcher_words(map(str, told)), *typed(hydra_config)]


class CellFailed(RuntimeError):
    """What a launcher that is not ours is told; the row says why."""


def one_cell(composed: DictConfig) -> None:
    """Hydra's task: one cell, in a single run or under a launcher that is not ours."""
    overrides = typed(HydraConfig.get())
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # such a launcher has other cells to run
        if not execute([overrides], config.settings(overrides), None, overrides):
            raise CellFailed(f"failed: {' '.join(overrides)}")
        return
    with mistakes_in_one_line():  # before Hydra adds a line of its own
        works = execute([overrides], config.settings(overrides), None, overrides)
    sys.exit(0 if works else 1)


def show_plain(table: pd.DataFrame) -> None:
    """Print a table whose first column is names, and the others figures."""
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns:
        first = column == table.columns[0]
        drawn.add_column(column, justify="left" if first else "right", overflow="fold")
    for one in table.to_numpy():
        drawn.add_row(*one)
    console.print(drawn)


def check(words: Sequence[str]) -> bool:
    """``unlearnbench check``: the conformance suite on the methods that the words ask for.

    Returns:
        Whether no property failed.
    """
    from unlearnbench.check import FAIL, PASS, check

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
    from unlearnbench import commands

    if words[:1] == ["tune"]:
        from unlearnbench import tune

        line, bill, notes = tune.expected(words[1:])
    else:
        _, _, overrides = sorted_words("plan", words)
        line, bill, notes = commands.plan(overrides)
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
    from unlearnbench import commands

    cells = config.cells(overrides, settings["controls"])
    sweep = study or record.unnamed(cells)
    for told in commands.submit(cells, words, settings, sweep, only):
        console.print(told, soft_wrap=True)
    return True


def tune(words: Sequence[str]) -> bool:
    """``unlearnbench tune``: search for the settings of methods.

    Returns:
        Whether settings were found for all of them.
    """
    from unlearnbench import tune

    asked = tune.ask(words)
    for told in asked.notes:
        console.print(told, soft_wrap=True)
    todo = tune.plan(asked)
    if todo.jobs and tune.on_slurm(asked):
        for told in tune.submit(asked, todo):
            console.print(told, soft_wrap=True)
        return True
    console.print(tune.line(asked, todo))
    tune.run(asked, todo, Search)
    there = tune.found(asked)
    show_plain(tune.table(there))
    for folder in tune.write(asked, there):
        console.print(f"wrote {folder}: take these settings with tuned={folder}", soft_wrap=True)
    console.print(f"trials in {asked.results / 'trials'}, studies in {asked.results / 'studies'}")
    return all(one.chosen is not None for one in there)


def status(words: Sequence[str]) -> bool:
    """``unlearnbench status``: how far a sweep is."""
    from unlearnbench import commands

    sweep, _, overrides = sorted_words("status", words)
    counts, told = commands.status(sweep, overrides)
    show_plain(counts)
    for line in told:
        console.print(line, soft_wrap=True)
    return True


def retry(words: Sequence[str]) -> bool:
    """``unlearnbench retry``: what failed or is missing once more, where the sweep ran before."""
    from unlearnbench import commands

    sweep, flags, overrides = sorted_words("retry", words)
    again = commands.retry(sweep, flags, overrides)
    if not again.chosen:
        console.print(f"{again.sweep}: {again.reason}")
        return True
    grid = commands.grid_of(again.words)
    settings = config.settings(grid[0])
    if again.launcher == "slurm":
        return submit(again.words, grid, settings, again.sweep, again.chosen)
    swept = again.sweep != record.SINGLE
    named = again.study, again.words
    return execute(grid, settings, *named, swept=swept, only=again.chosen)


def cancel(words: Sequence[str]) -> bool:
    """``unlearnbench cancel``: end what is under way of a sweep."""
    from unlearnbench import commands

    sweep, _, overrides = sorted_words("cancel", words)
    for line in commands.cancel(sweep, overrides):
        console.print(line, soft_wrap=True)
    return True


def collect(words: Sequence[str]) -> bool:
    """``unlearnbench collect``: the tables of the rows that a sweep has, computing nothing.

    Returns:
        Whether no cell failed and none is missing.
    """
    from unlearnbench import commands

    sweep, _, overrides = sorted_words("collect", words)
    name, folder, missing = commands.rows_there(sweep, overrides)
    works = tables(results.load_results(folder, sweep=name), folder, name)
    if missing:
        console.print(f"{missing:,} cells of {name} have no rows yet: unlearnbench status {name}")
    return works and not missing


def compact(words: Sequence[str]) -> bool:
    """``unlearnbench compact``: the files of rows, of scores and of ROC curves into one each."""
    from unlearnbench import commands

    _, _, overrides = sorted_words("compact", words)
    folder = commands.results_folder(overrides)
    for table, files in results.compact(folder).items():
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
    "store": upkeep.command,
}
"""What is not a cell or a sweep: the command's first word, and what it does with the others."""


def _check_flags(words: Sequence[str]) -> None:
    """Refuse in one line the flags of which Hydra would print its usage."""
    parser = get_args_parser()
    parser.exit_on_error = False
    _, unknown = parser.parse_known_args(list(words))
    if unknown:
        flag = unknown[0].startswith("-")
        told = "there is no such flag" if flag else "overrides stand together, with no flag between"
        raise ConfigError(f"{' '.join(unknown)}: {told}; see unlearnbench --help")


def main() -> None:
    """Run the command line."""
    first, *words = sys.argv[1:] or [""]
    if first in COMMANDS:
        with mistakes_in_one_line():
            works = COMMANDS[first](words)
        sys.exit(0 if works else 1)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    application = hydra.main(str(options_folder()), "config", version_base="1.3")(one_cell)
    with mistakes_in_one_line():
        words = with_search_path(sys.argv[1:])
        _check_flags(words)
        config.check_folders(config.search_words(words))  # of which Hydra only warns
        sys.argv = [sys.argv[0], *map(config.plain_value, words)]
        application()
