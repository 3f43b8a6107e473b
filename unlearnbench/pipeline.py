"""The chain: dataset → split → original → unlearned. Predictions follow in ``outputs``.

Each stage asks for the one before it, and each artifact passes through the store, so it is made
once. The order of the work is the call graph below, read from the bottom up.
"""

import ctypes
import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file as save_tensors
from torch import Tensor, nn

from unlearnbench import train, weights
from unlearnbench.cell import UNTOUCHED, Cell, target
from unlearnbench.checkpoint import NO_CHECKPOINTS, Keeper
from unlearnbench.core.errors import Failed, Skip
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.model.linear import LOSSES
from unlearnbench.seeding import generator, seeded
from unlearnbench.split import split_of
from unlearnbench.store import Store
from unlearnbench.values import (
    Artifact,
    Batches,
    Compared,
    Compute,
    Dataset,
    Hooks,
    Loss,
    Probe,
    Split,
    Task,
    WhiteBox,
    no_probe,
)

NO_HOOKS = Hooks()

PREDICT_ROWS = 1000
"""Rows a batch when predicting. Fixed, for the last bits of a logit depend on it."""

DTYPES = {"64-true": torch.float64}
"""Of weights and inputs, by ``precision``; float32 under any other."""

WEIGHTS, PREPARED = "weights.safetensors", "prepared.safetensors"


