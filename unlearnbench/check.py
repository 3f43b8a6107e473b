"""The conformance suite: what every method keeps to, whatever it computes.

A property looks at one method on a small task. It passes, fails with a reason, or is skipped with a
reason where it cannot be asked. ``unlearnbench check`` runs them all, so does the test suite.
"""

import hashlib
import inspect
import io
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from unlearnbench import config, observation, ops, pipeline
from unlearnbench.cell import Cell, Option, target
from unlearnbench.core.errors import Skip
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.observation import Net, Observation, equal, state
from unlearnbench.seeding import generator, seeded
from unlearnbench.split import split_of
from unlearnbench.values import Dataset, Split, Task
from unlearnbench.words import ConfigError

MODELS = ("logreg", "mlp", "resnet18")
"""What a method must run on beside the ``cnn`` that all other properties look at."""

PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"

Property = Callable[["Subject"], str | None]
"""Raises Broken where a method fails it, Skip where it cannot be asked.

What it returns is printed beside PASS: what of it could not be asked.
"""

NOISE = 1e-6
"""Relative change of weights that sums in another order can make in float32."""

EFFECT = 1e-4
"""Relative change of weights or of buffers from which a hyper-parameter has an effect."""


class Broken(Exception):
    """A method breaks a property; what it says is the reason. No ``assert``: -O takes those out."""


def require(holds: object, message: str) -> None:
    """Fail the property unless it holds.

    Raises:
        Broken: it does not.
    """
    if not holds:
        raise Broken(message)


@dataclass(frozen=True)
class Verdict:
    """What became of one property of one method."""

    method: str
    asked: str
    result: str
    reason: str = ""


@dataclass(frozen=True)
class _Run:
    """What a run was given, as it left it, and what it returned."""

    net: nn.Module
    start: nn.Module
    data: Dataset
    task: Task
    prepared: dict[str, Tensor]
    arguments: Option


@dataclass(frozen=True)
class Watched:
    """A run of a method, and what it did beside its work.

    Attributes:
        net: what it returned.
        start: the net that it was given.
        said: what it printed.
        seen: nets, optimizers, draws, files and settings that it used.
        touched: what of its task it changed, in words.
    """

    net: nn.Module
    start: nn.Module
    said: str
    seen: Observation
    touched: list[str]


class Subject:
    """A method on a small task of scikit-learn's digits.

    Args:
        cell: whose method, model and training.
        data: the data set.
        parts: which rows do what.
        words: the overrides that make the small task.
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
        """What the method makes of the original, with other settings or other data if given.

        Args:
            call: settings by their dotted names; those of ``prepare`` begin with that word.
            data: the data set.
            around: names the seed of the global generator.
            seed: is added to the cell's.
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
        if seed and cell.method.get("prepare") is not None:  # it may watch how that was trained
            start = _trained(cell, self.data, self.parts.hide_forget())
        parts = Split(**{name: rows.clone() for name, rows in vars(self.parts).items()})
        with seeded(cell.model_seed, around):
            left = pipeline.left_by_prepare(cell, start, data, parts)
        prepared = {name: tensor.clone() for name, tensor in left.items()}
        todo = pipeline.task(cell, data, parts, self.notes, prepared=left)
        method, arguments = target(deepcopy(cell.method["call"]))
        if cell.from_scratch:
            start = pipeline.fresh(cell, data)
        with seeded(cell.model_seed, around), seen.watching() if seen else nullcontext():
            net = method(start, todo, **arguments)
        require(isinstance(net, nn.Module), f"it returns {type(net).__name__}, not a module")
        return _Run(net, start, data, todo, prepared, arguments)

    @cached_property
    def watched(self) -> Watched:
        """The first run, of which several properties each look at another side."""
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
        """What the method makes of the original."""
        return self.watched.net

    @cached_property
    def again(self) -> nn.Module:
        """What a second run makes of it, at which nothing looks."""
        return self.run()

    @cached_property
    def of_next_seed(self) -> nn.Module:
        """What the method makes of the same original with the next seed."""
        return self.run(seed=1)

    @cached_property
    def grouped(self) -> "Subject":
        """The method on the same rows, but on a net without batch norm: rows do not meet in it."""
        return _small(*self.words, "model.call.norm=group", **_SIZES).under(self.cell.method)

    @cached_property
    def exchanged(self) -> "Subject":
        """The same original and retain rows, and other rows, as many, to be forgotten.

        Rows of the same classes where a class is forgotten, else of any: rows that are in no part.
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
        if self.cell.method.get("prepare") is None:  # which may watch how the original was trained
            other.original = self.original
        return other

    def under(self, option: Option) -> "Subject":
        """Another method on the same original and the same rows."""
        other = Subject(replace(self.cell, method=option), self.data, self.parts, self.words)
        other.original = self.original
        return other

    @property
    def settings(self) -> dict[str, Any]:
        """Every hyper-parameter by its dotted name, ``prepare``'s among them."""
        own = dict(config.leaves(self.cell.method["call"]))
        before = dict(config.leaves(self.cell.method.get("prepare") or {}))
        named = {**own, **{f"prepare.{name}": value for name, value in before.items()}}
        return {name: value for name, value in named.items() if not name.endswith("_target_")}


