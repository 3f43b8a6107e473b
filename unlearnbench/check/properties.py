"""Properties that every method must have, each a function of a subject.

The first docstring line of a property is its description in the output.
"""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from unlearnbench.check.elsewhere import elsewhere
from unlearnbench.check.observation import Net, equal, state
from unlearnbench.check.subject import (
    SHORT,
    Broken,
    Subject,
    Watched,
    as_text,
    brief,
    change_of,
    digest_of,
    distance,
    memorised,
    require,
    same_bits,
    shapes_of,
    small,
    space_of,
    yaml_of,
)
from unlearnbench.core.cell import Option
from unlearnbench.core.errors import Skip
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.pipeline import inputs

MODELS = ("logreg", "mlp", "resnet18")
"""Models that a method must run on, in addition to the ``cnn`` of all other properties."""

Property = Callable[["Subject"], str | None]
"""Raises Broken if a method fails it, Skip if it cannot be checked.

The returned string is printed after PASS: the cases that could not be checked.
"""

NOISE = 1e-6
"""Relative change of float32 weights that another order of summation can cause."""

EFFECT = 1e-4
"""Smallest relative change of weights or buffers that counts as an effect of a hyper-parameter."""


@dataclass(frozen=True)
class Verdict:
    """Result of one property of one method."""

    method: str
    asked: str
    result: str
    reason: str = ""


def _same_bits(subject: Subject) -> None:
    """Running it twice gives the same bits."""
    require(same_bits(subject.again, subject.result), "two runs of one seed differ")


def _process(subject: Subject) -> None:
    """Another process with another hash seed gives the same bits."""
    expected = [digest_of(net) for net in (subject.of_next_seed, subject.result)]
    try:
        digests = elsewhere(os.getpid()).digests(deepcopy(dict(subject.cell.method)))
    except ValueError as error:
        raise Skip(f"another process cannot import it: {as_text(error)}") from error
    where = "in another process (PYTHONHASHSEED=1), after a run with another seed,"
    require(digests == expected, f"{where} the result differs")


def _seed(subject: Subject) -> None:
    """Another seed gives another result."""
    if same_bits(subject.of_next_seed, subject.result):
        if not subject.watched.seen.draws:
            raise Skip("it draws nothing")
        reason = (
            "another seed gives the same bits: take draws from task.generator(…), and the order"
        )
        raise Broken(f"{reason} of rows from the task's batches")


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
        if shapes_of(subject.original) == shapes_of(subject.result):
            kind = before.get(name)
            require(kind is type(module), f"{here} is a {type(module).__name__} now")
    for name, parameter in subject.result.named_parameters():
        hooks = parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
        require(not hooks, f"{name} is left with a gradient hook: remove it before returning")


def _attached(module: nn.Module) -> set[str]:
    """Names of all hooks of a module, and of its methods replaced on the instance."""
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
    fresh = partial(inputs.fresh, cell, data)
    other = Ensemble(fresh() for _ in range(members)) if members else fresh()
    stored = {name: tensor.contiguous() for name, tensor in state(net).items()}
    try:
        other.load_state_dict(load(save(stored)))
    except (RuntimeError, KeyError) as error:
        raise Broken(
            f"its state does not fit model={cell.model['name']}: {as_text(error)}"
        ) from error
    x = data.inputs(subject.parts.retain)
    with torch.no_grad():
        before, after = net.eval()(x), other.eval()(x)
    apart = float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))
    message = (
        f"outputs differ by {apart:.2g} of the largest: something that acts is not in the state"
    )
    require(apart <= 1e-5, message)


def _changed(subject: Subject) -> None:
    """Weights changed, not only buffers."""
    scratch = subject.cell.from_scratch
    start = inputs.fresh(subject.cell, subject.data) if scratch else subject.original
    if shapes_of(start) != shapes_of(subject.result):
        return
    require(not same_bits(start, subject.result), "the model is as it was")
    before, after = dict(start.named_parameters()), dict(subject.result.named_parameters())
    message = "only buffers changed; all parameters are as they were"
    require(not equal(before, after), message)


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
    """Kind, dtype and shape of each tensor in the state of a net."""
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
    effects = sorted({*seen.outside, *seen.left})
    require(not effects, f"it {effects[0]}" if seen.outside else ", ".join(effects))


def _global_randomness(subject: Subject) -> None:
    """Every draw is from the task's generators, none from the global one."""
    net = subject.run(around="another")
    require(same_bits(net, subject.result), "another seed of the global generator, another result")


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
    require(same_bits(net, subject.result), "other unseen rows give another result")


def _teachers(subject: Subject) -> None:
    """Its teachers stay as they are and share no weight with the student."""
    others = _other_nets(subject.watched)
    if not others:
        raise Skip("it runs no net beside the one that it returns")
    student = _student(subject.watched)
    own = _storages(student)
    for net in others:
        shared = own & _storages(net.module)
        copied = shapes_of(net.module) == shapes_of(student) or own <= shared
        message = "a teacher shares weights with the student: copy it with deepcopy or ops.frozen"
        require(not (shared and copied), message)
        require(not _moved_teacher(net, subject.watched), "a teacher changed while it taught")


