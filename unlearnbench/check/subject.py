"""Subjects of the checks: small data, trained nets, and observed runs of a method."""

import hashlib
import inspect
import io
import re
from collections.abc import Iterable
from contextlib import nullcontext, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save
from torch import Tensor, nn

from unlearnbench.check import observation
from unlearnbench.check.observation import Observation, equal, state
from unlearnbench.config import compose, overrides
from unlearnbench.core.cell import Cell, Option, target
from unlearnbench.core.data import Dataset, Split
from unlearnbench.core.errors import Skip
from unlearnbench.core.seeding import generator, seeded
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.pipeline import inputs, models
from unlearnbench.pipeline.split import split_of

PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"


class Broken(Exception):
    """A method breaks a property, with the reason as message. Unlike ``assert``, -O keeps it."""


def require(holds: object, message: str) -> None:
    """Raise Broken unless the condition holds.

    Raises:
        Broken: the condition is false.
    """
    if not holds:
        raise Broken(message)


@dataclass(frozen=True)
class _Run:
    """Inputs of a run after the run, and the net that it returned."""

    net: nn.Module
    start: nn.Module
    data: Dataset
    task: Task
    prepared: dict[str, Tensor]
    arguments: Option


@dataclass(frozen=True)
class Watched:
    """A run of a method, and its side effects.

    Attributes:
        net: the returned net.
        start: the net passed to the method.
        said: the printed text.
        seen: nets, optimizers, draws, files and settings that the method used.
        touched: messages about changes of its task.
    """

    net: nn.Module
    start: nn.Module
    said: str
    seen: Observation
    touched: list[str]


class Subject:
    """A method on a small task of scikit-learn's digits.

    Args:
        cell: the cell with method, model and training.
        data: the data set.
        parts: the split of its rows.
        words: the overrides of the small task.
    """

    def __init__(
        self, cell: Cell, data: Dataset, parts: Split, words: tuple[str, ...] = ()
    ) -> None:
        self.cell, self.data, self.parts, self.words = cell, data, parts, words
        self.notes: dict[str, float] = {}

    @cached_property
    def original(self) -> nn.Module:
        """The original, trained on retain and forget rows."""
        return _trained(self.cell, self.data, self.parts.hide_forget())

    def run(
        self,
        call: Option | None = None,
        data: Dataset | None = None,
        around: str = "global",
        seed: int = 0,
    ) -> nn.Module:
        """Run the method on the original, with other settings or other data if given.

        Args:
            call: settings by their dotted names; those of ``prepare`` start with ``prepare.``.
            data: the data set.
            around: name of the seed of the global generator.
            seed: number added to the seed of the cell.
        """
        before = observation.settings()
        try:
            return self._run(call or {}, data or _copy(self.data), around, seed).net
        finally:
            observation.restore(before)

    def _run(
        self,
        call: Option,
        data: Dataset,
        around: str = "global",
        seed: int = 0,
        seen: Observation | None = None,
    ) -> "_Run":
        cell = replace(self.cell, method=_with(self.cell.method, call), seed=self.cell.seed + seed)
        start = deepcopy(self.original)
        if seed and cell.method.get("prepare") is not None:  # prepare may observe this training
            start = _trained(cell, self.data, self.parts.hide_forget())
        parts = Split(**{name: rows.clone() for name, rows in vars(self.parts).items()})
        with seeded(cell.model_seed, around):
            prepared_state = models.left_by_prepare(cell, start, data, parts)
        prepared = {name: tensor.clone() for name, tensor in prepared_state.items()}
        task = inputs.task(cell, data, parts, self.notes, prepared=prepared_state)
        method, arguments = target(deepcopy(cell.method["call"]))
        if cell.from_scratch:
            start = inputs.fresh(cell, data)
        with seeded(cell.model_seed, around), seen.watching() if seen else nullcontext():
            net = method(start, task, **arguments)
        require(isinstance(net, nn.Module), f"it returns {type(net).__name__}, not a module")
        return _Run(net, start, data, task, prepared, arguments)

    @cached_property
    def watched(self) -> Watched:
        """The first run, observed; shared by several properties."""
        uses_val = bool(self.cell.traits.get("uses_val"))
        hidden = self.parts.test if uses_val else torch.cat([self.parts.test, self.parts.val])
        said, data = io.StringIO(), _copy(self.data)
        seen = Observation(self.data, hidden, self.parts.forget)
        make = seen.made(ops.frozen)
        with patch.object(ops, "frozen", make), redirect_stdout(said):
            run = self._run({}, data, seen=seen)
        return Watched(run.net, run.start, said.getvalue(), seen, _touched(self, run))

    @property
    def result(self) -> nn.Module:
        """The net that the method returns for the original."""
        return self.watched.net

    @cached_property
    def again(self) -> nn.Module:
        """The net of a second run, which is not observed."""
        return self.run()

    @cached_property
    def of_next_seed(self) -> nn.Module:
        """The net that the method returns for the same original with the next seed."""
        return self.run(seed=1)

    @cached_property
    def grouped(self) -> "Subject":
        """The method on the same rows and a net without batch norm: its rows are independent."""
        return small(*self.words, "model.call.norm=group", **SIZES).under(self.cell.method)

    @cached_property
    def exchanged(self) -> "Subject":
        """The same original and retain rows, with as many other forget rows.

        The other rows are outside the split, of the same classes if whole classes are forgotten.
        """
        parts, y = self.parts, self.data.y
        used = torch.cat([parts.train, parts.val, parts.test])
        free = ~torch.isin(torch.arange(len(y)), used)
        if not torch.isin(y[parts.retain], y[parts.forget]).any():
            free &= torch.isin(y, y[parts.forget])
        others = free.nonzero().flatten()[: len(parts.forget)]
        forget = torch.cat([others, parts.forget[len(others) :]])
        train = torch.cat([parts.retain, forget])
        other = Subject(self.cell, self.data, replace(parts, train=train, forget=forget))
        if (
            self.cell.method.get("prepare") is None
        ):  # prepare may observe the training of the original
            other.original = self.original
        return other

    def under(self, option: Option) -> "Subject":
        """Another method on the same original and the same rows."""
        other = Subject(replace(self.cell, method=option), self.data, self.parts, self.words)
        other.original = self.original
        return other

    @property
    def settings(self) -> dict[str, Any]:
        """All hyper-parameters by dotted name, including those of ``prepare``."""
        own = dict(overrides.leaves(self.cell.method["call"]))
        before = dict(overrides.leaves(self.cell.method.get("prepare") or {}))
        named = {**own, **{f"prepare.{name}": value for name, value in before.items()}}
        return {name: value for name, value in named.items() if not name.endswith("_target_")}