def _touched(subject: Subject, run: _Run) -> list[str]:
    """What of its task a run changed, in words."""
    parts, task = subject.parts, run.task
    _, arguments = target(subject.cell.method["call"])
    same = {
        "inputs": torch.equal(run.data.x, subject.data.x),
        "labels": torch.equal(run.data.y, subject.data.y),
        "settings": run.arguments == arguments,
    }
    for name in ("retain", "forget", "val", "train"):
        rows, part = getattr(parts, name), getattr(task, name)
        same[f"task.{name}"] = torch.equal(part.rows, rows) and torch.equal(
            part.y, subject.data.y[rows]
        )
    same["task.prepared"] = equal(run.prepared, task.prepared)
    return [f"{name} changed" for name, holds in same.items() if not holds]


def _with(method: Option, settings: Option) -> Option:
    """A method's option with some settings changed, each by its dotted name."""
    changed = deepcopy(dict(method))
    for name, value in settings.items():
        *path, last = name.split(".") if name.startswith("prepare.") else ["call", *name.split(".")]
        node: Any = changed
        for part in path:
            node = node[part]
        node[last] = value
    return changed


def _copy(data: Dataset) -> Dataset:
    return replace(data, x=data.x.clone(), y=data.y.clone())


def _trained(cell: Cell, data: Dataset, parts: Split) -> nn.Module:
    todo = pipeline.task(cell, data, parts)
    with seeded(cell.model_seed, "global"):
        return todo.fit(pipeline.fresh(cell, data), todo.train)


@cache
def _small(*words: str, retain: int, forget: int, val: int) -> Subject:
    """So many rows of each part, their original trained once for all methods."""
    (cell,) = config.cells([["attack=none", "method=retrain", *words]])
    data = pipeline.dataset(cell)
    parts = split_of(cell, data)
    gone = parts.forget[:forget]
    few = torch.cat([parts.retain[:retain], gone])
    return Subject(cell, data, replace(parts, train=few, forget=gone, val=parts.val[:val]), words)


_SIZES = {"retain": 256, "forget": 80, "val": 64}


def subject(option: Option) -> Subject:
    """A method on the first of some small tasks that it can work on.

    That is one where it does not note that it acts on no parameter, if there is such a task.

    Raises:
        Skip: it can work on none.
    """
    idle: Subject | None = None
    reason = Skip("there is no task")
    for words in ((), ("forget=by_class",), ("model=resnet18",)):
        found = _small("train.call.epochs=2", *words, **_SIZES).under(option)
        try:
            _ = found.result
        except Skip as error:
            reason = error
        else:
            if found.notes.get("acted_on") != 0:
                return found
            idle = idle or found
    if idle is not None:
        return idle
    raise reason


