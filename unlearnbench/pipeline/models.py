"""The chain: dataset → split → original → unlearned. Predictions follow in ``outputs``.

Each stage asks for the one before it, and each artifact passes through the store, so it is made
once. The order of the work is the call graph below, read from the bottom up.
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
        return _made_again(workspace, cell, entry.manifest["dropped"][WEIGHTS])
    data = dataset(cell, workspace.device)
    members = entry.manifest["members"]
    net = Ensemble(fresh(cell, data) for _ in range(members)) if members else fresh(cell, data)
    net.load_state_dict(load_tensors(entry.read(WEIGHTS)))
    return net.eval()


def _made_again(workspace: Workspace, cell: Cell, checksum: str) -> nn.Module:
    """An unlearned model whose weights were not kept; the same to the bit, or none."""
    net, _ = _run(workspace, cell, prepared(workspace, cell))
    if hashlib.sha256(to_bytes(_state(net))).hexdigest() != checksum:
        told = (
            "store.keep=predictions: made again, the model is another than its predictions are of"
        )
        raise Failed(f"{told}; delete {workspace.store.path(cell.model_key)} and these")
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
    axes += [] if cell.is_original else ["forget", "method"]
    made_of = {axis: getattr(cell, axis) for axis in axes}
    members = len(net.members) if isinstance(net, Ensemble) else None
    told = {"kind": "model", "seed": cell.model_seed, "members": members, "made_of": made_of}
    return {**taken, **told, "role": cell.kind}


def original(workspace: Workspace, cell: Cell) -> nn.Module:
    """The original: trained on retain and forget rows without knowing which is which."""
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
    """Who keeps a training from scratch: if it is stopped, whoever comes next goes on from there.

    Methods are short, and begin again.
    """
    return Keeper(workspace.store.unfinished(key), cell.checkpoint_minutes, clock(workspace.device))


def _trained(
    workspace: Workspace, cell: Cell, probe: Probe = no_probe, keeper: Keeper = NO_CHECKPOINTS
) -> tuple[nn.Module, dict[str, Any]]:
    """The original by training it, and what that cost, before it was stopped too."""
    data = dataset(cell, workspace.device)
    hooks = Hooks(probe, keeper=keeper)
    whole = task(cell, data, split_of(cell, data).hide_forget(), hooks=hooks)
    with keeper, seeded(cell.model_seed, "global"), measured(workspace.device) as taken:
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


def prepared(workspace: Workspace, cell: Cell) -> dict[str, Tensor]:
    """What the method's ``prepare`` step left, for methods that must watch the training."""
    if cell.method.get("prepare") is None:
        return {}

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, workspace.device)
        parts, model = split_of(cell, data), original(workspace, cell)
        with seeded(cell.model_seed, "global"), measured(workspace.device) as taken:
            left = left_by_prepare(cell, model, data, parts)
        tensors = {name: _apart(tensor) for name, tensor in left.items()}
        save_tensors(tensors, folder / PREPARED)
        return {**taken, "kind": "prepared", "bytes": sum(t.nbytes for t in tensors.values())}

    workspace.store.get(cell.prepared_key, make)
    held = load_tensors(workspace.store.load(cell.prepared_key).read(PREPARED))
    return {name: tensor.to(workspace.device) for name, tensor in held.items()}


def left_by_prepare(cell: Cell, model: nn.Module, data: Dataset, parts: Split) -> dict[str, Tensor]:
    """What the method's ``prepare`` step leaves, computed here and now; nothing without one."""
    if cell.method.get("prepare") is None:
        return {}
    step, arguments = target(cell.method["prepare"])
    if cell.traits.get("prepares_blind"):
        parts = parts.hide_forget()
    left: dict[str, Tensor] = step(model, task(cell, data, parts), **arguments)
    return left


