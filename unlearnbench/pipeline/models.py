"""The chain: dataset → split → original → unlearned. Predictions follow in ``outputs``.

Each stage calls the stage before it. Each artifact passes through the store, so it is made once.
The order of execution is the call graph below, from the bottom up.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file as save_tensors
from torch import Tensor, nn

from unlearnbench.core.cell import ORIGINAL, Cell, target
from unlearnbench.core.data import Dataset, Hooks, Probe, Split, no_probe
from unlearnbench.core.errors import Failed, Skip
from unlearnbench.core.seeding import seeded
from unlearnbench.core.task import Artifact, Compared, WhiteBox
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.pipeline import weights
from unlearnbench.pipeline.inputs import dataset, fresh, task
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace, clock, measured
from unlearnbench.train.checkpoint import NO_CHECKPOINTS, Keeper

WEIGHTS, PREPARED = "weights.safetensors", "prepared.safetensors"


def _load_model(workspace: Workspace, cell: Cell, key: str) -> nn.Module:
    entry = workspace.store.load(key)
    if WEIGHTS in entry.manifest.get("dropped", {}):
        return _remade_model(workspace, cell, entry.manifest["dropped"][WEIGHTS])
    data = dataset(cell, workspace.device)
    members = entry.manifest["members"]
    net = Ensemble(fresh(cell, data) for _ in range(members)) if members else fresh(cell, data)
    net.load_state_dict(load_tensors(entry.read(WEIGHTS)))
    return net.eval()


def _remade_model(workspace: Workspace, cell: Cell, checksum: str) -> nn.Module:
    """Recompute an unlearned model whose weights were dropped.

    Raises:
        Failed: the checksum of the weights differs from the stored one.
    """
    net, _ = _run(workspace, cell, prepared(workspace, cell))
    if hashlib.sha256(to_bytes(_state(net))).hexdigest() != checksum:
        message = (
            "store.keep=predictions: made again, the model is another than its predictions are of"
        )
        raise Failed(f"{message}; delete {workspace.store.path(cell.model_key)} and these")
    return net.eval()


def _state(net: nn.Module) -> dict[str, Tensor]:
    """The weights, each in separate memory: safetensors does not store tied weights."""
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
    axes += [] if cell.is_original else ["forget", "method"]
    made_of = {axis: getattr(cell, axis) for axis in axes}
    members = len(net.members) if isinstance(net, Ensemble) else None
    manifest = {"kind": "model", "seed": cell.model_seed, "members": members, "made_of": made_of}
    return {**taken, **manifest, "role": cell.kind}


def original(workspace: Workspace, cell: Cell) -> nn.Module:
    """The original: trained on retain and forget rows, with the forget rows not marked."""
    cell = cell.original()

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, workspace.device)
        if "path" in cell.train:
            net, taken = _checkpoint(cell, data), {"seconds": 0.0, "peak_bytes": 0}
            return _save_model(folder, net, taken, cell)
        net, taken = _trained(workspace, cell, keeper=_keeper(workspace, cell, cell.model_key))
        return _save_model(folder, net, taken, cell)

    workspace.store.get(cell.model_key, make)
    return _load_model(workspace, cell, cell.model_key)


def _keeper(workspace: Workspace, cell: Cell, key: str) -> Keeper:
    """Checkpoints of a training from scratch: an interrupted training resumes from the last one.

    Other methods are short and restart.
    """
    return Keeper(workspace.store.unfinished(key), cell.checkpoint_minutes, clock(workspace.device))


def _trained(
    workspace: Workspace, cell: Cell, probe: Probe = no_probe, keeper: Keeper = NO_CHECKPOINTS
) -> tuple[nn.Module, dict[str, Any]]:
    """Train the original; returns it and its cost, including the time before an interruption."""
    data = dataset(cell, workspace.device)
    hooks = Hooks(probe, keeper=keeper)
    training_task = task(cell, data, split_of(cell, data).hide_forget(), hooks=hooks)
    with keeper, seeded(cell.model_seed, "global"), measured(workspace.device) as taken:
        net = training_task.fit(fresh(cell, data), training_task.train)
    taken["seconds"] += keeper.earlier - keeper.writing
    return net, taken


def _checkpoint(cell: Cell, data: Dataset) -> nn.Module:
    """The original from the user's weights file.

    Raises:
        ValueError: the file belongs to another net.
        FileNotFoundError: the file does not exist.
    """
    net = fresh(cell, data)
    weights.load(net, Path(cell.train["path"]).expanduser(), cell.model["name"])
    return net


def prepared(workspace: Workspace, cell: Cell) -> dict[str, Tensor]:
    """The stored state of the method's ``prepare`` step, for methods that observe the training."""
    if cell.method.get("prepare") is None:
        return {}

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, workspace.device)
        parts, model = split_of(cell, data), original(workspace, cell)
        with seeded(cell.model_seed, "global"), measured(workspace.device) as taken:
            prepared_state = left_by_prepare(cell, model, data, parts)
        tensors = {name: _apart(tensor) for name, tensor in prepared_state.items()}
        save_tensors(tensors, folder / PREPARED)
        return {**taken, "kind": "prepared", "bytes": sum(t.nbytes for t in tensors.values())}

    workspace.store.get(cell.prepared_key, make)
    tensors_by_name = load_tensors(workspace.store.load(cell.prepared_key).read(PREPARED))
    return {name: tensor.to(workspace.device) for name, tensor in tensors_by_name.items()}