# ---------------------------------------------------------------------------------------------
# The properties. The first line of a docstring is what the command prints.


def _yaml(subject: Subject) -> None:
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


def _space(subject: Subject) -> None:
    """Every hyper-parameter has a search range."""
    if "space" not in subject.cell.method:
        raise Skip("no YAML")
    apart = set(subject.cell.method["space"]) ^ set(subject.settings)
    require(not apart, f"space and call differ in {sorted(apart)}")


def _same_bits(subject: Subject) -> None:
    """Running it twice gives the same bits."""
    require(_same(subject.again, subject.result), "two runs of one seed differ")


def _process(subject: Subject) -> None:
    """Another process with another hash seed gives the same bits."""
    expected = [_digest(net) for net in (subject.of_next_seed, subject.result)]
    try:
        there = _elsewhere(os.getpid()).digests(deepcopy(dict(subject.cell.method)))
    except ValueError as error:
        raise Skip(f"another process cannot import it: {_told(error)}") from error
    where = "in another process (PYTHONHASHSEED=1), after a run with another seed,"
    require(there == expected, f"{where} the result differs")


def _seed(subject: Subject) -> None:
    """Another seed gives another result."""
    if _same(subject.of_next_seed, subject.result):
        if not subject.watched.seen.draws:
            raise Skip("it draws nothing")
        told = "another seed gives the same bits: take draws from task.generator(…), and the order"
        raise Broken(f"{told} of rows from the task's batches")


def _finite(subject: Subject) -> None:
    """All weights are finite."""
    state = subject.result.state_dict()
    broken = [k for k, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    require(not broken, f"{' and '.join(broken[:1])} is not")


def _mode(subject: Subject) -> None:
    """The model comes back in eval mode, with gradients enabled."""
    for name, module in subject.result.named_modules():
        require(not module.training, f"{name or 'the model'} is in train mode: return model.eval()")
    for name, parameter in subject.result.named_parameters():
        require(
            parameter.requires_grad,
            f"{name} is left frozen: call requires_grad_(True) before the model is returned",
        )


def _hooks(subject: Subject) -> None:
    """The model comes back without hooks, parametrizations or functions put in its way."""
    before = {name: type(module) for name, module in subject.original.named_modules()}
    of_original = {name: _attached(module) for name, module in subject.original.named_modules()}
    for name, module in subject.result.named_modules():
        here = name or "the model"
        new = sorted(_attached(module) - of_original.get(name, set()))
        require(not new, f"{here} is left with {' and '.join(new)}: remove it before returning")
        if _shapes(subject.original) == _shapes(subject.result):
            kind = before.get(name)
            require(kind is type(module), f"{here} is a {type(module).__name__} now")
    for name, parameter in subject.result.named_parameters():
        hooks = parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
        require(not hooks, f"{name} is left with a gradient hook: remove it before returning")


def _attached(module: nn.Module) -> set[str]:
    """What was put on a module: hooks of every kind, and functions in place of its own."""
    hooks = {
        name
        for name, value in vars(module).items()
        if name.endswith(("_hooks", "_pre_hooks")) and value
    }
    functions = {
        name
        for name, value in vars(module).items()
        if callable(value) and hasattr(type(module), name)
    }
    return hooks | functions | ({"parametrizations"} & set(module._modules))


def _loaded(subject: Subject) -> None:
    """Saved and loaded into a fresh net, it has the same outputs."""
    net, cell, data = subject.result, subject.cell, subject.data
    members = len(net.members) if isinstance(net, Ensemble) else 0
    fresh = partial(pipeline.fresh, cell, data)
    other = Ensemble(fresh() for _ in range(members)) if members else fresh()
    stored = {name: tensor.contiguous() for name, tensor in state(net).items()}
    try:
        other.load_state_dict(load(save(stored)))
    except (RuntimeError, KeyError) as error:
        raise Broken(
            f"its state does not fit model={cell.model['name']}: {_told(error)}"
        ) from error
    x = data.inputs(subject.parts.retain)
    with torch.no_grad():
        before, after = net.eval()(x), other.eval()(x)
    apart = float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))
    told = f"outputs differ by {apart:.2g} of the largest: something that acts is not in the state"
    require(apart <= 1e-5, told)


