"""Observe side effects of a method: nets that run, optimizers, files, global state.

``Observation`` watches a block of code through global hooks of torch and Python on every net, every
optimizer and every opened file; the code need not use any function of this package. The
observation does not change any result.
"""

import functools
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from unlearnbench.core.data import Dataset
from unlearnbench.pipeline import inputs as pipeline_inputs

State = dict[str, Tensor]

DRAWS = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("normal", "normal_", "uniform_", "bernoulli", "bernoulli_", "multinomial", "random_"),
    *("exponential_", "cauchy_", "log_normal_", "geometric_", "poisson", "random", "getrandbits"),
    "urandom",
}
"""Builtin functions that draw random numbers."""

STORES = {"save": "f", "load": "f", "save_file": "filename", "load_file": "filename"}
"""Functions of ``SERIALISERS`` that write and read files → name of their path argument."""

SERIALISERS = ("torch.serialization", "safetensors.torch")

SAME_IMAGE = 1 - 1e-5
"""Smallest correlation of two inputs that count as one image, up to scale and shift."""

CODE = (".py", ".pyc", ".so", ".pyi", ".pth")
SYSTEM = ("/proc/", "/sys/", "/dev/")


def state(net: nn.Module) -> State:
    """Copy the parameters and buffers of a net, by name."""
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Return whether two states have the same names, dtypes and bits."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name])
        for name in first
    )


@dataclass
class Net:
    """A net that ran in the block, or that ``method._ops.frozen`` made there.

    Attributes:
        module: the net.
        first: its state at its first run.
        advice: its state at its first run without a gradient, if any.
        advised: indices of its first and last such run, in the order of all runs.
        learnt: indices of its runs with a gradient.
    """

    module: nn.Module
    first: State
    advice: State | None = None
    advised: tuple[int, int] | None = None
    learnt: list[int] = field(default_factory=list)


@dataclass
class Steps:
    """The steps of one optimizer.

    Attributes:
        held: its parameters.
        moved: whether any of them had a gradient at some step.
        reached: nets with a new gradient at some step, by ``id`` of the module.
    """

    held: list[Tensor]
    moved: bool = False
    reached: set[int] = field(default_factory=set)