def left_by_prepare(cell: Cell, model: nn.Module, data: Dataset, parts: Split) -> dict[str, Tensor]:
    """Run the method's ``prepare`` step and return its state; empty without such a step."""
    if cell.method.get("prepare") is None:
        return {}
    step, arguments = target(cell.method["prepare"])
    if cell.traits.get("prepares_blind"):
        parts = parts.hide_forget()
    state: dict[str, Tensor] = step(model, task(cell, data, parts), **arguments)
    return state


def unlearned(workspace: Workspace, cell: Cell) -> nn.Module:
    """The model after the cell's method; only the method's own call is timed.

    Raises:
        Failed: its weights are not finite.
        Skip: the method cannot work on this cell on principle.
    """
    if cell.is_original:
        return original(workspace, cell)

    def make(folder: Path) -> dict[str, Any]:
        keeper = _keeper(workspace, cell, cell.model_key) if cell.from_scratch else NO_CHECKPOINTS
        model, cost = _run(workspace, cell, prepared(workspace, cell), keeper=keeper)
        return {**_save_model(folder, model, cost, cell), "notes": cost["notes"]}

    workspace.store.get(cell.model_key, make)
    return _load_model(workspace, cell, cell.model_key)


def _run(
    workspace: Workspace,
    cell: Cell,
    prepared_state: Mapping[str, Tensor],
    probe: Probe = no_probe,
    keeper: Keeper = NO_CHECKPOINTS,
) -> tuple[nn.Module, dict[str, Any]]:
    """Run the method on the original; returns the model, and its cost and noted figures."""
    data = dataset(cell, workspace.device)
    notes: dict[str, float] = {}
    method_task = task(
        cell, data, split_of(cell, data), notes, prepared_state, Hooks(probe, keeper=keeper)
    )
    method, arguments = target(cell.method["call"])
    model = fresh(cell, data) if cell.from_scratch else original(workspace, cell)
    with keeper, seeded(cell.model_seed, "global"), measured(workspace.device) as taken:
        model = method(model, method_task, **arguments)
    taken["seconds"] += keeper.earlier - keeper.writing
    return model, {**taken, "notes": notes}


def replay_with_probe(workspace: Workspace, cell: Cell, probe: Probe) -> nn.Module:
    """Recompute the cell's model with a probe; the stored model keeps its recorded cost.

    Raises:
        Failed: the weights differ from those of the stored model.
    """
    stored = unlearned(workspace, cell)
    if cell.is_original and "path" in cell.train:
        return stored  # it comes from the user's file
    if cell.is_original:
        model, _ = _trained(workspace, cell.original(), probe)
    else:
        model, _ = _run(workspace, cell, prepared(workspace, cell), probe)
    state, stored_state = model.state_dict(), stored.state_dict()
    if not all(torch.equal(tensor, stored_state[name]) for name, tensor in state.items()):
        raise Failed("train.trace_every: made again, the model is another than the stored one")
    return model.eval()


def ephemeral_model(workspace: Workspace, cell: Cell) -> nn.Module:
    """The model of a shadow cell. Such models are many, so only their outputs are stored.

    Raises:
        Skip: the method prepares for the rows of the original, and the request has other rows.
    """
    if cell.is_original:
        return original(workspace, cell)
    if cell.method.get("prepare") is None:
        keeper = (
            _keeper(workspace, cell, cell.predictions_key) if cell.from_scratch else NO_CHECKPOINTS
        )
        return _run(workspace, cell, {}, keeper=keeper)[0]
    if cell.forget.get("online"):
        raise Skip(f"method={cell.method['name']} has no step that takes in new records")
    if cell.traits.get("prepares_blind") and cell.shares_preparation:
        return _run(workspace, cell, prepared(workspace, cell))[
            0
        ]  # all requests to an original share it
    data = dataset(cell, workspace.device)
    with seeded(cell.model_seed, "global"):
        prepared_state = left_by_prepare(
            cell, original(workspace, cell), data, split_of(cell, data)
        )
    return _run(workspace, cell, prepared_state)[0]


def unlearn_in_memory(workspace: Workspace, cell: Cell) -> nn.Module:
    """The model after the cell's method, computed and not stored.

    The original and the state of a ``prepare`` step are stored.
    """
    return _run(workspace, cell, prepared(workspace, cell))[0]


def white_box(workspace: Workspace, cell: Cell) -> WhiteBox:
    """The cell's model, for an attack with access to it, and the reference classifier."""
    assert cell.reference_classifier is not None
    data = dataset(cell, workspace.device)
    return WhiteBox(
        model=unlearned(workspace, cell),
        reference_classifier=original(workspace, cell.reference_classifier),
        data=data,
        split=split_of(cell, data),
    )


def compared(workspace: Workspace, cell: Cell) -> Compared:
    """The cell's model, and the retrained model and the original of the same seed."""
    data = dataset(cell, workspace.device)
    return Compared(
        model=unlearned(workspace, cell),
        retrained=unlearned(workspace, replace(cell, method=cell.reference)),
        original=original(workspace, replace(cell, method=ORIGINAL)),
        task=task(cell, data, split_of(cell, data)),
    )


def artifact(workspace: Workspace, cell: Cell) -> Artifact:
    """The stored model of a cell and its cost.

    Raises:
        FileNotFoundError: it has not been made.
    """
    entry = workspace.store.load(cell.model_key)
    manifest = entry.manifest
    state = load_tensors(entry.read(WEIGHTS))
    return Artifact(cell.model_key, state, manifest["seconds"], manifest["peak_bytes"])
