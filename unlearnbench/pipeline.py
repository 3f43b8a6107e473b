"""The chain: dataset → split → original → unlearned. Predictions follow in ``outputs``.

Each stage asks for the one before it, and each artifact passes through the store, so it is made
once. The order of the work is the call graph below, read from the bottom up.
"""

import ctypes
import importlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file as save_tensors
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from unlearnbench import train
from unlearnbench.cell import Cell
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.population import Population, audit_pool
from unlearnbench.seeding import generator, seeded
from unlearnbench.store import Store
from unlearnbench.values import (
    FORGOTTEN,
    UNSEEN,
    Artifact,
    Batches,
    Compute,
    Dataset,
    Skip,
    Split,
    Task,
)

PREDICT_ROWS = 1000
"""Rows a batch when predicting. Fixed, for the last bits of a logit depend on it."""

WEIGHTS, PREPARED = "weights.safetensors", "prepared.safetensors"


class Failed(RuntimeError):
    """An artifact could not be made, and others that need it cannot either."""


@dataclass
class Lab:
    """What one process works with.

    Attributes:
        store: where artifacts are.
        device: ``cpu``, ``cuda``, ``cuda:1`` …
        failures: keys of predictions known to be impossible, and why: not tried again in this run.
    """

    store: Store
    device: str
    failures: dict[str, str] = field(default_factory=dict)


def target(call: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that ``_target_`` names, and the arguments beside it.

    Raises:
        ValueError: there is no such function.
    """
    module, _, name = call["_target_"].rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"_target_={call['_target_']}: cannot be imported ({error})") from error
    return function, {key: value for key, value in call.items() if key != "_target_"}


# ---------------------------------------------------------------------------------------------
# Data.


def dataset(cell: Cell, device: str = "cpu") -> Dataset:
    """The cell's data set, in memory; kept for the next cell that asks for it.

    Raises:
        ValueError, FileNotFoundError: files are missing or not what they should be.
    """
    option = cell.dataset
    given = {key: option[key] for key in ("root", "path", "fingerprint") if key in option}
    return _dataset(json.dumps({**option["call"], **given}), option.get("content"), device)


@lru_cache(maxsize=2)
def _dataset(call: str, content: str | None, device: str) -> Dataset:
    # As text, for a cache needs what can be hashed; a file that changes is another data set.
    load, arguments = target(json.loads(call))
    loaded = load(**arguments)
    assert isinstance(loaded, Dataset)
    return loaded.to(device)


def split(cell: Cell, y_N: Tensor, train_rows: Tensor, test_rows: Tensor) -> Split:
    """Which rows do what: validation rows off the training part, then the forget set.

    scikit-learn's splitter, as in Deep Unlearn (arXiv 2410.01276), whose splits this reproduces to
    the row with the default settings.
    """
    kept, val = _kept_and_val(cell, train_rows)
    if "population" in cell.split:
        return _shadow_split(cell, population(cell, train_rows), kept, val, test_rows)
    rows = torch.from_numpy(kept)
    choose, arguments = target(cell.forget["call"])
    if "path" in cell.forget:
        arguments["path"] = cell.forget["path"]
    forget = choose(rows, y_N, **arguments)
    parts = Split(train=rows, val=torch.from_numpy(val), test=test_rows, forget=forget)
    if not len(parts.retain):
        raise ValueError(f"forget={cell.forget['name']}: no row is left to retain")
    return parts


def _kept_and_val(cell: Cell, train_rows: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    kept, val = train_test_split(
        train_rows.numpy(), test_size=cell.split["val"], random_state=cell.split["seed"]
    )
    return kept, val


def _shadow_split(
    cell: Cell,
    audited: Population,
    kept: NDArray[np.int64],
    val: NDArray[np.int64],
    test_rows: Tensor,
) -> Split:
    """Of one model of a population: the audited records it does not see are in no part."""
    status_N = audited.status_MN[cell.split["index"]]
    unseen, forget = (audited.rows_N[status_N == part] for part in (UNSEEN, FORGOTTEN))
    train_rows = kept[~np.isin(kept, unseen)]
    return Split(
        train=torch.from_numpy(train_rows),
        val=torch.from_numpy(val),
        test=test_rows,
        forget=torch.from_numpy(forget),
    )


def population(cell: Cell, train_rows: Tensor) -> Population:
    """The keep matrix that a shadow cell's split names.

    Args:
        cell: of a shadow.
        train_rows: the training part (n,), validation rows among them.
    """
    kept, _ = _kept_and_val(cell, train_rows)
    return _population(json.dumps(cell.split["population"], sort_keys=True), kept.tobytes())


def audited_rows(cell: Cell, data: Dataset) -> Tensor:
    """The records (N,) that the models of a cell's population are asked about."""
    return torch.from_numpy(population(cell, data.train_rows).rows_N)


@lru_cache(maxsize=2)
def _population(settings: str, train_rows: bytes) -> Population:
    return audit_pool(np.frombuffer(train_rows, np.int64), **json.loads(settings))


def batches(cell: Cell, data: Dataset, rows: Tensor, part: str) -> Batches:
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
    )


