"""Checkpoints of a training, from which an interrupted training resumes.

A ``Keeper`` belongs to one training from scratch and to one file. It writes the file at a fixed
interval in minutes, and after a call of ``request``, which ends the process: then the training
raises ``Interrupted``. The same code with a keeper of the same file reaches the same weights, bit
for bit on the same kind of device: completed runs of a loop are restored and not repeated, and an
incomplete one resumes at the step after the checkpoint.
"""

import hashlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from unlearnbench.core import atomic
from unlearnbench.core.data import Batches, Checkpoints

FORMAT = 1
"""Incremented when files of an earlier format can no longer be resumed from."""


class Interrupted(BaseException):
    """A training has written a checkpoint because the process must end.

    Like ``KeyboardInterrupt`` it is no ``Exception``, because the artifact has not failed.
    """


_stop_requested = False
_at_work: "Keeper | None" = None


def request() -> None:
    """Request the current training, or else the next one, to stop after its step.

    For a signal handler: this function only sets two flags.
    """
    global _stop_requested
    _stop_requested = True
    if _at_work is not None:
        _at_work.due = True


@dataclass(frozen=True)
class Place:
    """A position in a training: completed epochs, and completed batches of the next epoch."""

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class _Moment:
    """The state of a training at a place: all tensors needed to resume, on the CPU, by name."""

    place: Place
    tensors: dict[str, Tensor]