def _touched(subject: Subject, run: _Run) -> list[str]:
    """Return messages about the changes that a run made to its task."""
    parts, task = subject.parts, run.task
    _, arguments = target(subject.cell.method["call"])
    same = {
        "inputs": torch.equal(run.data.x, subject.data.x),
        "labels": torch.equal(run.data.y, subject.data.y),
        "settings": run.arguments == arguments,
    }
    for name in ("retain", "forget", "val", "train"):
        rows, batches = getattr(parts, name), getattr(task, name)
        same[f"task.{name}"] = torch.equal(batches.rows, rows) and torch.equal(
            batches.y, subject.data.y[rows]
        )
    same["task.prepared"] = equal(run.prepared, task.prepared)
    return [f"{name} changed" for name, holds in same.items() if not holds]


def _with(method: Option, settings: Option) -> Option:
    """Return the option of a method with some settings replaced, each by its dotted name."""
    changed = deepcopy(dict(method))
    for name, value in settings.items():
        *path, last = name.split(".") if name.startswith("prepare.") else ["call", *name.split(".")]
        node: Any = changed
        for key in path:
            node = node[key]
        node[last] = value
    return changed


def _copy(data: Dataset) -> Dataset:
    return replace(data, x=data.x.clone(), y=data.y.clone())


def _trained(cell: Cell, data: Dataset, parts: Split) -> nn.Module:
    task = inputs.task(cell, data, parts)
    with seeded(cell.model_seed, "global"):
        return task.fit(inputs.fresh(cell, data), task.train)


@cache
def small(*arguments: str, retain: int, forget: int, val: int) -> Subject:
    """Return a subject with this many rows of each subset; its original is trained once."""
    (cell,) = compose.cells([["attack=none", "method=retrain", *arguments]])
    data = inputs.dataset(cell)
    parts = split_of(cell, data)
    forget_rows = parts.forget[:forget]
    few = torch.cat([parts.retain[:retain], forget_rows])
    return Subject(
        cell, data, replace(parts, train=few, forget=forget_rows, val=parts.val[:val]), arguments
    )


SIZES = {"retain": 256, "forget": 80, "val": 64}


def subject_of(option: Option) -> Subject:
    """Return the method on the first of some small tasks that it supports.

    Tasks on which the method notes that it acts on no parameter are used only if no other exists.

    Raises:
        Skip: the method supports none of the tasks.
    """
    idle: Subject | None = None
    reason = Skip("there is no task")
    for arguments in ((), ("forget=by_class",), ("model=resnet18",)):
        subject = small("train.call.epochs=2", *arguments, **SIZES).under(option)
        try:
            _ = subject.result
        except Skip as error:
            reason = error
        else:
            if subject.notes.get("acted_on") != 0:
                return subject
            idle = idle or subject
    if idle is not None:
        return idle
    raise reason