def _changed(subject: Subject) -> None:
    """Weights changed, not only buffers."""
    scratch = subject.cell.from_scratch
    start = pipeline.fresh(subject.cell, subject.data) if scratch else subject.original
    if _shapes(start) != _shapes(subject.result):
        return
    require(not _same(start, subject.result), "the model is as it was")
    before, after = dict(start.named_parameters()), dict(subject.result.named_parameters())
    told = "only buffers changed; all parameters are as they were"
    require(not equal(before, after), told)


def _architecture(subject: Subject) -> None:
    """The architecture is kept, and the dtype of each parameter and buffer."""
    if subject.cell.traits.get("ensemble"):
        raise Skip("an ensemble by design")
    before, after = (_tensors(net) for net in (subject.original, subject.result))
    names = [name for name in (*before, *after) if before.get(name) != after.get(name)]
    if names:
        was, now = (of.get(names[0], "missing") for of in (before, after))
        raise Broken(f"its state has other tensors: {names[0]} was {was} and is {now}")


def _tensors(net: nn.Module) -> dict[str, str]:
    """Of each tensor of a net's state what it is, its dtype and its shape."""
    parameters = dict(net.named_parameters())
    return {
        name: f"{'a parameter' if name in parameters else 'a buffer'}, {t.dtype}, {tuple(t.shape)}"
        for name, t in net.state_dict().items()
    }


def _task_alone(subject: Subject) -> None:
    """The data and the task are left as they were."""
    touched = subject.watched.touched
    require(not touched, ", ".join(touched))


def _process_alone(subject: Subject) -> None:
    """It opens no files, starts no processes and leaves global settings as they were."""
    seen = subject.watched.seen
    told = sorted({*seen.outside, *seen.left})
    require(not told, f"it {told[0]}" if seen.outside else ", ".join(told))


def _global_randomness(subject: Subject) -> None:
    """Every draw is from the task's generators, none from the global one."""
    net = subject.run(around="another")
    require(_same(net, subject.result), "another seed of the global generator, another result")


def _silence(subject: Subject) -> None:
    """It prints nothing."""
    said = subject.watched.said
    require(not said, f"it said {said[:40]!r}")


def _unseen_rows(subject: Subject) -> None:
    """Validation and test rows have no say; validation rows may, with the trait `uses_val`."""
    require(
        not subject.watched.seen.saw_test,
        "a row that it must not see went through a net, from outside its task",
    )
    parts, seen = subject.parts, [subject.parts.train]
    seen += [parts.val] if subject.cell.traits.get("uses_val") else []
    hidden = torch.ones(len(subject.data.y), dtype=torch.bool)
    hidden[torch.cat(seen)] = False
    x, y = subject.data.x.clone(), subject.data.y.clone()
    x[hidden], y[hidden] = 255 - x[hidden], (y[hidden] + 1) % subject.data.n_classes
    net = subject.run(data=replace(subject.data, x=x, y=y))
    require(_same(net, subject.result), "other unseen rows give another result")


def _teachers(subject: Subject) -> None:
    """Its teachers stay as they are and share no weight with the student."""
    others = _beside(subject.watched)
    if not others:
        raise Skip("it runs no net beside the one that it returns")
    student = _student(subject.watched)
    own = _storages(student)
    for net in others:
        shared = own & _storages(net.module)
        copied = _shapes(net.module) == _shapes(student) or own <= shared
        told = "a teacher shares weights with the student: copy it with deepcopy or ops.frozen"
        require(not (shared and copied), told)
        require(not _moved_teacher(net, subject.watched), "a teacher changed while it taught")