@dataclass
class Lab:
    """What one process works with.

    Attributes:
        store: where artifacts are.
        device: ``cpu``, ``cuda``, ``cuda:1`` …
        failures: keys of predictions known to be impossible, and why: not tried again in this run.
        ends: what attacks found on controls, by key of their rows and the headline figure that is
            taken apart: each method is held to them.
    """

    store: Store
    device: str
    failures: dict[str, str] = field(default_factory=dict)
    ends: dict[tuple[str, str], Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------
# Data.


def dataset(cell: Cell, device: str = "cpu") -> Dataset:
    """The cell's data set, in memory; kept for the next cell that asks for it.

    Raises:
        ValueError, FileNotFoundError: files are missing or not what they should be.
    """
    option = cell.dataset
    given = {key: option[key] for key in ("root", "path", "fingerprint") if key in option}
    call, content = json.dumps({**option["call"], **given}), option.get("content")
    dtype = DTYPES.get(cell.precision, torch.float32)
    return _dataset(call, content, option.get("limit"), device, dtype)


@lru_cache(maxsize=2)
def _dataset(
    call: str, content: str | None, limit: int | None, device: str, dtype: torch.dtype
) -> Dataset:
    # As text, for a cache needs what can be hashed; a file that changes is another data set.
    load, arguments = target(json.loads(call))
    loaded = load(**arguments)
    assert isinstance(loaded, Dataset)
    return (loaded if limit is None else loaded.limited(limit)).computed_in(dtype).to(device)


def batches(
    cell: Cell,
    data: Dataset,
    rows: Tensor,
    part: str,
    hooks: Hooks = NO_HOOKS,
) -> Batches:
    """Some rows (n,) as batches, with generators of their own that the part's name seeds."""
    device = data.x.device
    on_device = rows.to(device)
    return Batches(
        data=data,
        rows=on_device,
        y=data.y[on_device],
        size=PREDICT_ROWS,
        order=generator(cell.model_seed, part, "order"),
        noise=generator(cell.model_seed, part, "augmentation"),
        compute=Compute(str(device), cell.precision, cell.cuda_graphs),
        hooks=hooks,
    )


# ---------------------------------------------------------------------------------------------
# Models.


def fresh(cell: Cell, data: Dataset, purpose: str = "weights") -> nn.Module:
    """An untrained net on the data's device, channels last, with the weights this seed draws.

    Its weights are drawn in the data's type: rounded draws differ between processors.

    Raises:
        Skip: the model does not take this kind of data.
    """
    kinds, model = cell.model["kinds"], cell.model["name"]
    if data.kind not in kinds:
        told = f"model={model} takes {' or '.join(kinds)} data"
        raise Skip(f"{told}; dataset={cell.dataset['name']} is {data.kind}")
    build, arguments = target(cell.model["call"])
    with seeded(cell.model_seed, purpose), by_default(data.dtype):
        net = build(data.shape, data.n_classes or 1, **arguments)
    assert isinstance(net, nn.Module)
    if (temperature := cell.train.get("temperature")) is not None:
        net.register_forward_hook(_Tempered(temperature))
    layout = torch.channels_last if data.kind == "image" else torch.preserve_format
    return net.to(device=data.x.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


@contextmanager
def by_default(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors in this type inside the block, unless they name another."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class _Tempered:
    """Logits over T, in training and in every answer; no lambda, for deep copies keep it too."""

    temperature: float

    def __call__(self, net: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> Tensor:
        return logits / self.temperature


def task(
    cell: Cell,
    data: Dataset,
    parts: Split,
    notes: dict[str, float] | None = None,
    prepared: Mapping[str, Tensor] | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Task:
    """What a method may touch; its generators are new with every call.

    Args:
        cell: whose task.
        data: the whole data set, on the device.
        parts: which rows do what.
        notes: where the method's own figures are put.
        prepared: what its ``prepare`` step left.
        hooks: what accompanies each training on the rows.
    """
    told: dict[str, float] = {} if notes is None else notes
    loss: Loss = train.cross_entropy if data.n_classes else train.squared_error
    if "loss" in cell.model["call"]:
        loss = LOSSES[cell.model["call"]["loss"]]
    fit, arguments = target(cell.train["call"])
    return Task(
        retain=batches(cell, data, parts.retain, "retain", hooks),
        forget=batches(cell, data, parts.forget, "forget", hooks),
        val=batches(cell, data, parts.val, "val", hooks),
        train=batches(cell, data, parts.train, "retain", hooks),
        n_classes=data.n_classes,
        loss=loss,
        fit=lambda model, batches: fit(model, batches, loss, **arguments),
        fresh=lambda purpose="weights": fresh(cell, data, purpose),
        generator=lambda purpose: generator(cell.model_seed, purpose),
        note=told.__setitem__,
        prepared=prepared or {},
    )


def clock(device: str) -> Callable[[], float]:
    """What tells seconds: on a CPU those of the processor, which other work on it does not change.

    A worker computes in one thread, so on an idle core they are the clock's. A GPU has none of its
    own; there it is the clock.
    """
    return time.perf_counter if device.startswith("cuda") else time.process_time


@lru_cache
def device_name(device: str) -> str:
    """What a row says of the device: ``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


@contextmanager
def _measured(device: str) -> Iterator[dict[str, Any]]:
    """Seconds and peak bytes of the block; the device has finished when the clock stops."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):  # Linux only: forget the process's earlier peak
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    taken: dict[str, Any] = {"measured_on": device_name(device)}
    now = clock(device)
    start = now()
    yield taken
    if cuda:
        torch.cuda.synchronize(device)
    taken["seconds"] = now() - start
    taken["peak_bytes"] = (
        torch.cuda.max_memory_allocated(device)
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


def _load_model(lab: Lab, cell: Cell, key: str) -> nn.Module:
    entry = lab.store.load(key)
    if WEIGHTS in entry.manifest.get("dropped", {}):
        return _made_again(lab, cell, entry.manifest["dropped"][WEIGHTS])
    data = dataset(cell, lab.device)
    members = entry.manifest["members"]
    net = Ensemble(fresh(cell, data) for _ in range(members)) if members else fresh(cell, data)
    net.load_state_dict(load_tensors(entry.read(WEIGHTS)))
    return net.eval()


def _made_again(lab: Lab, cell: Cell, checksum: str) -> nn.Module:
    """An unlearned model whose weights were not kept; the same to the bit, or none."""
    net, _ = _run(lab, cell, prepared(lab, cell))
    if hashlib.sha256(to_bytes(_state(net))).hexdigest() != checksum:
        told = (
            "store.keep=predictions: made again, the model is another than its predictions are of"
        )
        raise Failed(f"{told}; delete {lab.store.path(cell.model_key)} and these")
    return net.eval()


def _state(net: nn.Module) -> dict[str, Tensor]:
    """The weights, each in memory of its own: safetensors stores no tied ones as they are."""
    return {k: _apart(v) for k, v in net.state_dict().items()}


def _apart(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _save_model(
    folder: Path, net: nn.Module, taken: Mapping[str, Any], cell: Cell
) -> dict[str, Any]:
    state = _state(net)
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise Failed(f"weights are not finite: {broken[0]}")
    save_tensors(state, folder / WEIGHTS)
    axes = ["dataset", "model", "train", "split", "precision"]
    axes += [] if cell.untouched else ["forget", "method"]
    made_of = {axis: getattr(cell, axis) for axis in axes}
    members = len(net.members) if isinstance(net, Ensemble) else None
    told = {"kind": "model", "seed": cell.model_seed, "members": members, "made_of": made_of}
    return {**taken, **told, "role": cell.kind}


def original(lab: Lab, cell: Cell) -> nn.Module:
    """The original: trained on retain and forget rows without knowing which is which."""
    cell = cell.original()

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, lab.device)
        if "path" in cell.train:
            net, taken = _checkpoint(cell, data), {"seconds": 0.0, "peak_bytes": 0}
            return _save_model(folder, net, taken, cell)
        net, taken = _trained(lab, cell, keeper=_keeper(lab, cell, cell.model_key))
        return _save_model(folder, net, taken, cell)

    lab.store.get(cell.model_key, make)
    return _load_model(lab, cell, cell.model_key)


def _keeper(lab: Lab, cell: Cell, key: str) -> Keeper:
    """Who keeps a training from scratch: if it is stopped, whoever comes next goes on from there.

    Methods are short, and begin again.
    """
    return Keeper(lab.store.unfinished(key), cell.checkpoint_minutes, clock(lab.device))


def _trained(
    lab: Lab, cell: Cell, probe: Probe = no_probe, keeper: Keeper = NO_CHECKPOINTS
) -> tuple[nn.Module, dict[str, Any]]:
    """The original by training it, and what that cost, before it was stopped too."""
    data = dataset(cell, lab.device)
    hooks = Hooks(probe, keeper=keeper)
    whole = task(cell, data, split_of(cell, data).hide_forget(), hooks=hooks)
    with keeper, seeded(cell.model_seed, "global"), _measured(lab.device) as taken:
        net = whole.fit(fresh(cell, data), whole.train)
    taken["seconds"] += keeper.earlier - keeper.writing
    return net, taken


def _checkpoint(cell: Cell, data: Dataset) -> nn.Module:
    """The original a user brings.

    Raises:
        ValueError: the file is of another net.
        FileNotFoundError: there is no such file.
    """
    net = fresh(cell, data)
    weights.load(net, Path(cell.train["path"]).expanduser(), cell.model["name"])
    return net


def prepared(lab: Lab, cell: Cell) -> dict[str, Tensor]:
    """What the method's ``prepare`` step left, for methods that must watch the training."""
    if cell.method.get("prepare") is None:
        return {}

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, lab.device)
        parts, model = split_of(cell, data), original(lab, cell)
        with seeded(cell.model_seed, "global"), _measured(lab.device) as taken:
            left = left_by_prepare(cell, model, data, parts)
        tensors = {name: _apart(tensor) for name, tensor in left.items()}
        save_tensors(tensors, folder / PREPARED)
        return {**taken, "kind": "prepared", "bytes": sum(t.nbytes for t in tensors.values())}

    lab.store.get(cell.prepared_key, make)
    held = load_tensors(lab.store.load(cell.prepared_key).read(PREPARED))
    return {name: tensor.to(lab.device) for name, tensor in held.items()}


def left_by_prepare(cell: Cell, model: nn.Module, data: Dataset, parts: Split) -> dict[str, Tensor]:
    """What the method's ``prepare`` step leaves, computed here and now; nothing without one."""
    if cell.method.get("prepare") is None:
        return {}
    step, arguments = target(cell.method["prepare"])
    if cell.traits.get("prepares_blind"):
        parts = parts.hide_forget()
    left: dict[str, Tensor] = step(model, task(cell, data, parts), **arguments)
    return left


def unlearned(lab: Lab, cell: Cell) -> nn.Module:
    """The model after the cell's method; only the method's own call is inside the clock.

    Raises:
        Failed: its weights are not finite.
        Skip: the method cannot work on this cell on principle.
    """
    if cell.untouched:
        return original(lab, cell)

    def make(folder: Path) -> dict[str, Any]:
        keeper = _keeper(lab, cell, cell.model_key) if cell.from_scratch else NO_CHECKPOINTS
        model, told = _run(lab, cell, prepared(lab, cell), keeper=keeper)
        return {**_save_model(folder, model, told, cell), "notes": told["notes"]}

    lab.store.get(cell.model_key, make)
    return _load_model(lab, cell, cell.model_key)


def _run(
    lab: Lab,
    cell: Cell,
    left: Mapping[str, Tensor],
    probe: Probe = no_probe,
    keeper: Keeper = NO_CHECKPOINTS,
) -> tuple[nn.Module, dict[str, Any]]:
    """What the method makes of the original, and what that cost and noted."""
    data = dataset(cell, lab.device)
    notes: dict[str, float] = {}
    todo = task(cell, data, split_of(cell, data), notes, left, Hooks(probe, keeper=keeper))
    method, arguments = target(cell.method["call"])
    model = fresh(cell, data) if cell.from_scratch else original(lab, cell)
    with keeper, seeded(cell.model_seed, "global"), _measured(lab.device) as taken:
        model = method(model, todo, **arguments)
    taken["seconds"] += keeper.earlier - keeper.writing
    return model, {**taken, "notes": notes}


def again(lab: Lab, cell: Cell, probe: Probe) -> nn.Module:
    """The cell's model, made once more to be seen on its way; the stored one keeps its cost.

    Raises:
        Failed: it is another than the stored one.
    """
    stored = unlearned(lab, cell)
    if cell.untouched and "path" in cell.train:
        return stored  # it was brought
    if cell.untouched:
        model, _ = _trained(lab, cell.original(), probe)
    else:
        model, _ = _run(lab, cell, prepared(lab, cell), probe)
    mine, theirs = model.state_dict(), stored.state_dict()
    if not all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items()):
        raise Failed("train.trace_every: made again, the model is another than the stored one")
    return model.eval()


def passing(lab: Lab, cell: Cell) -> nn.Module:
    """The model of a shadow cell. Only its outputs are stored: there are many of them.

    Raises:
        Skip: the method has prepared for the original's rows, and this request brings others.
    """
    if cell.untouched:
        return original(lab, cell)
    if cell.method.get("prepare") is None:
        keeper = _keeper(lab, cell, cell.predictions_key) if cell.from_scratch else NO_CHECKPOINTS
        return _run(lab, cell, {}, keeper=keeper)[0]
    if cell.forget.get("online"):
        raise Skip(f"method={cell.method['name']} has no step that takes in new records")
    if cell.traits.get("prepares_blind") and cell.shares_preparation:
        return _run(lab, cell, prepared(lab, cell))[0]  # all requests to an original share it
    data = dataset(cell, lab.device)
    with seeded(cell.model_seed, "global"):
        left = left_by_prepare(cell, original(lab, cell), data, split_of(cell, data))
    return _run(lab, cell, left)[0]


def in_memory(lab: Lab, cell: Cell) -> nn.Module:
    """The model after the cell's method, made here and now and stored nowhere.

    What it starts from is: the original, and what a ``prepare`` step left.
    """
    return _run(lab, cell, prepared(lab, cell))[0]


def white_box(lab: Lab, cell: Cell) -> WhiteBox:
    """The cell's model itself, for an attack that holds it, and the one that judges the attack."""
    assert cell.judge is not None
    data = dataset(cell, lab.device)
    return WhiteBox(
        model=unlearned(lab, cell),
        judge=original(lab, cell.judge),
        data=data,
        split=split_of(cell, data),
    )


def compared(lab: Lab, cell: Cell) -> Compared:
    """The cell's model beside the retrained one and the original of its seed."""
    data = dataset(cell, lab.device)
    return Compared(
        model=unlearned(lab, cell),
        retrained=unlearned(lab, replace(cell, method=cell.reference)),
        original=original(lab, replace(cell, method=UNTOUCHED)),
        task=task(cell, data, split_of(cell, data)),
    )


def artifact(lab: Lab, cell: Cell) -> Artifact:
    """The stored model of a cell, with what it cost.

    Raises:
        FileNotFoundError: it has not been made.
    """
    entry = lab.store.load(cell.model_key)
    told = entry.manifest
    state = load_tensors(entry.read(WEIGHTS))
    return Artifact(cell.model_key, state, told["seconds"], told["peak_bytes"])