# ---------------------------------------------------------------------------------------------
# Models.


def fresh(cell: Cell, data: Dataset, purpose: str = "weights") -> nn.Module:
    """An untrained net on the data's device, channels last, with the weights this seed draws.

    Raises:
        Skip: the model does not take this kind of data.
    """
    kinds, model = cell.model["kinds"], cell.model["name"]
    if data.kind not in kinds:
        told = f"model={model} takes {' or '.join(kinds)} data"
        raise Skip(f"{told}; dataset={cell.dataset['name']} is {data.kind}")
    build, arguments = target(cell.model["call"])
    with seeded(cell.model_seed, purpose):
        net = build(data.shape, data.n_classes or 1, **arguments)
    assert isinstance(net, nn.Module)
    layout = torch.channels_last if data.kind == "image" else torch.preserve_format
    return net.to(device=data.x.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def task(
    cell: Cell,
    data: Dataset,
    parts: Split,
    notes: dict[str, float] | None = None,
    prepared: Mapping[str, Tensor] | None = None,
) -> Task:
    """What a method may touch; its generators are new with every call.

    Args:
        cell: whose task.
        data: the whole data set, on the device.
        parts: which rows do what.
        notes: where the method's own figures are put.
        prepared: what its ``prepare`` step left.
    """
    told: dict[str, float] = {} if notes is None else notes
    loss = train.cross_entropy if data.n_classes else train.squared_error
    fit, arguments = target(cell.train["call"])
    return Task(
        retain=batches(cell, data, parts.retain, "retain"),
        forget=batches(cell, data, parts.forget, "forget"),
        val=batches(cell, data, parts.val, "val"),
        train=batches(cell, data, parts.train, "retain"),
        n_classes=data.n_classes,
        loss=loss,
        fit=lambda model, batches: fit(model, batches, loss, **arguments),
        fresh=lambda purpose="weights": fresh(cell, data, purpose),
        generator=lambda purpose: generator(cell.model_seed, purpose),
        note=told.__setitem__,
        prepared=prepared or {},
    )


@contextmanager
def _clock(device: str) -> Iterator[dict[str, Any]]:
    """Seconds and peak bytes of the block; the device has finished when the clock stops."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):  # Linux only: forget the process's earlier peak
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    taken: dict[str, Any] = {}
    start = time.perf_counter()
    yield taken
    if cuda:
        torch.cuda.synchronize(device)
    taken["seconds"] = time.perf_counter() - start
    taken["peak_bytes"] = (
        torch.cuda.max_memory_allocated(device)
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


def _load_model(lab: Lab, cell: Cell, key: str) -> nn.Module:
    entry = lab.store.load(key)
    data = dataset(cell, lab.device)
    members = entry.manifest["members"]
    net = Ensemble(fresh(cell, data) for _ in range(members)) if members else fresh(cell, data)
    net.load_state_dict(load_tensors(entry.read(WEIGHTS)))
    return net.eval()


def _save_model(
    folder: Path, net: nn.Module, taken: Mapping[str, Any], cell: Cell
) -> dict[str, Any]:
    state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise Failed(f"weights are not finite: {broken[0]}")
    save_tensors(state, folder / WEIGHTS)
    axes = ["dataset", "model", "train", "split", "precision"]
    axes += [] if cell.untouched else ["forget", "method"]
    made_of = {axis: getattr(cell, axis) for axis in axes}
    members = len(net.members) if isinstance(net, Ensemble) else None
    told = {"kind": "model", "seed": cell.model_seed, "members": members, "made_of": made_of}
    return {**taken, **told}


def original(lab: Lab, cell: Cell) -> nn.Module:
    """The original: trained on retain and forget rows without knowing which is which."""
    cell = cell.original()

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, lab.device)
        if "path" in cell.train:
            net, taken = _checkpoint(cell, data), {"seconds": 0.0, "peak_bytes": 0}
            return _save_model(folder, net, taken, cell)
        whole = task(cell, data, split_of(cell, data).hide_forget())
        with seeded(cell.model_seed, "global"), _clock(lab.device) as taken:
            net = whole.fit(fresh(cell, data), whole.train)
        return _save_model(folder, net, taken, cell)

    lab.store.get(cell.model_key, make)
    return _load_model(lab, cell, cell.model_key)


def _checkpoint(cell: Cell, data: Dataset) -> nn.Module:
    """The original a user brings: safetensors with the names of the net's own state.

    Raises:
        ValueError: the file is of another net.
        FileNotFoundError: there is no such file.
    """
    path, net = Path(cell.train["path"]), fresh(cell, data)
    try:
        state, own = load_tensors(path.read_bytes()), net.state_dict()
    except SafetensorError as error:
        raise ValueError(f"train.path={path}: is no safetensors file ({error})") from error
    shapes, expected = ({k: tuple(v.shape) for k, v in s.items()} for s in (state, own))
    if shapes != expected:
        wrong = next(k for k in (*expected, *shapes) if shapes.get(k) != expected.get(k))
        is_there, should = (d.get(wrong, "missing") for d in (shapes, expected))
        told = f"train.path={path}: {wrong} is {is_there} in the file"
        raise ValueError(f"{told}, {should} in model={cell.model['name']}")
    net.load_state_dict(state)
    return net


def split_of(cell: Cell, data: Dataset) -> Split:
    """The cell's split of a data set in memory."""
    return split(cell, data.y.cpu(), data.train_rows, data.test_rows)


def prepared(lab: Lab, cell: Cell) -> dict[str, Tensor]:
    """What the method's ``prepare`` step left, for methods that must watch the training."""
    if cell.method.get("prepare") is None:
        return {}

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, lab.device)
        parts, model = split_of(cell, data), original(lab, cell)
        with seeded(cell.model_seed, "global"), _clock(lab.device) as taken:
            left = left_by_prepare(cell, model, data, parts)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in left.items()}
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
        model, told = _run(lab, cell, prepared(lab, cell))
        return {**_save_model(folder, model, told, cell), "notes": told["notes"]}

    lab.store.get(cell.model_key, make)
    return _load_model(lab, cell, cell.model_key)


