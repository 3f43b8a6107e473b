"""A search for a method's settings as plain data: cells, axes, sampler. Imports no torch.

A study is one (data set, model, training, forget set, method); its trials have slots 0, 1, 2, …,
and slot 0 is the method with its default settings. A slot is a job: it has a key, one process at
a time runs it, and finished trials are not run again.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from unlearnbench.core.cell import Cell, Option, digest, written

VERSION = 1
"""Incremented when the result of a slot changes."""

SAMPLERS = ("tpe", "nsga3", "random")

Settings = Mapping[str, Any]
"""Hyper-parameters by dotted name below ``call``: ``{"sgd.lr": 0.01}``."""


@dataclass(frozen=True)
class Axis:
    """The values that a search may choose for one hyper-parameter.

    Attributes:
        default: the value of the method's option, which is always a valid choice.
        choices: the values of a categorical axis; if empty, the axis is the range from ``low``
            to ``high``.
        low: the smallest value.
        high: the largest value.
        log: whether values are sampled on a logarithmic scale.
        zero: whether 0 is a valid choice in addition to a logarithmic range.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    zero: bool = False

    @property
    def whole(self) -> bool:
        """Whether the axis has integers only."""
        return all(type(value) is int for value in (self.default, self.low, self.high))


def space(method: Option) -> dict[str, Axis]:
    """The axes of a method's ``space`` with more than one value, extended by its defaults.

    Parameters of the ``prepare`` step are left out: it runs once, before any request.

    Args:
        method: a method option.

    Returns:
        Dotted name → axis.
    """
    axes = {}
    for name, spec in (method.get("space") or {}).items():
        if name.startswith("prepare."):
            continue
        default = _at(method["call"], name)
        if "choices" in spec:
            choices = list(spec["choices"])
            choices += [default] if default not in choices else []
            if len(choices) > 1:
                axes[name] = Axis(default, choices=tuple(choices))
            continue
        zero = bool(spec.get("zero", False))
        low, high = spec["low"], spec["high"]
        if not (zero and default == 0):
            low, high = min(low, default), max(high, default)
        axes[name] = Axis(default, low=low, high=high, log=bool(spec.get("log")), zero=zero)
    return axes


def _at(call: Option, name: str) -> Any:
    for key in name.split("."):
        call = call[key]
    return call


def changed(method: Option, settings: Settings) -> Option:
    """The method with some hyper-parameters replaced.

    Args:
        method: a method option.
        settings: values by dotted name.
    """
    call = copy.deepcopy(dict(method["call"]))
    for name, value in settings.items():
        *parents, last = name.split(".")
        group = call
        for parent in parents:
            group = group[parent]
        group[last] = value
    return {**method, "call": call}


@dataclass(frozen=True)
class Study:
    """One search.

    Attributes:
        cells: cells of the method with default settings, one per tuning seed.
        fresh: the same for the fresh seeds, on which the best trials run again.
        objective: ``retrained``, or ``no_retrain``.
        sampler: ``tpe``, ``nsga3`` or ``random``.
        prune: whether a trial stops after a seed at which its score is worse than the median.
        seed: seed of the sampler.
    """

    cells: tuple[Cell, ...]
    fresh: tuple[Cell, ...]
    objective: str
    sampler: str
    prune: bool
    seed: int

    @property
    def cell(self) -> Cell:
        """The cell of the first seed, for all that does not depend on the seed."""
        return self.cells[0]

    @property
    def pruned(self) -> bool:
        """Whether trials are pruned; NSGA-III has four objectives, which have no order."""
        return self.prune and self.sampler != "nsga3"

    @cached_property
    def space(self) -> dict[str, Axis]:
        """The axes of the method, by dotted name."""
        return space(self.cell.method)

    @cached_property
    def key(self) -> str:
        """Digest of all that affects a trial, without the number of trials and the fresh seeds."""
        attack = written(self.cell.attack)
        ranges = written(self.cell.method.get("space") or {}, whole=True)
        options = self.objective, self.sampler, self.pruned, self.seed
        cell_keys = [cell.predictions_key for cell in self.cells]
        return digest("study", VERSION, cell_keys, attack, ranges, *options)

    @property
    def references(self) -> tuple[str, ...]:
        """Reference models: ``original`` always, ``retrained`` unless ``no_retrain``."""
        return ("original", "retrained") if self.objective == "retrained" else ("original",)

    def needs(self, fresh: bool) -> Iterator[Cell]:
        """Cells of the models that trials require.

        Args:
            fresh: whether the trials are those on the fresh seeds.
        """
        for cell in self.fresh if fresh else self.cells:
            yield cell.original()
            if "retrained" in self.references:
                yield replace(cell, method=cell.reference)


@dataclass(frozen=True)
class Slot:
    """One trial of a study, or one of its best trials on the fresh seeds.

    Attributes:
        study: the study.
        number: number of the trial; for a fresh slot the index among the candidates.
        fresh: whether the slot runs on the fresh seeds.
        best: number of best trials among the candidates.
        until: time in seconds since the epoch (``time.time``) after which the slot is not started.
    """

    study: Study
    number: int
    fresh: bool = False
    best: int = 0
    until: float | None = None

    @property
    def key(self) -> str:
        """The key of the slot's job."""
        if not self.fresh:
            return digest("trial", self.study.key, self.number)
        cell_keys = [cell.predictions_key for cell in self.study.fresh]
        return digest("fresh", self.study.key, cell_keys, self.number, self.best)
