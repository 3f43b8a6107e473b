"""Waves of distinct jobs for cells. Runs no job, opens no data, imports no torch."""

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
"""Largest number of cells whose rows one job writes into one file: few files, early results."""


@dataclass(frozen=True)
class Job:
    """One unit of work for one process.

    Attributes:
        kind: what the job makes: an original, a retrained or an unlearned model with its
            predictions, the trace of a method, the rows of some cells, or a trial of a search.
        key: the key of the predictions, of the trace, of the file of rows, or of the slot.
        cells: the cell of the model, or the cells whose rows it writes.
        needs: keys of the jobs that must be settled first.
        wave: 1 trained from scratch, 2 unlearned, 3 traces, and 3 or (with traces) 4 rows. In a
            search 2 are trials, and 3 repetitions of the best trials on holdout seeds.
        slot: the slot of a trial.
    """

    kind: Literal["original", "retrained", "unlearned", "traced", "rows", "trial"]
    key: str
    cells: tuple[Cell, ...]
    needs: tuple[str, ...]
    wave: int
    slot: Slot | None = None


@dataclass(frozen=True)
class Orders:
    """The input of the working process: the jobs, the folders and the devices.

    Attributes:
        jobs: the jobs in an executable order.
        results: the results folder.
        store: the folder of the store.
        run: the folder of the run.
        task: the name of the task, and of its journal in the run's folder.
        device: ``auto``, ``cpu``, ``cuda`` …
        workers: number of worker processes; None for the default.
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
    """The outcome of a job: ``done``, ``skipped`` or ``failed``, the reason, a trial's score."""

    key: str
    kind: str
    status: str
    reason: str = ""
    score: float | None = None


CRASH = "crash"
"""The kind of an event that belongs to no job: the working process has failed, with a reason."""

NOUNS = {
    "original": ("original", "originals"),
    "retrained": ("retrain", "retrains"),
    "unlearned": ("unlearned", "unlearned"),
    "traced": ("traced", "traced"),
}
"""Singular and plural of each kind of artifact, in the text of a plan."""


@dataclass(frozen=True)
class Plan:
    """Distinct jobs in an executable order, number of cells, and artifacts in the store by kind."""

    jobs: tuple[Job, ...]
    cells: int
    in_store: dict[str, int]

    @property
    def todo(self) -> int:
        """Number of cells without rows."""
        return sum(len(job.cells) for job in self.jobs if job.kind == "rows")

    @property
    def keys(self) -> list[str]:
        """The keys of the jobs."""
        return [job.key for job in self.jobs]

    def __str__(self) -> str:
        return self.line()

    def line(self, tasks: int | None = None) -> str:
        """The plan in one line: the artifacts that the cells need, and how many of them exist.

        Args:
            tasks: the number of tasks into which the jobs are packed; None without packing.
        """
        if not self.todo:
            return f"{_counted(self.cells, 'cell', 'cells')}, all there"
        missing = Counter(str(job.kind) for job in self.jobs)
        needed = {kind: missing[kind] + n for kind, n in self.in_store.items()}
        done = self.cells - self.todo
        text = _counted(self.cells, "cell", "cells") + (f" ({done:,} there)" if done else "")
        text += " → " + ", ".join(_counted(n, *NOUNS[kind]) for kind, n in needed.items() if n)
        if existing := sum(self.in_store.values()):
            text += f"; {existing:,} in store"
        text += f"; {_counted(len({job.wave for job in self.jobs}), 'wave', 'waves')}"
        return text if tasks is None else f"{text}, {_counted(tasks, 'task', 'tasks')}"


def _counted(n: int, singular: str, plural: str) -> str:
    return f"{n:,} {singular if n == 1 else plural}"


def plan(cells: Sequence[Cell], store: Store, finished: set[str]) -> Plan:
    """The jobs that the cells' rows still need.

    Args:
        cells: the grid.
        store: the store, which can contain some of the artifacts.
        finished: keys of rows that exist.
    """
    remaining = [c for c in cells if not c.row_keys <= finished]
    models: dict[str, Cell] = {}
    traced: dict[str, Cell] = {}
    reads: list[list[str]] = []
    cache: dict[str, tuple[Cell, ...]] = {}
    for cell in remaining:
        reads.append([])
        for model in _listed(cell, cache):
            models.setdefault(model.predictions_key, model)
            reads[-1].append(model.predictions_key)
        if cell.trace_key is not None:
            traced.setdefault(cell.trace_key, cell)
            reads[-1].append(cell.trace_key)
    present = store.present([*models, *traced])
    in_store = {kind: 0 for kind in ("original", "retrained", "unlearned")}
    in_store |= {"traced": 0} if traced else {}
    jobs: list[Job] = []
    for key, model in models.items():
        start = (model.start.predictions_key,) if model.start else ()
        jobs.append(Job(model.kind, key, (model,), start, 2 if start else 1))
    for key, cell in traced.items():
        jobs.append(Job("traced", key, (cell,), (cell.predictions_key,), 3))
    for job in jobs:
        in_store[job.kind] += job.key in present
    missing = sorted((job for job in jobs if job.key not in present), key=lambda job: job.wave)
    return Plan((*missing, *_rows(remaining, reads)), len(cells), in_store)


def needed(cells: Iterable[Cell]) -> set[str]:
    """Keys of all artifacts that the cells' rows are computed from, existing or not."""
    keys: set[str] = set()
    cache: dict[str, tuple[Cell, ...]] = {}
    for cell in cells:
        for predicted in _listed(cell, cache):
            made = predicted.stored_models()
            keys |= {predicted.predictions_key, *(model.model_key for model in made)}
            keys |= {model.prepared_key for model in made if model.method.get("prepare")}
        keys |= {key for key in (cell.trace_key,) if key}
    return keys


def _listed(cell: Cell, cache: dict[str, tuple[Cell, ...]]) -> tuple[Cell, ...]:
    """``_models`` with a cache over defenses: all defenses of a cell need the same models."""
    plain = cell if cell.defense["call"] is None else replace(cell, defense=NOTHING)
    if plain.key not in cache:
        cache[plain.key] = tuple(_models(cell))
    return cache[plain.key]


def _models(cell: Cell) -> Iterable[Cell]:
    """The cells whose predictions the rows of this cell need."""
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
    """The jobs that write the cells' rows; ``reads`` has the keys that the rows of each need."""
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):  # cells of one reference read the same outputs
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
    """The jobs of some trials, and of the models that they are compared with.

    Trials are ordered by number across studies. Trials of one study therefore rarely run at the
    same time, and each can use the results of the earlier ones.

    Args:
        slots: the slots of the trials.
        store: the store, which can contain some of the models.
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
        before = (other.key for other in first if other.study.key == slot.study.key)
        wanted = (*needs[slot.key], *before)
        jobs.append(Job("trial", slot.key, slot.study.fresh, wanted, 3, slot))
    return Plan(tuple(jobs), 0, in_store)
