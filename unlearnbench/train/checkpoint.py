"""What a training leaves behind when it is stopped in the middle, to go on from there.

A ``Keeper`` belongs to one training from scratch and to one file, which it writes every so many
minutes, and when ``request`` says that the process must go: then ``Interrupted`` leaves the
training. Run again, the same code with a keeper of the same file comes to the same weights, to the
bit on the same kind of device: walks over the data that were finished are not walked again, and the
one that was not goes on at the step where it stopped.
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
"""Goes up when files of an earlier kind can no longer be gone on from."""


class Interrupted(BaseException):
    """A training has written down where it is, for the process must go.

    Not an ``Exception``, as ``KeyboardInterrupt`` is none: what is being made has not failed.
    """


_asked = False
_at_work: "Keeper | None" = None


def request() -> None:
    """Ask the training that is under way, or else the next one, to stop after its step.

    For a signal handler: it sets two flags.
    """
    global _asked
    _asked = True
    if _at_work is not None:
        _at_work.due = True


@dataclass(frozen=True)
class Place:
    """Where a walk over data is: so many epochs are over, and so many batches of the next one."""

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class _Moment:
    """A walk at a place: all tensors that it goes on from, on the CPU, by name."""

    place: Place
    tensors: dict[str, Tensor]


class Keeper:
    """Writes down where a training is, and brings it back there. Without a path it does nothing.

    A context around the training. A loop says ``begin`` and ``end``, and between them, after each
    step, ``keep`` if something is ``due``.

    Attributes:
        due: whether the loop is to call ``keep`` after its step.
        earlier: seconds that the training took before it was stopped.
        writing: seconds that writing took since.
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
            minutes: from one writing to the next; None writes on request only.
            clock: tells the seconds of ``earlier`` and ``writing``.
        """
        self.path, self.minutes, self.clock = path, minutes, clock
        self.due, self.earlier, self.writing = False, 0.0, 0.0
        self._found: list[_Moment] = []
        self._walked: list[_Moment] = []
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "Keeper":
        """Read what an earlier process left, and be the one that ``request`` is about."""
        global _at_work
        if self.path is None:
            return self
        for half in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of who was killed
            half.unlink(missing_ok=True)
        if self.path.is_file():
            self._found, self.earlier = _read(self.path)
        _at_work, self.due, self._began = self, _asked, self.clock()
        self._wind()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """After a failure that going on would come to again, leave nothing."""
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
        # A clock that is asked after each step would cost more than a flag that a thread sets.
        if self.minutes is not None:
            self._timer = threading.Timer(60 * self.minutes, self._ring)
            self._timer.daemon = True
            self._timer.start()

    def _ring(self) -> None:
        self.due = True

    def begin(self, model: nn.Module, optimizer: Optimizer, **generators: Generator) -> Place:
        """A walk begins: where it goes on; model, optimizer and generators are put there.

        Args:
            model: what is trained, changed in place.
            optimizer: what moves it, changed in place.
            generators: what the walk draws from, by name; the global ones are always among them.
        """
        self._walk = model, optimizer, generators
        if self.path is None or len(self._walked) >= len(self._found):
            return Place()
        moment = self._found[len(self._walked)]
        if not _fits(moment.tensors, model, generators):
            self._found, self.earlier = [], 0.0
            return Place()
        _restore(moment.tensors, model, optimizer, generators)
        return moment.place

    def keep(self, place: Place, **drawn: Tensor) -> None:
        """Write down the walk after a step.

        Args:
            place: what is over.
            drawn: states of generators, by name, that the walk must find to get back to this place,
                where these are not the present ones.

        Raises:
            Interrupted: ``request`` was called.
        """
        assert self.path is not None
        start = self.clock()
        self.due = False
        try:
            seconds = self.earlier - self.writing + start - self._began
            _write(self.path, [*self._walked, self._moment(place, drawn)], seconds)
        except (OSError, SafetensorError) as error:  # the training itself is not at fault
            warnings.warn(f"a checkpoint could not be written: {error}", stacklevel=2)
        self.writing += self.clock() - start
        if _asked:
            raise Interrupted
        self._wind()

    def end(self, place: Place) -> None:
        """The walk is over, at this place; another one may follow."""
        if self.path is not None:
            self._walked.append(self._moment(place, {}))

    def _moment(self, place: Place, drawn: Mapping[str, Tensor]) -> _Moment:
        model, optimizer, generators = self._walk
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for name, generator in generators.items():
            tensors[f"generator.{name}"] = drawn.get(name, generator.get_state())
        for kind, state in _global_generators(model).items():
            tensors[f"global.{kind}"] = state
        for number, parameter in enumerate(_parameters(optimizer)):
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{number}.{name}"] = value
        # Copies: the training may go on, and changes these very tensors.
        copies = {k: torch.clone(v.detach().cpu().contiguous()) for k, v in tensors.items()}
        return _Moment(place, copies)


NO_CHECKPOINTS = Keeper()
"""The keeper of a training that writes no checkpoints."""


def keeper_of(batches: Batches, is_edited: bool = False) -> Checkpoints:
    """The keeper of a training on some batches.

    A training whose gradients are edited, or with a context around each batch, has none: what the
    edit or the context has gathered cannot be restored.
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
    told: Mapping[str, Tensor], model: nn.Module, generators: Mapping[str, Generator]
) -> bool:
    """Whether it is of this net, this loop and this kind of device, whose seconds go on."""
    mine = {f"model.{name}": tensor.shape for name, tensor in model.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in told.items() if name.startswith("model.")}
    names = {f"generator.{name}" for name in generators}
    kinds = {f"global.{kind}" for kind in _global_generators(model)}
    same_kind = kinds == {name for name in told if name.startswith("global.")}
    return mine == theirs and same_kind and names <= told.keys()