def _other_nets(watched: Watched) -> list[Net]:
    """Return the nets that ran, or that ``_ops.frozen`` made, outside the student."""
    own = {id(module) for module in _student(watched).modules()}
    own |= {id(module) for module in watched.net.modules()}
    return [net for net in watched.seen.nets.values() if id(net.module) not in own]


def _student(watched: Watched) -> nn.Module:
    """Return the net that was trained: the returned net, or else the given one."""
    for net in (watched.net, watched.start):
        parts = {id(module) for module in net.modules()}
        if any(key in parts and ran.learnt for key, ran in watched.seen.nets.items()):
            return net
    return watched.net


def _moved_teacher(net: Net, watched: Watched) -> bool:
    """Return whether a teacher changed after its first output, or only its buffers did."""
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
    twins = [net for net in _other_nets(watched) if shapes_of(net.module) == shapes_of(student)]
    own = {id(p) for p in student.parameters()}
    learners = {id(module) for module in student.modules()}
    for steps in watched.seen.steps.values():
        held_ids = {id(p) for p in steps.held}
        require(steps.moved, "an optimizer steps and none of its weights ever has a gradient")
        for net in twins:
            if not held_ids & {id(p) for p in net.module.parameters()}:
                continue
            require(not held_ids & own, "one optimizer holds the student's and a teacher's weights")
            message = "an optimizer holds a teacher's weights, and the gradients are the student's"
            require(not steps.reached & learners, message)


def _forget_rows(subject: Subject) -> None:
    """The forget rows matter: other rows in their place, another result."""
    here = subject.grouped
    other = here.exchanged
    moved = change_of(here.result, other.result)
    if subject.cell.traits.get("ignores_forget"):
        message = "it declares the trait ignores_forget, and other forget rows give another result"
        require(same_bits(here.result, other.result), message)
        raise Skip("it declares the trait ignores_forget, and its result depends on none")
    seen = here.watched.seen
    if moved <= NOISE and not seen.saw_forget:
        raise Skip("it looks at no forget row; the trait ignores_forget says so in its YAML")
    message = "it looks at the forget rows, and others in their place change nothing"
    require(moved > NOISE, message)
    steps = seen.last_step, other.watched.seen.last_step
    if seen.learnt_forget and seen.steps and len(steps[0]) == len(steps[1]):
        apart = distance(*steps)
        message = "forget rows go through its loss, and others in their place change no step of it"
        require(apart > NOISE, message)


def _settings(subject: Subject) -> str | None:
    """Every hyper-parameter changes the result."""
    silent = []
    for name, value in subject.settings.items():
        effects, refused = {}, ""
        for other in _others(value, (subject.cell.method.get("space") or {}).get(name)):
            try:
                effects[str(other)] = change_of(subject.run({name: other}), subject.result)
            except (ValueError, TypeError, KeyError) as error:
                refused = as_text(error)
                continue
            if effects[str(other)] > EFFECT:
                break
        else:
            if not effects:
                silent.append(f"{name}={value} ({refused or 'no other value is declared'})")
                continue
            most, tried = max(effects.values()), " and ".join(effects)
            message = f"by a share of {most:.1g} of the weights, less than {EFFECT:g}"
            raise Broken(f"{name}={value} gives what {tried} gives: they differ {message}")
    if silent and len(silent) == len(subject.settings):
        raise Skip(f"no other value to try: {', '.join(silent)}")
    return f"not tried: {', '.join(silent)}" if silent else None


def _others(value: Any, declared: Option | None = None) -> list[Any]:
    """Return other values of a setting to try: its declared choices, and values near it."""
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
"""Smallest drop of the mean confidence in memorised labels, as a share of that of retraining.

The methods with the smallest drop (``cf_k``, ``gradient_ascent``, ``influence_as_run``) reach .0025
or more over AVX-512, AVX2, SSE4.1 and seeds 0 to 2; noise of 1e-7 stays below .000005. Measured by
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


def runs_on(model: str, subject: Subject) -> None:
    """It runs on two small batches through a model, and what comes out is finite."""
    few = {
        "retain": 32,
        "forget": 17,
        "val": 16,
    }  # batches of 16: the last one has a single forget row
    overrides = f"model={model}", f"forget={subject.cell.forget['name']}"
    net = small(*overrides, *SHORT, **few).under(brief(subject)).run()
    broken = [k for k, t in net.state_dict().items() if t.is_floating_point() and t.isnan().any()]
    require(not broken, f"{' and '.join(broken[:1])} is not finite")


def _regression(subject: Subject) -> None:
    """It runs on a regression."""
    overrides = "dataset=diabetes", "model=mlp"
    small(*overrides, *SHORT, retain=64, forget=17, val=16).under(brief(subject)).run()


PROPERTIES: tuple[Property, ...] = (
    yaml_of,
    space_of,
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
    """Return all properties by their descriptions."""
    by_sentence = {str(ask.__doc__).split("\n")[0].rstrip("."): ask for ask in PROPERTIES}
    on = {f"It runs on model={model}": partial(runs_on, model) for model in models}
    return {**by_sentence, **on}
