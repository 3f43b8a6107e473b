"""From cells to waves of distinct jobs. Executes nothing, opens no data, imports no torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from unlearnbench.core.cell import NOTHING, ORIGINAL, Cell, digest
from unlearnbench.protocol import protocol_of
from unlearnbench.search.study import Slot
from unlearnbench.store.artifacts import Store

ROWS_AT_ONCE = 50
"""Cells whose rows one job writes as one file: few files, and yet something to show early."""


@dataclass(frozen=True)
class Job:
    """One piece of work for one process.

    Attributes:
        kind: what it makes: an original, a retrained or an unlearned model with its predictions,
            what one said on its way, the rows of some cells, or a trial of a search.
        key: of the predictions, of the trace, or of the file of rows.
        cells: the cell it is about, or those whose rows it writes.
        needs: keys of the jobs that come before it.
        wave: 1 trained from scratch, 2 unlearned, 3 rows; with traces these are 3, and rows 4.
            Of a search, 2 are trials and 3 the best of them once more.
        slot: of a trial.
    """

    kind: Literal["original", "retrained", "unlearned", "traced", "rows", "trial"]
    key: str
    cells: tuple[Cell, ...]
    needs: tuple[str, ...]
    wave: int
    slot: Slot | None = None


@dataclass(frozen=True)
class Orders:
    """What the working process is told: the jobs, where things lie, and on what to work.

    Attributes:
        jobs: in an order in which they can be done.
        results: the results folder.
        store: where artifacts are.
        run: folder of the run that they belong to.
        task: the name under which the process keeps its journal there.
        device: ``auto``, ``cpu``, ``cuda`` …
        workers: processes at once.
    """

    jobs: tuple[Job, ...]
    results: Path
    store: Path
    run: Path
    task: str
    device: str
    workers: int | None


@dataclass(frozen=True)
class Event:
    """What became of a job: ``done``, ``skipped`` or ``failed``, and why; of a trial its score."""

    key: str
    kind: str
    status: str
    reason: str = ""
    score: float | None = None


CRASH = "crash"
"""The kind of an event that is no job's: the working process has broken off, and why."""

NOUNS = {
    "original": ("original", "originals"),
    "retrained": ("retrain", "retrains"),
    "unlearned": ("unlearned", "unlearned"),
    "traced": ("traced", "traced"),
}
"""What a plan calls one artifact of a kind, and several."""


@dataclass(frozen=True)
class Plan:
    """Distinct jobs in an order in which they can be done, and what is there already."""

    jobs: tuple[Job, ...]
    cells: int
    in_store: dict[str, int]

    @property
    def todo(self) -> int:
        """Cells whose rows are not there yet."""
        return sum(len(job.cells) for job in self.jobs if job.kind == "rows")

    @property
    def keys(self) -> list[str]:
        """The jobs' keys."""
        return [job.key for job in self.jobs]

    def __str__(self) -> str:
        return self.line()

    def line(self, tasks: int | None = None) -> str:
        """The plan in one line: what the cells to do need, and how much of it is there.

        Args:
            tasks: into how many the jobs are packed, where they are.
        """
        if not self.todo:
            return f"{_counted(self.cells, 'cell', 'cells')}, all there"
        missing = Counter(str(job.kind) for job in self.jobs)
        needed = {kind: missing[kind] + there for kind, there in self.in_store.items()}
        done = self.cells - self.todo
        told = _counted(self.cells, "cell", "cells") + (f" ({done:,} there)" if done else "")
        told += " → " + ", ".join(_counted(n, *NOUNS[kind]) for kind, n in needed.items() if n)
        if there := sum(self.in_store.values()):
            told += f"; {there:,} in store"
        told += f"; {_counted(len({job.wave for job in self.jobs}), 'wave', 'waves')}"
        return told if tasks is None else f"{told}, {_counted(tasks, 'task', 'tasks')}"


def _counted(n: int, one: str, more: str) -> str:
    return f"{n:,} {one if n == 1 else more}"