def _run(lab: Lab, cell: Cell, left: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    """What the method makes of the original, and what that cost and noted."""
    data = dataset(cell, lab.device)
    notes: dict[str, float] = {}
    todo = task(cell, data, split_of(cell, data), notes, left)
    method, arguments = target(cell.method["call"])
    model = fresh(cell, data) if cell.from_scratch else original(lab, cell)
    with seeded(cell.model_seed, "global"), _clock(lab.device) as taken:
        model = method(model, todo, **arguments)
    return model, {**taken, "notes": notes}


def passing(lab: Lab, cell: Cell) -> nn.Module:
    """The model of a shadow cell. Only its outputs are stored: there are many of them."""
    if cell.untouched:
        return original(lab, cell)
    if cell.method.get("prepare") is None:
        return _run(lab, cell, {})[0]
    data = dataset(cell, lab.device)
    with seeded(cell.model_seed, "global"):
        left = left_by_prepare(cell, original(lab, cell), data, split_of(cell, data))
    return _run(lab, cell, left)[0]


def artifact(lab: Lab, cell: Cell) -> Artifact:
    """The stored model of a cell, with what it cost.

    Raises:
        FileNotFoundError: it has not been made.
    """
    entry = lab.store.load(cell.model_key)
    told = entry.manifest
    state = load_tensors(entry.read(WEIGHTS))
    return Artifact(cell.model_key, state, told["seconds"], told["peak_bytes"])