def _beside(watched: Watched) -> list[Net]:
    """The nets that ran, or were made with ``ops.frozen``, and are no part of the student."""
    own = {id(module) for module in _student(watched).modules()}
    own |= {id(module) for module in watched.net.modules()}
    return [net for net in watched.seen.nets.values() if id(net.module) not in own]


def _student(watched: Watched) -> nn.Module:
    """The net that was trained: that which is returned, or the one that was given."""
    for net in (watched.net, watched.start):
        parts = {id(module) for module in net.modules()}
        if any(key in parts and ran.learnt for key, ran in watched.seen.nets.items()):
            return net
    return watched.net


def _moved_teacher(net: Net, watched: Watched) -> bool:
    """Whether a net changed from its first word to the student on, or only its buffers did."""
    now = state(net.module)
    frozen = not any(p.requires_grad for p in net.module.parameters())
    if frozen or net.advice is None:
        weights = dict(net.module.named_parameters())
        first = {name: net.first[name] for name in weights if name in net.first}
        still = {name: weights[name].detach() for name in first}
        trained = not frozen and not equal(first, still)
        return not trained and not equal(net.first, now)
    assert net.advised is not None
    first_word, last_word = net.advised
    student = {id(module) for module in _student(watched).modules()}
    meanwhile = (
        run
        for key, ran in watched.seen.nets.items()
        if key in student
        for run in ran.learnt
        if first_word < run < last_word
    )
    return any(True for _ in meanwhile) and not equal(net.advice, now)


def _storages(net: nn.Module) -> set[int]:
    tensors = [*net.parameters(), *net.buffers()]
    return {t.untyped_storage().data_ptr() for t in tensors if t.numel()}


def _optimizers(subject: Subject) -> None:
    """Each optimizer holds the weights that its gradients are of, and no teacher's."""
    watched = subject.watched
    if not watched.seen.steps:
        raise Skip("it uses no optimizer of torch's")
    student = _student(watched)
    twins = [net for net in _beside(watched) if _shapes(net.module) == _shapes(student)]
    own = {id(p) for p in student.parameters()}
    learners = {id(module) for module in student.modules()}
    for steps in watched.seen.steps.values():
        held = {id(p) for p in steps.held}
        require(steps.moved, "an optimizer steps and none of its weights ever has a gradient")
        for net in twins:
            if not held & {id(p) for p in net.module.parameters()}:
                continue
            require(not held & own, "one optimizer holds the student's and a teacher's weights")
            told = "an optimizer holds a teacher's weights, and the gradients are the student's"
            require(not steps.reached & learners, told)


def _forget_rows(subject: Subject) -> None:
    """The forget rows matter: other rows in their place, another result."""
    here = subject.grouped
    other = here.exchanged
    moved = _moved(here.result, other.result)
    if subject.cell.traits.get("ignores_forget"):
        told = "it declares the trait ignores_forget, and other forget rows give another result"
        require(_same(here.result, other.result), told)
        raise Skip("it declares the trait ignores_forget, and its result depends on none")
    seen = here.watched.seen
    if moved <= NOISE and not seen.saw_forget:
        raise Skip("it looks at no forget row; the trait ignores_forget says so in its YAML")
    told = "it looks at the forget rows, and others in their place change nothing"
    require(moved > NOISE, told)
    steps = seen.last_step, other.watched.seen.last_step
    if seen.learnt_forget and seen.steps and len(steps[0]) == len(steps[1]):
        apart = _apart(*steps)
        told = "forget rows go through its loss, and others in their place change no step of it"
        require(apart > NOISE, told)