class Observation:
    """Watch a block of code.

    Args:
        data: the data set of the block.
        test_rows: rows (n,) that the block must not use.
        forget_rows: rows (n,) whose use is recorded.

    Attributes:
        nets: every net that ran at top level, not as a submodule, by ``id``.
        steps: the steps of each optimizer, by ``id``.
        last_step: the parameters after the last step of an optimizer.
        draws: names of the functions that drew random numbers.
        saw_test: whether a test row was an input of a net.
        saw_forget: whether a forget row was read from the data set or was an input of a net.
        learnt_forget: whether a forget row was an input of a net with gradients.
        outside: messages about effects outside the process.
        left: messages about global settings that differ after the block.
    """

    def __init__(self, data: Dataset, test_rows: Tensor, forget_rows: Tensor) -> None:
        self.nets: dict[int, Net] = {}
        self.steps: dict[int, Steps] = {}
        self.last_step: list[Tensor] = []
        self.draws: set[str] = set()
        self.saw_test = self.saw_forget = self.learnt_forget = False
        self.outside: list[str] = []
        self.left: list[str] = []
        self._data, self._forget_rows = data, forget_rows
        self._forget_nP = _directions(data.inputs(forget_rows))
        test_nP = _directions(data.inputs(test_rows))
        visible = torch.ones(len(data.y), dtype=torch.bool)
        visible[test_rows] = False
        twins_n = _most_alike(test_nP, _directions(data.inputs(visible.nonzero().flatten())))
        self._test_nP = test_nP[twins_n < SAME_IMAGE]
        self._depth, self._runs = 0, 0
        self._seen_gradients: dict[int, tuple[Tensor, int]] = {}
        self._default_rng = np.random.default_rng
        self._optimizers: list[Optimizer] = []  # references, so that no ``id`` is reused

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the block; global settings that it changed are restored after it."""
        before, profile = settings(), sys.getprofile()
        hooks = _global_hooks()
        with ExitStack() as stack:
            for handle in (
                modules.register_module_forward_pre_hook(self._enter),
                modules.register_module_forward_hook(self._leave, always_call=True),
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            inputs = Dataset.inputs

            def handed_out(data: Dataset, rows_B: Tensor) -> Tensor:
                self.saw_forget |= bool(torch.isin(rows_B.cpu(), self._forget_rows.cpu()).any())
                return inputs(data, rows_B)

            stack.enter_context(patch.object(Dataset, "inputs", handed_out))
            stack.enter_context(patch.object(pipeline_inputs, "_dataset", self._loading))
            stack.enter_context(patch.object(np.random, "default_rng", self._numpy_generator))
            stack.enter_context(_files_opened(self.outside))
            try:
                sys.setprofile(self._profiled)
                yield
            finally:
                sys.setprofile(profile)
        self.left = changed(before)
        if _global_hooks() != hooks:
            self.left.append("a hook on all modules is left")
        restore(before)

    def made(self, make: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
        """Wrap a function that makes teachers; the teachers are watched from their creation on."""

        @functools.wraps(make)
        def watched(model: nn.Module) -> nn.Module:
            teacher = make(model)
            now = state(teacher)
            self.nets[id(teacher)] = Net(teacher, now, now)
            return teacher

        return watched

    # -- Nets.

    @torch.no_grad()
    def _note_inputs(self, x: Tensor, learning: bool) -> None:
        x_BP = _directions(x)
        if x_BP.shape[1] != self._forget_nP.shape[1]:
            return
        x_BP = x_BP.to(self._forget_nP)
        if bool((_most_alike(x_BP, self._forget_nP) > SAME_IMAGE).any()):
            self.saw_forget, self.learnt_forget = True, self.learnt_forget or learning
        self.saw_test |= bool((_most_alike(x_BP, self._test_nP) > SAME_IMAGE).any())

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        parameters = list(module.parameters())
        # ``functional_call`` replaces parameters by plain tensors, which are not weights of a net.
        if not parameters or not all(isinstance(p, nn.Parameter) for p in parameters):
            return
        self._runs += 1
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        if id(module) not in self.nets:
            self.nets[id(module)] = Net(module, state(module))
        net = self.nets[id(module)]
        if learning:
            net.learnt.append(self._runs)
        else:
            net.advice = state(module) if net.advice is None else net.advice
            net.advised = (net.advised or (self._runs, 0))[0], self._runs
        for x in inputs[:1]:
            if isinstance(x, Tensor) and x.ndim > 1:
                with suppress(RuntimeError):  # tensors of vmap cannot be read
                    self._note_inputs(x, learning)

    def _leave(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self._depth -= 1

    # -- Optimizers.

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if id(optimizer) not in self.steps:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.steps[id(optimizer)] = Steps(parameters)
            self._optimizers.append(optimizer)
        steps = self.steps[id(optimizer)]
        closure = len(args) > 1 or kwargs.get("closure") is not None
        steps.moved |= closure or any(p.grad is not None for p in steps.held)
        for key, net in self.nets.items():
            for p in net.module.parameters():
                if p.grad is None:
                    continue
                gradient, version = self._seen_gradients.get(id(p), (None, 0))
                if gradient is not p.grad or version != p.grad._version:
                    self._seen_gradients[id(p)] = p.grad, p.grad._version
                    steps.reached.add(key)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        steps = self.steps[id(optimizer)]
        self.last_step = [p.detach().clone() for p in steps.held]
        for p in steps.held:  # a gradient changed by the step itself is not a new one
            if p.grad is not None:
                self._seen_gradients[id(p)] = p.grad, p.grad._version

    # -- Effects outside the process.

    def _loading(self, *arguments: Any) -> Any:
        self.outside.append("loads a data set")
        raise PermissionError("a method has no data but its task's")

    def _numpy_generator(self, *arguments: Any, **named: Any) -> np.random.Generator:
        self.draws.add("default_rng")
        return self._default_rng(*arguments, **named)

    def _profiled(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            name = getattr(argument, "__name__", "")
            if name in DRAWS:
                self.draws.add(name)
        elif event == "call" and frame.f_code.co_name in STORES:
            # These functions open files without an audit event of Python.
            path = frame.f_locals.get(STORES[frame.f_code.co_name])
            if isinstance(path, str | os.PathLike) and frame.f_globals["__name__"] in SERIALISERS:
                self.outside.append(f"{frame.f_code.co_name}s the file {os.fspath(path)}")


def _directions(x: Tensor) -> Tensor:
    """Center each row (n, P) and scale it to unit norm, which removes scale and shift."""
    x_nP = x.detach().flatten(1).float()
    x_nP = x_nP - x_nP.mean(1, keepdim=True)
    return nn.functional.normalize(x_nP)


def _most_alike(x_nP: Tensor, y_mP: Tensor) -> Tensor:
    """Return the largest correlation (n,) of each row of x with any row of y."""
    if not len(y_mP) or not len(x_nP):
        return torch.zeros(len(x_nP))
    alike_n: Tensor = (x_nP @ y_mP.T).amax(1)
    return alike_n


# ---------------------------------------------------------------------------------------------
# Files and processes. An audit hook cannot be removed: one hook appends to ``_opened``, if set.

_opened: list[str] | None = None


@functools.cache
def _listen() -> None:
    sys.addaudithook(_audited)


def _audited(event: str, args: tuple[Any, ...]) -> None:
    if _opened is None:
        return
    if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "socket.connect"):
        _opened.append("reaches out of the process")
    elif event == "open" and isinstance(args[0], str | bytes) and not _importing():
        path, mode = os.fsdecode(args[0]), args[1]
        flags = args[2] if isinstance(args[2], int) else 0
        writes = flags & (os.O_WRONLY | os.O_RDWR) or set("wax+") & set(mode or "")
        if path.startswith(SYSTEM) or (path.endswith(CODE) and not writes):
            return
        _opened.append(f"{'writes' if writes else 'reads'} the file {path}")


def _importing() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def _files_opened(outside: list[str]) -> Iterator[None]:
    global _opened
    _listen()
    earlier, _opened = _opened, outside
    try:
        yield
    finally:
        _opened = earlier


# ---------------------------------------------------------------------------------------------
# Global settings.


def _put_environment(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


Setting = tuple[Callable[[], Any], Callable[[Any], Any]]

_SETTINGS: dict[str, Setting] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.use_deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch.set_float32_matmul_precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.autograd.set_detect_anomaly": (
        torch.is_anomaly_enabled,
        torch.autograd.set_detect_anomaly,
    ),
    "torch.backends.cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        lambda value: setattr(torch.backends.cudnn, "deterministic", value),
    ),
    "torch.backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    ),
    "torch's global seed": (torch.initial_seed, lambda value: None),  # ``seeded`` restores it
    "NumPy's global generator": (
        lambda: np.random.get_state(legacy=False),  # noqa: NPY002 - to check that it is unchanged
        np.random.set_state,
    ),
    "Python's global generator": (random.getstate, random.setstate),
    "the working directory": (os.getcwd, os.chdir),
    "the environment": (
        lambda: dict(os.environ),
        _put_environment,
    ),
}


def settings() -> dict[str, Any]:
    """Return the global settings of the process that a method must not change."""
    return {name: get() for name, (get, _) in _SETTINGS.items()}


def changed(before: Mapping[str, Any]) -> list[str]:
    """Return messages about the settings that differ from ``before``."""
    now = settings()
    return [f"{name} changed" for name in now if repr(now[name]) != repr(before[name])]


def restore(before: Mapping[str, Any]) -> None:
    """Restore the settings that differ from ``before``."""
    now = settings()
    for name, (_, put) in _SETTINGS.items():
        if repr(now[name]) != repr(before[name]):
            put(before[name])


def _global_hooks() -> list[int]:
    hooks = (
        modules._global_forward_hooks,
        modules._global_forward_pre_hooks,
        modules._global_backward_hooks,
        modules._global_backward_pre_hooks,
    )
    return [len(of_kind) for of_kind in hooks]