class Keeper:
    """Writes and restores checkpoints of a training. Without a path it does nothing.

    It is a context around the training. A loop calls ``begin`` and ``end``, and between them, after
    each step, ``keep`` if ``due`` is true.

    Attributes:
        due: whether the loop is to call ``keep`` after its step.
        earlier: seconds of the training before it was interrupted.
        writing: seconds of writing checkpoints since the training resumed.
    """

    def __init__(
        self,
        path: Path | None = None,
        minutes: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Set up.

        Args:
            path: the file, which need not exist.
            minutes: minutes between two checkpoints; None writes on request only.
            clock: returns the seconds for ``earlier`` and ``writing``.
        """
        self.path, self.minutes, self.clock = path, minutes, clock
        self.due, self.earlier, self.writing = False, 0.0, 0.0
        self._stored: list[_Moment] = []
        self._walked: list[_Moment] = []
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Keeper":
        """Read the checkpoint of an earlier process, and become the target of ``request``."""
        global _at_work
        if self.path is None:
            return self
        for half in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of a killed process
            half.unlink(missing_ok=True)
        if self.path.is_file():
            self._stored, self.earlier = _read(self.path)
        _at_work, self.due, self._began = self, _stop_requested, self.clock()
        self._wind()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Remove the checkpoint after a failure that a resumed training would repeat."""
        global _at_work
        if self.path is None:
            return
        _at_work = None
        if self._timer is not None:
            self._timer.cancel()
        outside = OSError, MemoryError, torch.OutOfMemoryError
        if isinstance(error, Exception) and not isinstance(error, outside):
            self.path.unlink(missing_ok=True)

    def _wind(self) -> None:
        # Reading a clock after each step would cost more than a flag that a thread sets.
        if self.minutes is not None:
            self._timer = threading.Timer(60 * self.minutes, self._ring)
            self._timer.daemon = True
            self._timer.start()

    def _ring(self) -> None:
        self.due = True

    def begin(self, model: nn.Module, optimizer: Optimizer, **generators: Generator) -> Place:
        """Begin a run of a loop; restores model, optimizer and generators of a checkpoint.

        Args:
            model: the model in training, changed in place.
            optimizer: its optimizer, changed in place.
            generators: generators of the loop, by name; the global ones are always included.

        Returns:
            The place at which the loop is to start.
        """
        self._state = model, optimizer, generators
        if self.path is None or len(self._walked) >= len(self._stored):
            return Place()
        moment = self._stored[len(self._walked)]
        if not _fits(moment.tensors, model, generators):
            self._stored, self.earlier = [], 0.0
            return Place()
        _restore(moment.tensors, model, optimizer, generators)
        return moment.place

    def keep(self, place: Place, **drawn: Tensor) -> None:
        """Write a checkpoint after a step.

        Args:
            place: completed epochs and batches.
            drawn: states of generators, by name, that are needed to resume at this place, if they
                differ from the present states.

        Raises:
            Interrupted: ``request`` was called.
        """
        assert self.path is not None
        start = self.clock()
        self.due = False
        try:
            seconds = self.earlier - self.writing + start - self._began
            _write(self.path, [*self._walked, self._moment(place, drawn)], seconds)
        except (OSError, SafetensorError) as error:  # the training itself can continue
            warnings.warn(f"a checkpoint could not be written: {error}", stacklevel=2)
        self.writing += self.clock() - start
        if _stop_requested:
            raise Interrupted
        self._wind()

    def end(self, place: Place) -> None:
        """End the run of a loop at this place; another run may follow."""
        if self.path is not None:
            self._walked.append(self._moment(place, {}))

    def _moment(self, place: Place, drawn: Mapping[str, Tensor]) -> _Moment:
        model, optimizer, generators = self._state
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for name, generator in generators.items():
            tensors[f"generator.{name}"] = drawn.get(name, generator.get_state())
        for kind, state in _global_generators(model).items():
            tensors[f"global.{kind}"] = state
        for number, parameter in enumerate(_parameters(optimizer)):
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{number}.{name}"] = value
        # Copies, because a training that continues changes these tensors in place.
        copies = {k: torch.clone(v.detach().cpu().contiguous()) for k, v in tensors.items()}
        return _Moment(place, copies)


NO_CHECKPOINTS = Keeper()
"""The keeper of a training that writes no checkpoints."""


def keeper_of(batches: Batches, is_edited: bool = False) -> Checkpoints:
    """The keeper of a training on some batches.

    A training with edited gradients, or with a context around each batch, has no checkpoints: the
    state of the edit or of the context cannot be restored.
    """
    if batches.hooks.keeper is None or is_edited or batches.hooks.around is not nullcontext:
        return NO_CHECKPOINTS
    return batches.hooks.keeper


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _global_generators(model: nn.Module) -> dict[str, Tensor]:
    """States of the global generators that a forward pass may draw from, for dropout."""
    states, device = {"cpu": torch.get_rng_state()}, _device(model)
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _fits(
    tensors: Mapping[str, Tensor], model: nn.Module, generators: Mapping[str, Generator]
) -> bool:
    """Whether tensors of a checkpoint belong to this net, this loop and this kind of device."""
    shapes = {f"model.{name}": tensor.shape for name, tensor in model.state_dict().items()}
    stored_shapes = {
        name: tensor.shape for name, tensor in tensors.items() if name.startswith("model.")
    }
    names = {f"generator.{name}" for name in generators}
    kinds = {f"global.{kind}" for kind in _global_generators(model)}
    same_kind = kinds == {name for name in tensors if name.startswith("global.")}
    return shapes == stored_shapes and same_kind and names <= tensors.keys()


def _restore(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, Generator],
) -> None:
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(state)
    for name, generator in generators.items():
        generator.set_state(tensors[f"generator.{name}"])
    for number, parameter in enumerate(_parameters(optimizer)):
        prefix = f"optimizer.{number}."
        for name in (name for name in tensors if name.startswith(prefix)):
            value = tensors[name].to(parameter.device)
            if value.shape == parameter.shape:
                # In the layout of the parameter, which the fused kernel requires.
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            optimizer.state[parameter][name.removeprefix(prefix)] = value
    torch.set_rng_state(tensors["global.cpu"])
    if "global.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["global.cuda"], _device(model))


# ---------------------------------------------------------------------------------------------
# The file: safetensors, with a JSON text in its header, written atomically.


def _digest(tensors: Mapping[str, Tensor]) -> str:
    checksum = hashlib.sha256()
    for name in sorted(tensors):
        checksum.update(name.encode())
        checksum.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()


def _write(path: Path, moments: list[_Moment], seconds: float) -> None:
    tensors = {f"{n}.{k}": v for n, moment in enumerate(moments) for k, v in moment.tensors.items()}
    header = {
        "format": FORMAT,
        "seconds": seconds,
        "places": [asdict(moment.place) for moment in moments],
        "sha256": _digest(tensors),
    }
    # Not save_file: its own temporary file would never be removed if the process is killed.
    atomic.write(path, save(tensors, {"told": json.dumps(header)}))


def _read(path: Path) -> tuple[list[_Moment], float]:
    """Content of the file, and the seconds; nothing if it is damaged or of another format."""
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, Any] = json.loads(file.metadata()["told"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return [], 0.0
    if header["format"] != FORMAT or header["sha256"] != _digest(tensors):
        return [], 0.0
    moments = [_Moment(Place(**place), {}) for place in header["places"]]
    for name, tensor in tensors.items():
        number, _, inside = name.partition(".")
        moments[int(number)].tensors[inside] = tensor
    return moments, header["seconds"]