def unlearned(workspace: Workspace, cell: Cell) -> nn.Module:
    """The model after the cell's method; only the method's own call is inside the clock.

    Raises:
        Failed: its weights are not finite.
        Skip: the method cannot work on this cell on principle.
    """
    if cell.is_original:
        return original(workspace, cell)

    def make(folder: Path) -> dict[str, Any]:
        keeper = _keeper(workspace, cell, cell.model_key) if cell.from_scratch else NO_CHECKPOINTS
        model, told = _run(workspace, cell, prepared(workspace, cell), keeper=keeper)
        return {**_save_model(folder, model, told, cell), "notes": told["notes"]}

    workspace.store.get(cell.model_key, make)
    return _load_model(workspace, cell, cell.model_key)


def _run(
    workspace: Workspace,
    cell: Cell,
    left: Mapping[str, Tensor],
    probe: Probe = no_probe,
    keeper: Keeper = NO_CHECKPOINTS,
) -> tuple[nn.Module, dict[str, Any]]:
    """What the method makes of the original, and what that cost and noted."""
    data = dataset(cell, workspace.device)
    notes: dict[str, float] = {}
    todo = task(cell, data, split_of(cell, data), notes, left, Hooks(probe, keeper=keeper))
    method, arguments = target(cell.method["call"])
    model = fresh(cell, data) if cell.from_scratch else original(workspace, cell)
    with keeper, seeded(cell.model_seed, "global"), measured(workspace.device) as taken:
        model = method(model, todo, **arguments)
    taken["seconds"] += keeper.earlier - keeper.writing
    return model, {**taken, "notes": notes}


def replay_with_probe(workspace: Workspace, cell: Cell, probe: Probe) -> nn.Module:
    """The cell's model, made once more to be seen on its way; the stored one keeps its cost.

    Raises:
        Failed: it is another than the stored one.
    """
    stored = unlearned(workspace, cell)
    if cell.is_original and "path" in cell.train:
        return stored  # it was brought
    if cell.is_original:
        model, _ = _trained(workspace, cell.original(), probe)
    else:
        model, _ = _run(workspace, cell, prepared(workspace, cell), probe)
    mine, theirs = model.state_dict(), stored.state_dict()
    if not all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items()):
        raise Failed("train.trace_every: made again, the model is another than the stored one")
    return model.eval()


def ephemeral_model(workspace: Workspace, cell: Cell) -> nn.Module:
    """The model of a shadow cell. Only its outputs are stored: there are many of them.

    Raises:
        Skip: the method has prepared for the original's rows, and this request brings others.
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
        left = left_by_prepare(cell, original(workspace, cell), data, split_of(cell, data))
    return _run(workspace, cell, left)[0]


def unlearn_in_memory(workspace: Workspace, cell: Cell) -> nn.Module:
    """The model after the cell's method, made here and now and stored nowhere.

    What it starts from is: the original, and what a ``prepare`` step left.
    """
    return _run(workspace, cell, prepared(workspace, cell))[0]


def white_box(workspace: Workspace, cell: Cell) -> WhiteBox:
    """The cell's model itself, for an attack that holds it, and the one that judges the attack."""
    assert cell.reference_classifier is not None
    data = dataset(cell, workspace.device)
    return WhiteBox(
        model=unlearned(workspace, cell),
        reference_classifier=original(workspace, cell.reference_classifier),
        data=data,
        split=split_of(cell, data),
    )


def compared(workspace: Workspace, cell: Cell) -> Compared:
    """The cell's model beside the retrained one and the original of its seed."""
    data = dataset(cell, workspace.device)
    return Compared(
        model=unlearned(workspace, cell),
        retrained=unlearned(workspace, replace(cell, method=cell.reference)),
        original=original(workspace, replace(cell, method=ORIGINAL)),
        task=task(cell, data, split_of(cell, data)),
    )


def artifact(workspace: Workspace, cell: Cell) -> Artifact:
    """The stored model of a cell, with what it cost.

    Raises:
        FileNotFoundError: it has not been made.
    """
    entry = workspace.store.load(cell.model_key)
    told = entry.manifest
    state = load_tensors(entry.read(WEIGHTS))
    return Artifact(cell.model_key, state, told["seconds"], told["peak_bytes"])