def plan(cells: Sequence[Cell], store: Store, finished: set[str]) -> Plan:
    """The jobs that the cells' rows still need.

    Args:
        cells: the grid.
        store: where artifacts may be already.
        finished: keys of rows that are there.
    """
    todo = [c for c in cells if not c.row_keys <= finished]
    models: dict[str, Cell] = {}
    traced: dict[str, Cell] = {}
    reads: list[list[str]] = []
    known: dict[str, tuple[Cell, ...]] = {}
    for cell in todo:
        reads.append([])
        for one in _listed(cell, known):
            models.setdefault(one.predictions_key, one)
            reads[-1].append(one.predictions_key)
        if cell.trace_key is not None:
            traced.setdefault(cell.trace_key, cell)
            reads[-1].append(cell.trace_key)
    present = store.present([*models, *traced])
    in_store = {kind: 0 for kind in ("original", "retrained", "unlearned")}
    in_store |= {"traced": 0} if traced else {}
    jobs: list[Job] = []
    for key, one in models.items():
        start = (one.start.predictions_key,) if one.start else ()
        jobs.append(Job(one.kind, key, (one,), start, 2 if start else 1))
    for key, cell in traced.items():
        jobs.append(Job("traced", key, (cell,), (cell.predictions_key,), 3))
    for job in jobs:
        in_store[job.kind] += job.key in present
    missing = sorted((job for job in jobs if job.key not in present), key=lambda job: job.wave)
    return Plan((*missing, *_rows(todo, reads)), len(cells), in_store)


def needed(cells: Iterable[Cell]) -> set[str]:
    """Keys of all artifacts that the cells' rows are made of, there or not."""
    keys: set[str] = set()
    known: dict[str, tuple[Cell, ...]] = {}
    for cell in cells:
        for one in _listed(cell, known):
            made = one.stored_models()
            keys |= {one.predictions_key, *(model.model_key for model in made)}
            keys |= {model.prepared_key for model in made if model.method.get("prepare")}
        keys |= {key for key in (cell.trace_key,) if key}
    return keys


def _listed(cell: Cell, known: dict[str, tuple[Cell, ...]]) -> tuple[Cell, ...]:
    """``_models``, once for all defenses of a cell: they ask for no others."""
    plain = cell if cell.defense["call"] is None else replace(cell, defense=NOTHING)
    if plain.key not in known:
        known[plain.key] = tuple(_models(cell))
    return known[plain.key]


def _models(cell: Cell) -> Iterable[Cell]:
    """The cells whose predictions the rows of this one need."""
    if (original := cell if cell.is_original else cell.start) is not None:
        yield original
    yield replace(cell, method=cell.reference)
    yield cell
    if cell.reference_classifier:
        yield cell.reference_classifier
    traits = cell.attack.get("traits") or {}
    ceiling = "original" in (traits.get("ends") or {}).values()
    protocol = protocol_of(cell.attack)
    if traits.get("compared") or (ceiling and protocol is None):
        yield replace(cell, method=ORIGINAL)
    if protocol is not None:
        yield from protocol.needed(cell)


def _rows(cells: Sequence[Cell], reads: Sequence[Sequence[str]]) -> list[Job]:
    """The jobs of the cells' rows, given the keys of what the rows of each read."""
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):  # those of one reference read the same outputs
        groups.setdefault(cell.reference_key, []).append(place)
    jobs = []
    for group in groups.values():
        for first in range(0, len(group), ROWS_AT_ONCE):
            places = group[first : first + ROWS_AT_ONCE]
            chunk = tuple(cells[place] for place in places)
            needs = sorted({key for place in places for key in reads[place]})
            key = digest("file", sorted(cell.key for cell in chunk))
            wave = 4 if any(cell.trace_key for cell in chunk) else 3
            jobs.append(Job("rows", key, chunk, tuple(needs), wave))
    return jobs


def searched(slots: Sequence[Slot], store: Store) -> Plan:
    """The jobs of some trials, and of the models that they are measured against.

    Trials of a number stand together, whatever study they are of: so those of one study are
    seldom at work at once, and each can learn from those before it.

    Args:
        slots: what is to be tried.
        store: where these models may be already.
    """
    models: dict[str, Cell] = {}
    needs: dict[str, tuple[str, ...]] = {}
    for slot in slots:
        measures = {cell.predictions_key: cell for cell in slot.study.needs(slot.fresh)}
        models |= measures
        needs[slot.key] = tuple(measures)
    present = store.present(models)
    in_store = {kind: 0 for kind in ("original", "retrained")}
    jobs = []
    for key, cell in models.items():
        if key in present:
            in_store[cell.kind] += 1
        else:
            jobs.append(Job(cell.kind, key, (cell,), (), 1))
    first = [slot for slot in slots if not slot.fresh]
    for slot in sorted(first, key=lambda slot: slot.number):
        jobs.append(Job("trial", slot.key, slot.study.cells, needs[slot.key], 2, slot))
    for slot in sorted((slot for slot in slots if slot.fresh), key=lambda slot: slot.number):
        before = (one.key for one in first if one.study.key == slot.study.key)
        wanted = (*needs[slot.key], *before)
        jobs.append(Job("trial", slot.key, slot.study.fresh, wanted, 3, slot))
    return Plan(tuple(jobs), 0, in_store)