def _restore(
    told: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, Generator],
) -> None:
    state = {k.removeprefix("model."): v for k, v in told.items() if k.startswith("model.")}
    model.load_state_dict(state)
    for name, generator in generators.items():
        generator.set_state(told[f"generator.{name}"])
    for number, parameter in enumerate(_parameters(optimizer)):
        prefix = f"optimizer.{number}."
        for name in (name for name in told if name.startswith(prefix)):
            value = told[name].to(parameter.device)
            if value.shape == parameter.shape:
                # In the parameter's own layout, which the fused kernel takes for granted.
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            optimizer.state[parameter][name.removeprefix(prefix)] = value
    torch.set_rng_state(told["global.cpu"])
    if "global.cuda" in told:
        torch.cuda.set_rng_state(told["global.cuda"], _device(model))


# ---------------------------------------------------------------------------------------------
# The file: safetensors, with a JSON text in its header. It is renamed into place.


def _digest(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _write(path: Path, moments: list[_Moment], seconds: float) -> None:
    tensors = {f"{n}.{k}": v for n, one in enumerate(moments) for k, v in one.tensors.items()}
    told = {
        "format": FORMAT,
        "seconds": seconds,
        "places": [asdict(one.place) for one in moments],
        "sha256": _digest(tensors),
    }
    # Not save_file: it has a temporary of its own, which nobody would find if it is killed.
    atomic.write(path, save(tensors, {"told": json.dumps(told)}))


def _read(path: Path) -> tuple[list[_Moment], float]:
    """What the file holds, and the seconds; nothing, if it is damaged or of another kind."""
    try:
        with safe_open(path, "pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()["told"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return [], 0.0
    if told["format"] != FORMAT or told["sha256"] != _digest(tensors):
        return [], 0.0
    moments = [_Moment(Place(**place), {}) for place in told["places"]]
    for name, tensor in tensors.items():
        number, _, inside = name.partition(".")
        moments[int(number)].tensors[inside] = tensor
    return moments, told["seconds"]
