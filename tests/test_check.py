"""The conformance suite catches what it is there to catch, and the command says so."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
import unruly
from torch import nn

from unlearnbench.check import elsewhere, properties, run
from unlearnbench.check import subject as subject_module
from unlearnbench.check.run import _options, examined, verdict_of
from unlearnbench.check.subject import FAIL, PASS, SKIP, Subject, space_of, subject_of, yaml_of
from unlearnbench.core.errors import ConfigError
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops

ROOT = Path(__file__).resolve().parent.parent
ASKED = {ask: what for what, ask in properties.properties().items()}


def option(function: Any, **settings: Any) -> dict[str, Any]:
    call = {"_target_": f"unruly.{function.__name__}", **settings}
    space = {name: {"low": 0.0, "high": 1.0} for name in settings}
    return {"name": function.__name__, "version": 1, "call": call, "space": space}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What one property says of a method that is made up here."""

    def told(ask: properties.Property, method: Any, **settings: Any) -> properties.Verdict:
        monkeypatch.setattr(unruly, method.__name__, method, raising=False)
        return verdict_of(subject_of(option(method, **settings)), ASKED[ask])

    return told


def _noisy(model: nn.Module, std: float, generator: torch.Generator | None = None) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    return model.eval()


def fine(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return _noisy(model, std, task.generator("noise"))


def test_a_method_that_keeps_to_it_passes_everything(told: Any) -> None:
    results = {ask.__name__: told(ask, fine, std=0.1).result for ask in properties.PROPERTIES}
    skipped = {ask for ask, result in results.items() if result == SKIP}
    assert skipped == {"_teachers", "_optimizers", "_forget_rows", "_process"}
    assert set(results.values()) == {PASS, SKIP}


def default(model: nn.Module, task: Task, *, std: float = 0.1) -> nn.Module:
    return fine(model, task, std=std)


def ambient(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return _noisy(model, std)


def forgetful_of_eval(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=std).train()


def lazy(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return model.eval()


def exploding(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=float("inf"))


def talking(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    sys.stdout.write("epoch 1")
    return fine(model, task, std=std)


def dead(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=0.1)


def peeping(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    x, _ = next(iter(task.val.ordered()))
    return fine(model, task, std=std * float(x.mean().abs()))


def meddling(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    task.forget.data.y[task.forget.rows] = 0
    return fine(model, task, std=std)


def growing(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return nn.Sequential(fine(model, task, std=std)).eval()


def dragging(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    teacher = ops.frozen(model)
    fine(teacher, task, std=std)
    return fine(model, task, std=std)


def hesitant(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=std * 1e-6)


@pytest.mark.parametrize(
    ("ask", "method"),
    [
        (yaml_of, default),
        (properties._global_randomness, ambient),
        (properties._mode, forgetful_of_eval),
        (properties._changed, lazy),
        (properties._finite, exploding),
        (properties._silence, talking),
        (properties._settings, dead),
        (properties._unseen_rows, peeping),
        (properties._task_alone, meddling),
        (properties._architecture, growing),
        (properties._teachers, dragging),
        (properties._forgets, hesitant),
    ],
)
def test_each_property_fails_on_what_it_forbids(
    told: Any, ask: properties.Property, method: Any
) -> None:
    verdict = told(ask, method, std=0.1)
    assert verdict.result == FAIL
    assert verdict.reason


def test_a_hyper_parameter_without_a_range(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unruly, "fine", fine, raising=False)
    given = {**option(fine, std=0.1), "space": {}}
    assert verdict_of(subject_of(given), ASKED[space_of]).result == FAIL


def test_a_dotted_path_takes_its_settings_from_the_words() -> None:
    (given,) = _options(["method=unruly.shrunk", "method.call.strength=0.5"])
    assert given["call"] == {"_target_": "unruly.shrunk", "strength": 0.5}
    with pytest.raises(ConfigError, match=r"needs method.call.strength=…"):
        _options(["method=unruly.shrunk"])
    with pytest.raises(ConfigError, match=r"here only method.call.… can be set"):
        _options(["method=unruly.shrunk", "seed=3"])


@pytest.mark.tried(
    "a method that runs on the first small task but acts on nothing there (cfw_as_run)",
    "it is examined on the next task, where its settings have an effect",
)
@pytest.mark.parametrize(("shares", "expected"), [((0, 0, 0.1), 2), ((0, 0, 0), 0), ((0.1,), 0)])
def test_a_task_on_which_a_method_acts_on_nothing_is_left_for_the_next(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], expected: int
) -> None:
    class Task:
        def __init__(self, share: float) -> None:
            self.result, self.notes = None, {"acted_on": share}

        def under(self, _: object) -> "Task":
            return self

    tasks = [Task(share) for share in shares]
    given = iter(tasks)
    monkeypatch.setattr(subject_module, "small", lambda *_, **__: next(given))
    assert subject_of({}) is tasks[expected]


# ---------------------------------------------------------------------------------------------
# Faults planted into right methods.


def of_planted(method: Any, settings: dict[str, Any]) -> Subject:
    given = option(method, **settings)
    given["call"]["_target_"] = f"planted.{method.__name__}"
    given["space"] = {name: {"choices": SPACE.get(name, [])} for name in settings}
    return subject_of(given)


SPACE = {"part": ["all", "head"]}
"""Declared choices of settings that are words."""

LR = {"lr": 0.02}
SCRUB = {"lr": 0.02, "alpha": 0.5}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (planted.finetune, LR),
        pytest.param(
            planted.by_hand,
            LR,
            marks=pytest.mark.tried(
                "a right method whose training loop leaves gradients on the model",
                "`unlearnbench check` passes it: a state has no gradients",
            ),
        ),
        (planted.scrub, SCRUB),
        (planted.own_teacher, SCRUB),
        (planted.task_vector, {"lr": 0.02, "strength": 0.5}),
        (planted.best_copy, LR),
        pytest.param(
            planted.worded,
            {"lr": 0.02, "part": "head", "layers": ["stage2", "head"]},
            marks=pytest.mark.tried(
                "a right method with settings that are words and lists of words",
                "`unlearnbench check` tries their declared choices and says what it could not try",
            ),
        ),
        pytest.param(
            planted.scaled,
            {"by": [0.9, 1.1]},
            marks=pytest.mark.tried(
                "a right method with a list of numbers that draws nothing",
                "`unlearnbench check` passes it, and skips what is about draws",
            ),
        ),
    ],
)
def test_a_right_method_fails_nothing(method: Any, settings: dict[str, Any]) -> None:
    subject = of_planted(method, settings)
    asked = [
        ask
        for ask in properties.PROPERTIES
        if ask not in (properties._forgets, properties._regression)
    ]
    verdicts = [verdict_of(subject, ASKED[ask]) for ask in asked]
    assert not [verdict for verdict in verdicts if verdict.result == FAIL]


@pytest.mark.parametrize(
    ("ask", "method", "settings", "reason"),
    [
        pytest.param(
            properties._teachers,
            planted.shallow_teacher,
            SCRUB,
            "a teacher shares weights with the student",
            id="shallow_teacher",
            marks=pytest.mark.tried(
                "a teacher made by copy.copy, which shares all weights",
                "`unlearnbench check` fails it: a teacher shares weights with the student",
            ),
        ),
        pytest.param(
            properties._teachers,
            planted.assigned_teacher,
            SCRUB,
            "a teacher shares weights with the student",
            id="assigned_teacher",
            marks=pytest.mark.tried(
                "a teacher that load_state_dict(assign=True) gave the student's own tensors",
                "`unlearnbench check` fails it: a teacher shares weights with the student",
            ),
        ),
        pytest.param(
            properties._teachers,
            planted.wrapped_teacher,
            SCRUB,
            "a teacher shares weights with the student",
            id="wrapped_teacher",
            marks=pytest.mark.tried(
                "a teacher that is the student in a wrapper",
                "`unlearnbench check` fails it: a teacher shares weights with the student",
            ),
        ),
        pytest.param(
            properties._teachers,
            planted.teacher_sharing_a_layer,
            SCRUB,
            "a teacher shares weights with the student",
            id="teacher_sharing_a_layer",
            marks=pytest.mark.tried(
                "a frozen teacher with one layer of the student's",
                "`unlearnbench check` fails it: a teacher shares weights with the student",
            ),
        ),
        pytest.param(
            properties._teachers,
            planted.teacher_in_train_mode,
            SCRUB,
            "a teacher changed while it taught",
            id="teacher_in_train_mode",
            marks=pytest.mark.tried(
                "a teacher in train mode, whose batch norm counts on",
                "`unlearnbench check` fails it: a teacher changed while it taught",
            ),
        ),
        pytest.param(
            properties._teachers,
            planted.teacher_trained_between,
            SCRUB,
            "a teacher changed while it taught",
            id="teacher_trained_between",
            marks=pytest.mark.tried(
                "a teacher that is trained between two phases",
                "`unlearnbench check` fails it: a teacher changed while it taught",
            ),
        ),
        pytest.param(
            properties._optimizers,
            planted.teacher_in_the_optimizer,
            SCRUB,
            "none of its weights ever has a gradient",
            id="teacher_in_the_optimizer",
            marks=pytest.mark.tried(
                "an optimizer that holds the frozen teacher in one phase",
                "`unlearnbench check` fails it: none of its weights ever has a gradient",
            ),
        ),
        pytest.param(
            properties._optimizers,
            planted.unfrozen_teacher_in_the_optimizer,
            SCRUB,
            "none of its weights ever has a gradient",
            id="unfrozen_teacher_in_the_optimizer",
            marks=pytest.mark.tried(
                "an optimizer that holds a teacher that is not frozen",
                "`unlearnbench check` fails it: none of its weights ever has a gradient",
            ),
        ),
        pytest.param(
            properties._optimizers,
            planted.both_in_the_optimizer,
            SCRUB,
            "one optimizer holds the student's and a teacher's weights",
            id="both_in_the_optimizer",
            marks=pytest.mark.tried(
                "an optimizer that holds student and teacher",
                "`unlearnbench check` fails it: one optimizer holds both nets' weights",
            ),
        ),
        pytest.param(
            properties._optimizers,
            planted.teacher_that_learns,
            SCRUB,
            "an optimizer holds a teacher's weights",
            id="teacher_that_learns",
            marks=pytest.mark.tried(
                "an optimizer that moves the teacher by the student's loss",
                "`unlearnbench check` fails it: an optimizer holds a teacher's weights",
            ),
        ),
        pytest.param(
            properties._forget_rows,
            planted.clamped,
            SCRUB,
            "others in their place change nothing",
            id="clamped",
            marks=pytest.mark.tried(
                "SCRUB whose forget term is clamped to a constant",
                "`unlearnbench check` fails it: others in their place change nothing",
            ),
        ),
        pytest.param(
            properties._forget_rows,
            planted.clamped_beside,
            LR,
            "others in their place change nothing",
            id="clamped_beside",
            marks=pytest.mark.tried(
                "a forget term clamped to a constant beside a retain term",
                "`unlearnbench check` fails it: others in their place change nothing",
            ),
        ),
        pytest.param(
            properties._unseen_rows,
            planted.test_rows_of_its_data,
            LR,
            "a row that it must not see went through a net",
            id="test_rows_of_its_data",
            marks=pytest.mark.tried(
                "test rows taken from task.retain.data",
                "`unlearnbench check` fails it: a row that it must not see went through a net",
            ),
        ),
        pytest.param(
            properties._unseen_rows,
            planted.unused_rows_of_its_data,
            LR,
            "a row that it must not see went through a net",
            id="unused_rows_of_its_data",
            marks=pytest.mark.tried(
                "training rows that are in no part, taken from task.retain.data",
                "`unlearnbench check` fails it: a row that it must not see went through a net",
            ),
        ),
        pytest.param(
            properties._unseen_rows,
            planted.test_labels_of_its_data,
            LR,
            "other unseen rows give another result",
            id="test_labels_of_its_data",
            marks=pytest.mark.tried(
                "test labels taken from task.retain.data",
                "`unlearnbench check` fails it: other unseen rows give another result",
            ),
        ),
        pytest.param(
            properties._unseen_rows,
            planted.test_rows_loaded_at_import,
            LR,
            "a row that it must not see went through a net",
            id="test_rows_loaded_at_import",
            marks=pytest.mark.tried(
                "test images that the method's module loads at import, scaled differently",
                "`unlearnbench check` fails it: a row that it must not see went through a net",
            ),
        ),
        pytest.param(
            properties._unseen_rows,
            planted.val_rows,
            LR,
            "a row that it must not see went through a net",
            id="val_rows",
            marks=pytest.mark.tried(
                "validation rows without the trait uses_val",
                "`unlearnbench check` fails it: a row that it must not see went through a net",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.test_rows_of_sklearn,
            LR,
            "reads the file",
            id="test_rows_of_sklearn",
            marks=pytest.mark.tried(
                "test images that the method loads from scikit-learn",
                "`unlearnbench check` fails it: reads the file",
            ),
        ),
        pytest.param(
            properties._process,
            planted.of_the_hash,
            LR,
            "in another process",
            id="of_the_hash",
            marks=pytest.mark.tried(
                "a result that depends on the hash seed",
                "`unlearnbench check` fails it: in another process",
            ),
        ),
        pytest.param(
            properties._process,
            planted.of_the_process,
            LR,
            "in another process",
            id="of_the_process",
            marks=pytest.mark.tried(
                "a result that depends on the process",
                "`unlearnbench check` fails it: in another process",
            ),
        ),
        pytest.param(
            properties._process,
            planted.of_the_first_run,
            LR,
            "in another process",
            id="of_the_first_run",
            marks=pytest.mark.tried(
                "a module that keeps what its first run drew",
                "`unlearnbench check` fails it: in another process",
            ),
        ),
        pytest.param(
            properties._same_bits,
            planted.of_the_clock,
            LR,
            "two runs of one seed differ",
            id="of_the_clock",
            marks=pytest.mark.tried(
                "a result that depends on the clock",
                "`unlearnbench check` fails it: two runs of one seed differ",
            ),
        ),
        pytest.param(
            properties._seed,
            planted.seed_ignored,
            LR,
            "another seed gives the same bits",
            id="seed_ignored",
            marks=pytest.mark.tried(
                "the model's seed ignored in the order of rows",
                "`unlearnbench check` fails it: another seed gives the same bits",
            ),
        ),
        pytest.param(
            properties._seed,
            planted.seed_ignored_in_numpy,
            LR,
            "another seed gives the same bits",
            id="seed_ignored_in_numpy",
            marks=pytest.mark.tried(
                "the model's seed ignored by a generator of NumPy's",
                "`unlearnbench check` fails it: another seed gives the same bits",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.global_seed,
            LR,
            "torch's global seed changed",
            id="global_seed",
            marks=pytest.mark.tried(
                "torch.manual_seed inside a method",
                "`unlearnbench check` fails it: torch's global seed changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.numpy_seed,
            LR,
            "NumPy's global generator changed",
            id="numpy_seed",
            marks=pytest.mark.tried(
                "numpy.random.seed inside a method",
                "`unlearnbench check` fails it: NumPy's global generator changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.python_seed,
            LR,
            "Python's global generator changed",
            id="python_seed",
            marks=pytest.mark.tried(
                "random.seed inside a method",
                "`unlearnbench check` fails it: Python's global generator changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.global_hook_left,
            LR,
            "a hook on all modules is left",
            id="global_hook_left",
            marks=pytest.mark.tried(
                "a hook left on all modules",
                "`unlearnbench check` fails it: a hook on all modules is left",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.default_dtype,
            LR,
            "torch's default dtype changed",
            id="default_dtype",
            marks=pytest.mark.tried(
                "a method that leaves another default dtype",
                "`unlearnbench check` fails it: torch's default dtype changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.threads,
            LR,
            "torch's number of threads changed",
            id="threads",
            marks=pytest.mark.tried(
                "a method that leaves another number of threads",
                "`unlearnbench check` fails it: torch's number of threads changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.deterministic_flag,
            LR,
            "torch.use_deterministic_algorithms changed",
            id="deterministic_flag",
            marks=pytest.mark.tried(
                "a method that leaves deterministic algorithms on",
                "`unlearnbench check` fails it: torch.use_deterministic_algorithms changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.gradients_off,
            LR,
            "torch.set_grad_enabled changed",
            id="gradients_off",
            marks=pytest.mark.tried(
                "a method that leaves gradients disabled",
                "`unlearnbench check` fails it: torch.set_grad_enabled changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.environment,
            LR,
            "the environment changed",
            id="environment",
            marks=pytest.mark.tried(
                "a method that leaves an environment variable",
                "`unlearnbench check` fails it: the environment changed",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.writing,
            LR,
            "writes the file",
            id="writing",
            marks=pytest.mark.tried(
                "a method that writes a file",
                "`unlearnbench check` fails it: writes the file",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.saving,
            LR,
            "saves the file",
            id="saving",
            marks=pytest.mark.tried(
                "a method that saves a checkpoint",
                "`unlearnbench check` fails it: saves the file",
            ),
        ),
        pytest.param(
            properties._process_alone,
            planted.calling,
            LR,
            "reaches out of the process",
            id="calling",
            marks=pytest.mark.tried(
                "a method that starts a process",
                "`unlearnbench check` fails it: reaches out of the process",
            ),
        ),
        pytest.param(
            properties._hooks,
            planted.hook_left,
            LR,
            "the model is left with _forward_hooks",
            id="hook_left",
            marks=pytest.mark.tried(
                "a forward hook left on the model",
                "`unlearnbench check` fails it: the model is left with _forward_hooks",
            ),
        ),
        pytest.param(
            properties._hooks,
            planted.silent_hook_left,
            LR,
            "is left with _forward_pre_hooks",
            id="silent_hook_left",
            marks=pytest.mark.tried(
                "a forward pre-hook left on a layer",
                "`unlearnbench check` fails it: is left with _forward_pre_hooks",
            ),
        ),
        pytest.param(
            properties._hooks,
            planted.backward_hook_left,
            LR,
            "the model is left with _backward_hooks",
            id="backward_hook_left",
            marks=pytest.mark.tried(
                "a backward hook left on the model",
                "`unlearnbench check` fails it: the model is left with _backward_hooks",
            ),
        ),
        pytest.param(
            properties._hooks,
            planted.gradient_hook_left,
            LR,
            "is left with a gradient hook",
            id="gradient_hook_left",
            marks=pytest.mark.tried(
                "a gradient hook left on a parameter",
                "`unlearnbench check` fails it: is left with a gradient hook",
            ),
        ),
        pytest.param(
            properties._hooks,
            planted.parametrized,
            LR,
            "parametrizations: remove it before returning",
            id="parametrized",
            marks=pytest.mark.tried(
                "a parametrization left on a layer",
                "`unlearnbench check` fails it: parametrizations: remove it before returning",
            ),
        ),
        pytest.param(
            properties._hooks,
            planted.another_forward,
            LR,
            "the model is left with forward",
            id="another_forward",
            marks=pytest.mark.tried(
                "another forward set on the model",
                "`unlearnbench check` fails it: the model is left with forward",
            ),
        ),
        pytest.param(
            properties._hooks,
            planted.another_class,
            LR,
            "the model is a Doubled now",
            id="another_class",
            marks=pytest.mark.tried(
                "another class set on the model",
                "`unlearnbench check` fails it: the model is a Doubled now",
            ),
        ),
        pytest.param(
            properties._loaded,
            planted.another_forward,
            LR,
            "outputs differ",
            id="another_forward, loaded",
        ),
        pytest.param(
            properties._loaded,
            planted.another_eps,
            LR,
            "outputs differ",
            id="another_eps",
            marks=pytest.mark.tried(
                "another epsilon in batch norm, which no state holds",
                "`unlearnbench check` fails it: outputs differ",
            ),
        ),
        pytest.param(
            properties._mode,
            planted.frozen_left,
            LR,
            "is left frozen",
            id="frozen_left",
            marks=pytest.mark.tried(
                "a parameter left frozen",
                "`unlearnbench check` fails it: is left frozen",
            ),
        ),
        pytest.param(
            properties._mode,
            planted.head_in_train_mode,
            LR,
            "is in train mode",
            id="head_in_train_mode",
            marks=pytest.mark.tried(
                "one layer left in train mode",
                "`unlearnbench check` fails it: is in train mode",
            ),
        ),
        pytest.param(
            properties._changed,
            planted.buffers_alone,
            LR,
            "only buffers changed",
            id="buffers_alone",
            marks=pytest.mark.tried(
                "a method that changes only buffers",
                "`unlearnbench check` fails it: only buffers changed",
            ),
        ),
        pytest.param(
            properties._architecture,
            planted.cast,
            LR,
            "torch.float64",
            id="cast",
            marks=pytest.mark.tried(
                "a model cast to float64",
                "`unlearnbench check` fails it: torch.float64",
            ),
        ),
        pytest.param(
            properties._architecture,
            planted.one_cast,
            LR,
            "torch.float16",
            id="one_cast",
            marks=pytest.mark.tried(
                "one parameter cast to float16",
                "`unlearnbench check` fails it: torch.float16",
            ),
        ),
        pytest.param(
            properties._architecture,
            planted.buffer_for_parameter,
            LR,
            "a buffer",
            id="buffer_for_parameter",
            marks=pytest.mark.tried(
                "a parameter made a buffer",
                "`unlearnbench check` fails it: a buffer",
            ),
        ),
        pytest.param(
            properties._task_alone,
            planted.rows_changed,
            LR,
            "task.forget changed",
            id="rows_changed",
            marks=pytest.mark.tried(
                "a method that changes the task's rows",
                "`unlearnbench check` fails it: task.forget changed",
            ),
        ),
        pytest.param(
            properties._task_alone,
            planted.labels_of_a_part_changed,
            LR,
            "task.forget changed",
            id="labels_of_a_part_changed",
            marks=pytest.mark.tried(
                "a method that changes a part's labels",
                "`unlearnbench check` fails it: task.forget changed",
            ),
        ),
        pytest.param(
            properties._task_alone,
            planted.prepared_written,
            LR,
            "task.prepared changed",
            id="prepared_written",
            marks=pytest.mark.tried(
                "a method that writes into task.prepared",
                "`unlearnbench check` fails it: task.prepared changed",
            ),
        ),
        pytest.param(
            properties._task_alone,
            planted.settings_changed,
            {"sgd": {"lr": 0.02}},
            "settings changed",
            id="settings_changed",
            marks=pytest.mark.tried(
                "a method that changes its settings",
                "`unlearnbench check` fails it: settings changed",
            ),
        ),
        pytest.param(
            properties._settings,
            planted.setting_by_a_bit,
            SCRUB,
            "less than 0.0001",
            id="setting_by_a_bit",
            marks=pytest.mark.tried(
                "a hyper-parameter that changes the last bits",
                "`unlearnbench check` fails it: less than 0.0001",
            ),
        ),
        pytest.param(
            properties._settings,
            planted.list_unused,
            {"lr": 0.02, "layers": [1.0, 2.0]},
            "layers=",
            id="list_unused",
            marks=pytest.mark.tried(
                "a list without effect",
                "`unlearnbench check` fails it: layers=",
            ),
        ),
        pytest.param(
            properties._settings,
            planted.word_unused,
            {"lr": 0.02, "part": "all"},
            "part=all",
            id="word_unused",
            marks=pytest.mark.tried(
                "a word without effect",
                "`unlearnbench check` fails it: part=all",
            ),
        ),
    ],
)
def test_a_planted_fault_is_caught(
    ask: properties.Property,
    method: Any,
    settings: dict[str, Any],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    verdict = verdict_of(of_planted(method, settings), ASKED[ask])
    assert verdict.result == FAIL
    assert reason in verdict.reason


@pytest.mark.tried(
    "SCRUB with a clamped forget term whose forget rows still choose the epoch",
    "`unlearnbench check` fails it: the forget rows change no step",
)
def test_forget_rows_that_choose_among_epochs_but_move_no_step() -> None:
    subject = of_planted(planted.clamped_and_wound_back, SCRUB)
    verdict = verdict_of(subject, ASKED[properties._forget_rows])
    assert verdict.result == FAIL
    assert "change" in verdict.reason


@pytest.mark.tried(
    "test images from the benchmark's own loader, inside a method",
    "`unlearnbench check` fails it: a method has no data but its task's",
)
def test_the_benchmarks_own_loader_is_shut_inside_a_method() -> None:
    given = option(planted.test_rows_of_the_pipeline, **LR)
    given["call"]["_target_"] = "planted.test_rows_of_the_pipeline"
    verdicts = examined(given)
    assert [verdict.result for verdict in verdicts] == [FAIL]
    assert "no data but its task's" in verdicts[0].reason


@pytest.mark.tried(
    "a method that declares ignores_forget and looks at forget rows",
    "`unlearnbench check` fails it: other forget rows give another result",
)
def test_the_trait_ignores_forget_is_checked() -> None:
    given = option(planted.ascent, **LR)
    given["call"]["_target_"] = "planted.ascent"
    assert verdict_of(subject_of(given), ASKED[properties._forget_rows]).result == PASS
    given["traits"] = {"ignores_forget": True}
    verdict = verdict_of(subject_of(given), ASKED[properties._forget_rows])
    assert verdict.result == FAIL
    assert "ignores_forget" in verdict.reason


def test_what_a_method_left_does_not_reach_the_next() -> None:
    threads = torch.get_num_threads()
    for method in (planted.default_dtype, planted.threads, planted.gradients_off):
        subject = of_planted(method, LR)
        _ = subject.result, subject.again
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


@pytest.mark.tried(
    "`python -O`, which takes out every assert",
    "`unlearnbench check` gives the same verdicts",
)
def test_without_asserts_the_verdicts_are_the_same() -> None:
    words = ["method=unruly.shrunk", "method.call.strength=0.0", "model=logreg"]
    command = [sys.executable, "-O", "-m", "unlearnbench", "check", *words]
    path = os.pathsep.join(["tests", os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT
    )
    assert run.returncode == 1, run.stderr
    assert "unruly.shrunk: FAIL Weights changed, not only buffers: the model is as it" in run.stdout


def test_no_verdict_is_an_assert() -> None:
    sources = [inspect.getsource(module) for module in (elsewhere, properties, run, subject_module)]
    tree = ast.parse("\n".join(sources))
    asked = {ask.__name__ for ask in properties.PROPERTIES} | {"runs_on", "_run", "run"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in asked:
            assert not [n.lineno for n in ast.walk(node) if isinstance(n, ast.Assert)], node.name