def _settings(subject: Subject) -> str | None:
    """Every hyper-parameter changes the result."""
    silent = []
    for name, value in subject.settings.items():
        effects, refused = {}, ""
        for other in _others(value, (subject.cell.method.get("space") or {}).get(name)):
            try:
                effects[str(other)] = _moved(subject.run({name: other}), subject.result)
            except (ValueError, TypeError, KeyError) as error:
                refused = _told(error)
                continue
            if effects[str(other)] > EFFECT:
                break
        else:
            if not effects:
                silent.append(f"{name}={value} ({refused or 'no other value is declared'})")
                continue
            most, tried = max(effects.values()), " and ".join(effects)
            told = f"by a share of {most:.1g} of the weights, less than {EFFECT:g}"
            raise Broken(f"{name}={value} gives what {tried} gives: they differ {told}")
    if silent and len(silent) == len(subject.settings):
        raise Skip(f"no other value to try: {', '.join(silent)}")
    return f"not tried: {', '.join(silent)}" if silent else None


def _others(value: Any, declared: Option | None = None) -> list[Any]:
    """Other values of a setting to try: of its declared choices, and near it."""
    choices = [other for other in (declared or {}).get("choices", ()) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [max(1, value // 2) if value > 1 else value + 1, 2, value + 1]
    if isinstance(value, float):
        return [value / 2, value * 2, 0.5] if value else [0.01, 0.5]
    if isinstance(value, Sequence) and not isinstance(value, str):
        elements = list(value)
        altered = [
            [*elements[:place], other, *elements[place + 1 :]]
            for place, element in enumerate(elements)
            for other in _others(element)[:1]
        ]
        lists = [*choices, *altered, elements[:-1], elements[::-1]]
        return [other for other in lists if list(other) != elements]
    return [*choices, *([1, 0.5] if value is None else [])]


LESS_SURE = 1 / 1000
"""Of what retraining takes from the mean confidence in the memorised labels: a method takes more.

Of the methods that come nearest (``cf_k``, ``gradient_ascent``, ``influence_as_run``) it is .0025
at least over AVX-512, AVX2, SSE4.1 and seeds 0 to 2; of noise of 1e-7, below .000005. Measured by
``make margins``.
"""


def _forgets(subject: Subject) -> None:
    """What the model memorised of the forget rows is less sure, as it is after retraining."""
    before, after, target = memorised(subject)
    if subject.cell.traits.get("uses_val") and after == before:
        raise Skip("by its validation rows it chose the original among its epochs")
    figures = f"{before:.3f} before, {after:.3f} after, {target:.3f} retrained"
    require(
        before - after >= LESS_SURE * (before - target),
        f"mean confidence in the labels is {figures}",
    )


def memorised(subject: Subject, seed: int = 0) -> tuple[float, float, float]:
    """Mean confidence in memorised labels of the original, after the method, and retrained."""
    names = subject.cell.names
    reference = _memorised(names["model"], names["forget"], seed)
    nets = reference.original, reference.under(subject.cell.method).result, reference.result
    before, after, target = (_confidence(reference, net) for net in nets)
    return before, after, target


@cache
def _memorised(model: str, forget: str, seed: int) -> Subject:
    """Forget rows under wrong labels, which a model can only know by heart; or a whole class."""
    # After all 30 epochs it is so sure that a careful method does not move it.
    words = f"model={model}", f"forget={forget}", f"seed={seed}", "train.call.epochs=15"
    (cell,) = config.cells([["attack=none", "method=retrain", *words]])
    data = pipeline.dataset(cell)
    parts = split_of(cell, data)
    y, rows = data.y.clone(), parts.forget
    if forget == "random":
        off = torch.randint(1, data.n_classes, (len(rows),), generator=generator(0, "wrong labels"))
        y[rows] = (y[rows] + off) % data.n_classes
    return Subject(cell, replace(data, y=y), parts)


@torch.no_grad()
def _confidence(subject: Subject, net: nn.Module) -> float:
    """Mean posterior of the forget rows' labels."""
    forget = pipeline.task(subject.cell, subject.data, subject.parts).forget
    sums = [net(x).softmax(1).gather(1, y[:, None]).sum() for x, y in forget.ordered()]
    return float(sum(sums)) / len(forget.rows)


def runs_on(model: str, subject: Subject) -> None:
    """It runs on two small batches through a model, and what comes out is finite."""
    few = {"retain": 32, "forget": 17, "val": 16}  # batches of 16: the last forget row is alone
    words = f"model={model}", f"forget={subject.cell.forget['name']}"
    net = _small(*words, *_SHORT, **few).under(_brief(subject)).run()
    broken = [k for k, t in net.state_dict().items() if t.is_floating_point() and t.isnan().any()]
    require(not broken, f"{' and '.join(broken[:1])} is not finite")


def _regression(subject: Subject) -> None:
    """It runs on a regression."""
    words = "dataset=diabetes", "model=mlp"
    _small(*words, *_SHORT, retain=64, forget=17, val=16).under(_brief(subject)).run()


_SHORT = ("train.call.epochs=1", "train.call.batch_size=16")


def _brief(subject: Subject) -> Option:
    """The method with settings that make a run of two batches."""
    few = {"epochs": 1, "msteps": 1, "batch_size": 16, "rows": 32, "iterations": 3}
    short = {
        name: type(value)(most)
        for name, value in subject.settings.items()
        for word, most in few.items()
        if isinstance(value, int | float)
        if re.search(rf"(^|[._]){word}($|[.])", name)
    }
    return _with(subject.cell.method, short)


def _same(one: nn.Module, other: nn.Module) -> bool:
    return equal(one.state_dict(), other.state_dict())


def _moved(one: nn.Module, other: nn.Module) -> float:
    """How far two nets are apart: of parameters or of buffers, whichever are farther."""
    if _shapes(one) != _shapes(other):
        return float("inf")
    kinds = (nn.Module.parameters, nn.Module.buffers)
    return max(_apart(of(one), of(other)) for of in kinds)


@torch.no_grad()
def _apart(ones: Iterable[Tensor], others: Iterable[Tensor]) -> float:
    """‖a − b‖ / ‖a‖ over all floating-point tensors; counts of batches say nothing."""
    pairs = [(a, b) for a, b in zip(ones, others, strict=True) if a.is_floating_point()]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    size = sum(float(a.double().square().sum()) for a, _ in pairs)
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return (apart / size) ** 0.5 if size else float(apart > 0)


def _digest(net: nn.Module) -> str:
    """SHA-256 of a net's state: names, dtypes and bits."""
    stored = {name: tensor.contiguous() for name, tensor in state(net).items()}
    return hashlib.sha256(save(stored)).hexdigest()


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


# ---------------------------------------------------------------------------------------------
# Another process: one for all methods, for it takes seconds to import torch.


class _Elsewhere:
    """A process of its own, in which strings and sets have other hashes; it ends with this one."""

    def __init__(self) -> None:
        path = os.pathsep.join(word for word in sys.path if word)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from unlearnbench.check import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": path},
        )

    def digests(self, option: Option) -> list[str]:
        """What a method makes there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((option, torch.get_num_threads()), self.process.stdin)
        self.process.stdin.flush()
        answer = pickle.load(self.process.stdout)
        if isinstance(answer, Exception):
            raise answer
        made: list[str] = answer
        return made


@cache
def _elsewhere(process: int) -> _Elsewhere:
    """The other process of the process of this number; a forked one does not share it."""
    return _Elsewhere()


def serve() -> None:
    """Answer the questions of the process that started this one, until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a method prints is no answer
    while True:
        try:
            option, threads = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        torch.set_num_threads(threads)
        answer: list[str] | Exception
        try:
            answer = _digests(option)
        except Skip as error:
            answer = Skip(str(error))
        except ValueError as error:
            answer = ValueError(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it raises is the verdict
            answer = RuntimeError(_told(error))
        pickle.dump(answer, answers)
        answers.flush()


def _digests(option: Option) -> list[str]:
    """What a method makes here: with the next seed first, then with its own."""
    for words in ((), ("forget=by_class",), ("model=resnet18",)):
        found = _small("train.call.epochs=2", *words, **_SIZES).under(option)
        try:
            with redirect_stdout(io.StringIO()):
                return [_digest(found.run(seed=1)), _digest(found.run())]
        except Skip as error:
            reason = error
    raise reason


PROPERTIES: tuple[Property, ...] = (
    _yaml,
    _space,
    _same_bits,
    _process,
    _seed,
    _finite,
    _mode,
    _hooks,
    _loaded,
    _changed,
    _architecture,
    _task_alone,
    _process_alone,
    _global_randomness,
    _silence,
    _unseen_rows,
    _teachers,
    _optimizers,
    _forget_rows,
    _settings,
    _forgets,
    _regression,
)


def properties(models: Sequence[str] = MODELS) -> dict[str, Property]:
    """What is asked of a method, by what it says."""
    asked = {str(ask.__doc__).split("\n")[0].rstrip("."): ask for ask in PROPERTIES}
    on = {f"It runs on model={model}": partial(runs_on, model) for model in models}
    return {**asked, **on}


# ---------------------------------------------------------------------------------------------
# The command.


def examined(option: Option, models: Sequence[str] = MODELS) -> list[Verdict]:
    """All properties of one method."""
    torch.set_num_threads(1)
    with redirect_stdout(io.StringIO()):  # what a method prints is a property of its own
        return _examined(option, models)


def _examined(option: Option, models: Sequence[str]) -> list[Verdict]:
    asked, name = properties(models), option["name"]
    if option["call"] is None:
        return [Verdict(name, "It runs", SKIP, "it calls nothing")]
    try:
        found = subject(option)
    except Skip as error:
        return [Verdict(name, what, SKIP, str(error)) for what in asked]
    except Exception as error:  # noqa: BLE001 - whatever it raises is the verdict
        return [Verdict(name, "It runs", FAIL, _told(error))]
    return [verdict(found, what, models) for what in asked]


def verdict(subject: Subject, what: str, models: Sequence[str] = MODELS) -> Verdict:
    """One property of a method, by what it says."""
    name = subject.cell.method["name"]
    try:
        note = properties(models)[what](subject)
    except Skip as error:
        return Verdict(name, what, SKIP, str(error))
    except Broken as error:
        return Verdict(name, what, FAIL, str(error))
    except Exception as error:  # noqa: BLE001 - as above
        return Verdict(name, what, FAIL, _told(error))
    return Verdict(name, what, PASS, note or "")


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def check(words: Sequence[str]) -> Iterator[list[Verdict]]:
    """Examine the methods that overrides ask for, on all cores; one list a method, as they come.

    Args:
        words: as on the command line: ``method=scrub``, ``method=glob(*)``, or the dotted path of a
            function with its settings, ``method=their.module.function method.call.epochs=3``;
            ``model=`` for other models than ``MODELS``.

    Raises:
        ConfigError: an option is unknown, or a setting is missing.
    """
    models = [word.removeprefix("model=") for word in words if word.startswith("model=")]
    asked = [name for word in models for name in word.split(",")] or list(MODELS)
    options = _options([word for word in words if not word.startswith("model=")])
    workers = min(len(options), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        yield from pool.map(partial(examined, models=asked), options)


def _options(words: Sequence[str]) -> list[Option]:
    chosen = next((word for word in words if word.startswith("method=")), "method=glob(*)")
    path = chosen.removeprefix("method=")
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", path):
        return [_given(path, [word for word in words if word != chosen])]
    grid = config.expand([chosen, *(word for word in words if word != chosen)])
    return [cell.method for cell in config.cells(grid)]


def _given(path: str, words: Sequence[str]) -> Option:
    """The option of a function without a YAML, from the settings on the command line."""
    function, _ = target({"_target_": path})
    settings = config.below(words, "method.call")
    needed = [
        name
        for name, parameter in list(inspect.signature(function).parameters.items())[2:]
        if parameter.default is parameter.empty
    ]
    missing = [f"method.call.{name}=…" for name in needed if name not in settings]
    if missing:
        raise ConfigError(f"method={path} needs {' '.join(missing)}")
    return {"name": path, "version": 0, "call": {"_target_": path, **settings}}
