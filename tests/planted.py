"""Methods with one planted fault each, and right ones, to be `_target_`s of the conformance suite.

``scrub`` and ``finetune`` are short and right; each of the others differs in what its name says.
"""

import copy
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim import SGD, Optimizer

from unlearnbench.config import compose
from unlearnbench.core.data import Batches
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.pipeline.inputs import dataset
from unlearnbench.train.loop import cosine, descend

Net = nn.Module


# ---------------------------------------------------------------------------------------------
# Right methods.


def finetune(model: Net, task: Task, *, lr: float) -> Net:
    sgd = {"lr": lr, "momentum": 0.9, "weight_decay": 0.0}
    return descend(model, task.retain.batched(64), task.loss, sgd=sgd, epochs=2, schedule=cosine)


def by_hand(model: Net, task: Task, *, lr: float) -> Net:
    """A loop as anybody writes it: gradients are left behind."""
    optimizer = SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    for x, y in task.retain.batched(64):
        optimizer.zero_grad()
        task.loss(model, x, y).backward()
        optimizer.step()
    return model.eval()


def distance(teacher: Net, student: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        t = teacher(x)
    return ops.kl(t, student(x), 2.0)


def _scrub(
    model: Net,
    task: Task,
    lr: float,
    alpha: float,
    teacher: Net,
    *,
    forgetting: Callable[[Tensor], Tensor] = lambda away: -away,
    stepper_of: Callable[[Net, Net], list[nn.Parameter]] | None = None,
) -> Net:
    optimizer: Optimizer = SGD(model.parameters(), lr=lr, momentum=0.9)
    other = optimizer if stepper_of is None else SGD(stepper_of(model, teacher), lr=lr)
    model.train()
    for _ in range(2):
        for x, _ in task.forget.batched(64):
            other.zero_grad()
            forgetting(distance(teacher, model, x)).backward()
            other.step()
        for x, y in task.retain.batched(64):
            optimizer.zero_grad()
            (task.loss(model, x, y) + alpha * distance(teacher, model, x)).backward()
            optimizer.step()
    model.zero_grad()
    return model.eval()


def scrub(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    return _scrub(model, task, lr, alpha, ops.frozen(model))


def own_teacher(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    return _scrub(model, task, lr, alpha, copy.deepcopy(model).eval())


def task_vector(model: Net, task: Task, *, lr: float, strength: float) -> Net:
    """Train a copy on the forget rows, look how it errs, and walk the other way."""
    tuned = copy.deepcopy(model)
    for _ in range(2):
        sgd = {"lr": lr, "momentum": 0.9, "weight_decay": 0.0}
        descend(tuned, task.forget.batched(32), task.loss, sgd=sgd, epochs=1)
        ops.error(tuned, task.forget)
    with torch.no_grad():
        for p, q in zip(model.parameters(), tuned.parameters(), strict=True):
            p.sub_(strength * (q - p))
    return model.eval()


def worded(model: Net, task: Task, *, lr: float, part: str, layers: Sequence[str]) -> Net:
    """Settings that are words and lists of words."""
    if part not in ("all", "head"):
        raise ValueError(f"part={part}: must be all or head")
    own = dict(model.named_parameters())
    chosen = [p for name, p in own.items() if part == "all" or name.startswith(tuple(layers))]
    optimizer = SGD(chosen, lr=lr)
    for x, y in task.retain.batched(64):
        optimizer.zero_grad()
        task.loss(model, x, y).backward()
        optimizer.step()
    return model.eval()


def scaled(model: Net, task: Task, *, by: Sequence[float]) -> Net:
    """A list of numbers; it draws nothing and looks at no row."""
    with torch.no_grad():
        for p, factor in zip(model.parameters(), by, strict=False):
            p.mul_(factor)
    return model.eval()


def best_copy(model: Net, task: Task, *, lr: float) -> Net:
    """It returns a copy that was taken on the way."""
    best = copy.deepcopy(model)
    for _ in range(2):
        sgd = {"lr": lr, "momentum": 0.0, "weight_decay": 0.0}
        descend(model, task.retain.batched(64), task.loss, sgd=sgd, epochs=1)
        best = copy.deepcopy(model)
    return best.eval()


# ---------------------------------------------------------------------------------------------
# Teachers and optimizers.


def shallow_teacher(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    return _scrub(model, task, lr, alpha, copy.copy(model))


def assigned_teacher(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    teacher = task.fresh()
    teacher.load_state_dict(model.state_dict(), assign=True)
    return _scrub(model, task, lr, alpha, teacher)


class Wrapped(nn.Module):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def wrapped_teacher(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    return _scrub(model, task, lr, alpha, Wrapped(model))


def teacher_sharing_a_layer(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    teacher = ops.frozen(model)
    teacher.stem = model.stem
    return _scrub(model, task, lr, alpha, teacher)


def teacher_in_train_mode(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    return _scrub(model, task, lr, alpha, copy.deepcopy(model).train())


def teacher_in_the_optimizer(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    teacher = ops.frozen(model)
    return _scrub(model, task, lr, alpha, teacher, stepper_of=lambda _, t: list(t.parameters()))


def unfrozen_teacher_in_the_optimizer(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    teacher = copy.deepcopy(model).eval()
    return _scrub(model, task, lr, alpha, teacher, stepper_of=lambda _, t: list(t.parameters()))


def both_in_the_optimizer(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    teacher = copy.deepcopy(model).eval()

    def both(student: Net, teacher: Net) -> list[nn.Parameter]:
        return [*student.parameters(), *teacher.parameters()]

    return _scrub(model, task, lr, alpha, teacher, stepper_of=both)


def teacher_that_learns(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    """Gradients reach the teacher, and a phase's optimizer moves it in the student's place."""
    teacher = copy.deepcopy(model).eval()
    optimizer = SGD(teacher.parameters(), lr=lr)
    for x, _ in task.forget.batched(64):
        optimizer.zero_grad()
        (-ops.kl(teacher(x), model(x), 2.0)).backward()
        optimizer.step()
    model.zero_grad()
    return _scrub(model, task, lr, alpha, teacher)


def teacher_trained_between(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    teacher = copy.deepcopy(model).eval()
    sgd = {"lr": lr, "momentum": 0.0, "weight_decay": 0.0}
    for _ in range(2):
        _scrub(model, task, lr, alpha, teacher)
        descend(teacher, task.retain.batched(64), task.loss, sgd=sgd, epochs=1)
    return model


# ---------------------------------------------------------------------------------------------
# Forget rows without a say.


def clamped(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    def constant(away: Tensor) -> Tensor:
        return (-away).clamp(min=1e3, max=1e3)

    return _scrub(model, task, lr, alpha, ops.frozen(model), forgetting=constant)


def clamped_beside(model: Net, task: Task, *, lr: float) -> Net:
    """One loss of both terms, of which the one of the forget rows is a constant."""
    forget = task.forget.batched(64).endless()

    def loss(model: Net, x: Tensor, y: Tensor) -> Tensor:
        x_F, y_F = next(forget)
        return task.loss(model, x, y) + (-task.loss(model, x_F, y_F)).clamp(min=0)

    sgd = {"lr": lr, "momentum": 0.9, "weight_decay": 0.0}
    return descend(model, task.retain.batched(64), loss, sgd=sgd, epochs=2)


def clamped_and_wound_back(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    """The forget rows choose among the epochs, but move no step."""
    errors, states = [], []
    for _ in range(3):
        clamped(model, task, lr=lr, alpha=alpha)
        with torch.no_grad():
            sums = [task.loss(model, x, y) for x, y in task.forget.ordered()]
        errors.append(float(sum(sums)))
        states.append(copy.deepcopy(model.state_dict()))
    chosen = min(range(3), key=lambda j: abs(errors[j] * 1e6 % 1 - 0.5))
    model.load_state_dict(states[chosen])
    return model.eval()


# ---------------------------------------------------------------------------------------------
# Rows that a method must not see.


def _steps_on(model: Net, x: Tensor, y: Tensor, lr: float) -> Net:
    optimizer = SGD(model.parameters(), lr=lr)
    for chosen in torch.arange(len(y)).split(64):
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return model.eval()


def test_rows_of_its_data(model: Net, task: Task, *, lr: float) -> Net:
    data = task.retain.data
    return _steps_on(model, data.inputs(data.test_rows), data.y[data.test_rows], lr)


def unused_rows_of_its_data(model: Net, task: Task, *, lr: float) -> Net:
    data = task.retain.data
    rows = data.train_rows[~torch.isin(data.train_rows, task.train.rows)]
    return _steps_on(model, data.inputs(rows), data.y[rows], lr)


def test_labels_of_its_data(model: Net, task: Task, *, lr: float) -> Net:
    data = task.retain.data
    share = data.y[data.test_rows].float().mean() / data.n_classes
    return finetune(model, task, lr=lr * float(share))


def test_rows_of_sklearn(model: Net, task: Task, *, lr: float) -> Net:
    images, y = load_digits(return_X_y=True)
    x = torch.tensor(images).float().reshape(-1, 1, 8, 8) / 16 - 0.5
    finetune(model, task, lr=lr)
    return _steps_on(model, x, torch.tensor(y), lr)


_IMAGES = torch.tensor(load_digits().data).float().reshape(-1, 1, 8, 8)


def test_rows_loaded_at_import(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    model.train()
    with torch.no_grad():
        model(_IMAGES / 8 - 1)  # batch norm counts them
    return model.eval()


def test_rows_of_the_pipeline(model: Net, task: Task, *, lr: float) -> Net:
    (cell,) = compose.cells([["attack=none"]])
    data = dataset(cell)
    mean = float(data.x[data.test_rows].float().mean())
    return finetune(model, task, lr=lr * mean / 5)


def val_rows(model: Net, task: Task, *, lr: float) -> Net:
    sgd = {"lr": lr, "momentum": 0.0, "weight_decay": 0.0}
    return descend(model, task.val.batched(64), task.loss, sgd=sgd, epochs=1)


# ---------------------------------------------------------------------------------------------
# Seeds and what one run leaves to the next.


def _ordered_by(batches: Batches, seed: int) -> Batches:
    return replace(batches, order=torch.Generator().manual_seed(seed))


def seed_ignored(model: Net, task: Task, *, lr: float) -> Net:
    return finetune(model, replace(task, retain=_ordered_by(task.retain, 0)), lr=lr)


def seed_ignored_in_numpy(model: Net, task: Task, *, lr: float) -> Net:
    order = np.random.default_rng(0).permutation(len(task.retain.rows))
    retain = task.retain.chosen(torch.from_numpy(order)).ordered()
    return finetune(model, replace(task, retain=retain), lr=lr)


def global_seed(model: Net, task: Task, *, lr: float) -> Net:
    torch.manual_seed(0)  # on purpose
    return finetune(model, task, lr=lr)


def numpy_seed(model: Net, task: Task, *, lr: float) -> Net:
    np.random.seed(0)  # noqa: NPY002 - on purpose
    return finetune(model, task, lr=lr)


def python_seed(model: Net, task: Task, *, lr: float) -> Net:
    random.seed(0)
    return finetune(model, task, lr=lr)


def of_the_hash(model: Net, task: Task, *, lr: float) -> Net:
    share = hash("forget") % 1000 / 1000
    return finetune(model, task, lr=lr * (0.5 + share))


def of_the_process(model: Net, task: Task, *, lr: float) -> Net:
    return finetune(model, task, lr=lr * (1 + os.getpid() % 1000 / 1000))


_kept: list[float] = []


def of_the_first_run(model: Net, task: Task, *, lr: float) -> Net:
    """What the first run of the process drew decides all later ones."""
    if not _kept:
        _kept.append(float(torch.rand(1, generator=task.generator("rate"))))
    return finetune(model, task, lr=lr * (1 + _kept[0]))


def of_the_clock(model: Net, task: Task, *, lr: float) -> Net:
    return finetune(model, task, lr=lr * (1 + time.time() % 1))


# ---------------------------------------------------------------------------------------------
# What a model comes back with.


def _doubled(module: Net, inputs: Any, outputs: Tensor) -> Tensor:
    return 2 * outputs


def hook_left(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr).register_forward_hook(_doubled)
    return model


def silent_hook_left(model: Net, task: Task, *, lr: float) -> Net:
    next(model.children()).register_forward_pre_hook(lambda module, inputs: None)
    return finetune(model, task, lr=lr)


def backward_hook_left(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr).register_full_backward_hook(lambda *_: None)
    return model


def gradient_hook_left(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    next(model.parameters()).register_hook(lambda gradient: gradient)
    return model


def parametrized(model: Net, task: Task, *, lr: float) -> Net:
    for module in list(model.modules()):
        if isinstance(module, nn.Linear):
            parametrizations.weight_norm(module)
    return finetune(model, task, lr=lr)


def another_forward(model: Net, task: Task, *, lr: float) -> Net:
    forward = finetune(model, task, lr=lr).forward
    model.forward = lambda x: 2 * forward(x)
    return model


def another_eps(model: Net, task: Task, *, lr: float) -> Net:
    for module in finetune(model, task, lr=lr).modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1.0
    return model


def another_class(model: Net, task: Task, *, lr: float) -> Net:
    class Doubled(type(model)):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    finetune(model, task, lr=lr).__class__ = Doubled
    return model


def global_hook_left(model: Net, task: Task, *, lr: float) -> Net:
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    _handles.append(handle)
    return finetune(model, task, lr=lr)


_handles: list[Any] = []


def frozen_left(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    next(model.parameters()).requires_grad_(False)
    return model


def head_in_train_mode(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    list(model.modules())[-1].train()
    return model


def buffers_alone(model: Net, task: Task, *, lr: float) -> Net:
    model.train()
    with torch.no_grad():
        for x, _ in task.retain.batched(16 + int(1000 * lr)):
            model(x)
    return model.eval()


def cast(model: Net, task: Task, *, lr: float) -> Net:
    return finetune(model, task, lr=lr).double()


def one_cast(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    parameter = next(model.parameters())
    parameter.data = parameter.data.half()
    return model


def buffer_for_parameter(model: Net, task: Task, *, lr: float) -> Net:
    for module in finetune(model, task, lr=lr).modules():
        if isinstance(module, nn.Linear):
            bias = module.bias.detach().clone()
            del module.bias
            module.register_buffer("bias", bias)
    return model


# ---------------------------------------------------------------------------------------------
# What a run leaves in its task and in the process.


def rows_changed(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    task.forget.rows.zero_()
    return model


def labels_of_a_part_changed(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    task.forget.y.fill_(0)
    return model


def prepared_written(model: Net, task: Task, *, lr: float) -> Net:
    task.prepared["mine"] = torch.ones(1)
    return finetune(model, task, lr=lr)


def settings_changed(model: Net, task: Task, *, sgd: Mapping[str, float]) -> Net:
    finetune(model, task, lr=sgd["lr"])
    sgd["lr"] = 0.0
    return model


def default_dtype(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    torch.set_default_dtype(torch.float64)
    return model


def threads(model: Net, task: Task, *, lr: float) -> Net:
    torch.set_num_threads(torch.get_num_threads() + 1)
    return finetune(model, task, lr=lr)


def deterministic_flag(model: Net, task: Task, *, lr: float) -> Net:
    torch.use_deterministic_algorithms(True)
    return finetune(model, task, lr=lr)


def gradients_off(model: Net, task: Task, *, lr: float) -> Net:
    finetune(model, task, lr=lr)
    torch.set_grad_enabled(False)
    return model


def environment(model: Net, task: Task, *, lr: float) -> Net:
    os.environ["PLANTED"] = "1"
    return finetune(model, task, lr=lr)


def writing(model: Net, task: Task, *, lr: float) -> Net:
    Path(os.environ.get("TMPDIR", "/tmp"), "planted.txt").write_text("here")
    return finetune(model, task, lr=lr)


def saving(model: Net, task: Task, *, lr: float) -> Net:
    torch.save(model.state_dict(), Path(os.environ.get("TMPDIR", "/tmp"), "planted.pt"))
    return finetune(model, task, lr=lr)


def calling(model: Net, task: Task, *, lr: float) -> Net:
    subprocess.run([sys.executable, "-c", ""], check=True)
    return finetune(model, task, lr=lr)


# ---------------------------------------------------------------------------------------------
# Settings.


def setting_by_a_bit(model: Net, task: Task, *, lr: float, alpha: float) -> Net:
    return finetune(model, task, lr=lr * (1 + 1e-6 * alpha))


def list_unused(model: Net, task: Task, *, lr: float, layers: Sequence[float]) -> Net:
    return finetune(model, task, lr=lr)


def word_unused(model: Net, task: Task, *, lr: float, part: str) -> Net:
    return finetune(model, task, lr=lr)


# ---------------------------------------------------------------------------------------------
# Declarations.


def ascent(model: Net, task: Task, *, lr: float) -> Net:
    def loss(model: Net, x: Tensor, y: Tensor) -> Tensor:
        return -task.loss(model, x, y)

    sgd = {"lr": lr, "momentum": 0.0, "weight_decay": 0.0}
    return descend(model, task.forget.batched(64), loss, sgd=sgd, epochs=1)
