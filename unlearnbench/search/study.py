"""A search for a method's settings as plain data: on what, over what, by what. Imports no torch.

A study is one (data set, model, training, forget set, method); its trials have slots 0, 1, 2, …,
and slot 0 is the method as its option has it. A slot is a job like any other: it has a key, one
process at a time works at it, and what has been tried is not tried again.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from unlearnbench.core.cell import Cell, Option, digest, written

VERSION = 1
"""Goes up when a trial of the same slot would come out otherwise."""

SAMPLERS = ("tpe", "nsga3", "random")

Settings = Mapping[str, Any]
"""Hyper-parameters by dotted name below ``call``: ``{"sgd.lr": 0.01}``."""


@dataclass(frozen=True)
class Axis:
    """What a search may choose for one hyper-parameter.

    Attributes:
        default: the option's own value, which is always among those that can be chosen.
        choices: the values, where they are listed; else those from ``low`` to ``high`` are meant.
        low: the least.
        high: the largest.
        log: whether their logarithm is what is spread evenly.
        zero: whether 0 can be chosen too, beside a range of logarithms.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    zero: bool = False

    @property
    def whole(self) -> bool:
        """Whether it takes integers only."""
        return all(type(one) is int for one in (self.default, self.low, self.high))


def space(method: Option) -> dict[str, Axis]:
    """The axes of a method's ``space`` that leave a choice, widened to hold its own defaults.

    What its ``prepare`` step is told is left out: that is done once, before any request.

    Args:
        method: an option.
    """
    axes = {}
    for name, told in (method.get("space") or {}).items():
        if name.startswith("prepare."):
            continue
        default = _at(method["call"], name)
        if "choices" in told:
            choices = list(told["choices"])
            choices += [default] if default not in choices else []
            if len(choices) > 1:
                axes[name] = Axis(default, choices=tuple(choices))
            continue
        zero = bool(told.get("zero", False))
        low, high = told["low"], told["high"]
        if not (zero and default == 0):
            low, high = min(low, default), max(high, default)
        axes[name] = Axis(default, low=low, high=high, log=bool(told.get("log")), zero=zero)
    return axes


def _at(call: Option, name: str) -> Any:
    for part in name.split("."):
        call = call[part]
    return call


def changed(method: Option, settings: Settings) -> Option:
    """The method with some of its hyper-parameters set.

    Args:
        method: an option.
        settings: values by dotted name.
    """
    call = copy.deepcopy(dict(method["call"]))
    for name, value in settings.items():
        *above, last = name.split(".")
        place = call
        for part in above:
            place = place[part]
        place[last] = value
    return {**method, "call": call}


@dataclass(frozen=True)
class Study:
    """One search.

    Attributes:
        cells: the method at its defaults, once a tuning seed.
        fresh: the same with the seeds on which the best are run once more.
        objective: ``retrained``, or ``no_retrain``.
        sampler: ``tpe``, ``nsga3`` or ``random``.
        prune: whether a trial that is worse than most after a seed is left there.
        seed: of the search's own draws.
    """

    cells: tuple[Cell, ...]
    fresh: tuple[Cell, ...]
    objective: str
    sampler: str
    prune: bool
    seed: int

    @property
    def cell(self) -> Cell:
        """The cell of its first seed, for all that seeds do not change."""
        return self.cells[0]

    @property
    def pruned(self) -> bool:
        """Whether trials may be: four values have no order to be worse by."""
        return self.prune and self.sampler != "nsga3"

    @cached_property
    def space(self) -> dict[str, Axis]:
        """What there is to choose."""
        return space(self.cell.method)

    @cached_property
    def key(self) -> str:
        """Over all that can change a trial; not over how many there are, nor the fresh seeds."""
        attack = written(self.cell.attack)
        ranges = written(self.cell.method.get("space") or {}, whole=True)
        how = self.objective, self.sampler, self.pruned, self.seed
        on = [cell.predictions_key for cell in self.cells]
        return digest("study", VERSION, on, attack, ranges, *how)

    @property
    def references(self) -> tuple[str, ...]:
        """What is measured against: ``original`` always, ``retrained`` but for ``no_retrain``."""
        return ("original", "retrained") if self.objective == "retrained" else ("original",)

    def needs(self, fresh: bool) -> Iterator[Cell]:
        """The models that must be there before a trial, as cells.

        Args:
            fresh: of the trials on the fresh seeds.
        """
        for cell in self.fresh if fresh else self.cells:
            yield cell.original()
            if "retrained" in self.references:
                yield replace(cell, method=cell.reference)


@dataclass(frozen=True)
class Slot:
    """One trial of a study, or one of the best of them once more on the fresh seeds.

    Attributes:
        study: whose.
        number: of the trial; of the fresh ones its place among those that are run again.
        fresh: whether it is one of these.
        best: how many of the best are among these.
        until: the time, as ``time.time`` tells it, from which on it is not begun.
    """

    study: Study
    number: int
    fresh: bool = False
    best: int = 0
    until: float | None = None

    @property
    def key(self) -> str:
        """Of its job."""
        if not self.fresh:
            return digest("trial", self.study.key, self.number)
        on = [cell.predictions_key for cell in self.study.fresh]
        return digest("fresh", self.study.key, on, self.number, self.best)