def yaml_of(subject: Subject) -> None:
    """The YAML's `call` is the function's signature, keyword-only and without defaults."""
    for step in ("call", "prepare"):
        if subject.cell.method.get(step) is None:
            continue
        function, arguments = target(subject.cell.method[step])
        parameters = list(inspect.signature(function).parameters.values())
        require(len(parameters) >= 2, f"{step}: it must take (model, task, *, …)")
        own = {p.name for p in parameters[2:]}
        require(own == set(arguments), f"{step}: they differ in {sorted(own ^ set(arguments))}")
        for p in parameters[2:]:
            require(p.kind is p.KEYWORD_ONLY, f"{step}: {p.name} is not keyword-only")
            require(p.default is p.empty, f"{step}: {p.name} has a default outside the YAML")


def space_of(subject: Subject) -> None:
    """Every hyper-parameter has a search range."""
    if "space" not in subject.cell.method:
        raise Skip("no YAML")
    apart = set(subject.cell.method["space"]) ^ set(subject.settings)
    require(not apart, f"space and call differ in {sorted(apart)}")


def memorised(subject: Subject, seed: int = 0) -> tuple[float, float, float]:
    """Mean confidence in memorised labels of the original, unlearned and retrained model."""
    names = subject.cell.names
    reference = _memorised(names["model"], names["forget"], seed)
    nets = reference.original, reference.under(subject.cell.method).result, reference.result
    before, after, target = (_confidence(reference, net) for net in nets)
    return before, after, target


@cache
def _memorised(model: str, forget: str, seed: int) -> Subject:
    """Subject whose forget rows have wrong labels, which a model can only memorise; or a class."""
    # After all 30 epochs the confidence is so high that a small unlearning step has no effect.
    arguments = f"model={model}", f"forget={forget}", f"seed={seed}", "train.call.epochs=15"
    (cell,) = compose.cells([["attack=none", "method=retrain", *arguments]])
    data = inputs.dataset(cell)
    parts = split_of(cell, data)
    y, rows = data.y.clone(), parts.forget
    if forget == "random":
        off = torch.randint(1, data.n_classes, (len(rows),), generator=generator(0, "wrong labels"))
        y[rows] = (y[rows] + off) % data.n_classes
    return Subject(cell, replace(data, y=y), parts)


@torch.no_grad()
def _confidence(subject: Subject, net: nn.Module) -> float:
    """Mean posterior of the labels of the forget rows."""
    forget = inputs.task(subject.cell, subject.data, subject.parts).forget
    sums = [net(x).softmax(1).gather(1, y[:, None]).sum() for x, y in forget.ordered()]
    return float(sum(sums)) / len(forget.rows)


SHORT = ("train.call.epochs=1", "train.call.batch_size=16")


def brief(subject: Subject) -> Option:
    """Return the method with settings for a run of two batches."""
    few = {"epochs": 1, "msteps": 1, "batch_size": 16, "rows": 32, "iterations": 3}
    short = {
        name: type(value)(most)
        for name, value in subject.settings.items()
        for word, most in few.items()
        if isinstance(value, int | float)
        if re.search(rf"(^|[._]){word}($|[.])", name)
    }
    return _with(subject.cell.method, short)


def same_bits(net: nn.Module, other: nn.Module) -> bool:
    """Return whether two nets have bitwise equal states."""
    return equal(net.state_dict(), other.state_dict())


def change_of(net: nn.Module, other: nn.Module) -> float:
    """Relative distance of two nets: the larger one of parameters and of buffers."""
    if shapes_of(net) != shapes_of(other):
        return float("inf")
    kinds = (nn.Module.parameters, nn.Module.buffers)
    return max(distance(of(net), of(other)) for of in kinds)


@torch.no_grad()
def distance(ones: Iterable[Tensor], others: Iterable[Tensor]) -> float:
    """‖a − b‖ / ‖a‖ over all floating-point tensors; integer counts of batches are ignored."""
    pairs = [(a, b) for a, b in zip(ones, others, strict=True) if a.is_floating_point()]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    size = sum(float(a.double().square().sum()) for a, _ in pairs)
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return (apart / size) ** 0.5 if size else float(apart > 0)


def digest_of(net: nn.Module) -> str:
    """SHA-256 of the state of a net: names, dtypes and bits."""
    stored = {name: tensor.contiguous() for name, tensor in state(net).items()}
    return hashlib.sha256(save(stored)).hexdigest()


def shapes_of(net: nn.Module) -> dict[str, torch.Size]:
    """Shapes of a net's state, by name."""
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def as_text(error: Exception) -> str:
    """Format an error as one line, with its type."""
    return " ".join(f"{type(error).__name__}: {error}".split())
