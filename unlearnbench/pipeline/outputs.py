"""From models to predictions: outputs of a cell's model, and of the models an attack draws."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save_file as save_arrays
from torch import Tensor, nn

from unlearnbench.core.cell import Cell
from unlearnbench.core.data import Batches, Dataset
from unlearnbench.core.errors import Failed, Skip
from unlearnbench.core.outputs import (
    FORGET,
    FORGOTTEN,
    RETAIN,
    RETAINED,
    TEST,
    UNSEEN,
    VAL,
    Predictions,
)
from unlearnbench.core.seeding import generator
from unlearnbench.pipeline.inputs import batches, dataset
from unlearnbench.pipeline.models import WEIGHTS, ephemeral_model, unlearned
from unlearnbench.pipeline.parameters import audit, changes
from unlearnbench.pipeline.split import records_of, split
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.protocol import protocol_of
from unlearnbench.protocol._audit import Audit, NetAudit
from unlearnbench.protocol._member import Arrays, Figures, Member, Records, Rows
from unlearnbench.protocol.single_deletions import SingleDeletions
from unlearnbench.results.public import OUTPUTS, RECORDS
from unlearnbench.train import loop


def predict(workspace: Workspace, cell: Cell) -> None:
    """Compute and store the outputs of the cell's model, unless they are stored.

    For a cell of the grid: on every row of both parts of the data set. For a model that an attack
    draws: the outputs that the protocol defines.

    Raises:
        Failed: a required artifact has failed before.
        Skip: the method does not apply to this cell.
    """
    if cell.predictions_key in workspace.failures:
        raise Failed(workspace.failures[cell.predictions_key])
    start = cell.start
    if start is not None and start.predictions_key in workspace.failures:
        raise Failed(f"the original failed: {workspace.failures[start.predictions_key]}")

    def make(folder: Path) -> dict[str, Any]:
        arrays = (
            cell.predict(_Models(workspace))
            if isinstance(cell, Member)
            else _on_all_rows(workspace, cell)
        )
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise Failed("outputs are not finite")
        # safetensors writes the memory of an array and ignores its strides.
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_arrays(contiguous, folder / OUTPUTS)
        return {"kind": "predictions", "model": cell.model_key}

    workspace.store.get(cell.predictions_key, make)
    if (
        cell.keep == "predictions"
        and cell.kind == "unlearned"
        and workspace.store.has(cell.model_key)
    ):
        workspace.store.drop(cell.model_key, WEIGHTS)


def _on_all_rows(workspace: Workspace, cell: Cell) -> Arrays:
    """Outputs of a cell of the grid on every row of both parts of the data set."""
    data = dataset(cell, workspace.device)
    rows = _rows(cell, data, data.rows)
    return {
        "logits_NC": loop.logits(unlearned(workspace, cell), rows).numpy(),
        "y_N": rows.y.cpu().numpy(),
        "is_test_N": torch.isin(data.rows, data.test_rows).numpy(),
        "rows_N": data.rows.numpy(),
        RECORDS: np.array([len(data.y)]),
    }


def _rows(cell: Cell, data: Dataset, rows_N: Tensor) -> Batches:
    return batches(cell, data, rows_N.to(data.x.device), "all")


@dataclass(frozen=True)
class _Models:
    """Models and stored outputs of cells, as a protocol reads them: ``protocol.Models``."""

    workspace: Workspace

    def records(self, cell: Cell) -> Records:
        return records_of(cell, dataset(cell, "cpu"))

    def labels(self, cell: Cell, rows_N: Rows) -> NDArray[Any]:
        return dataset(cell, "cpu").y[torch.from_numpy(rows_N)].numpy()

    def unlearned(self, cell: Cell) -> nn.Module:
        return unlearned(self.workspace, cell)

    def ephemeral(self, cell: Cell) -> nn.Module:
        return ephemeral_model(self.workspace, cell)

    def logits(self, net: nn.Module, cell: Cell, rows_N: Rows) -> NDArray[np.float32]:
        data = dataset(cell, self.workspace.device)
        return loop.logits(net, _rows(cell, data, torch.from_numpy(rows_N))).numpy()

    def views(self, net: nn.Module, cell: Cell, rows_N: Rows) -> NDArray[np.float32]:
        data = dataset(cell, self.workspace.device)
        if cell.queries > 1 and data.augment is None:
            option = f"attack.queries={cell.queries}: dataset={cell.dataset['name']}"
            raise ValueError(f"{option} is not augmented; take 1")
        plain = _rows(cell, data, torch.from_numpy(rows_N))
        # All models get the same views: the generators do not depend on the model.
        views = [
            replace(plain.ordered().augmented(), noise=generator(query, "view"))
            for query in range(1, cell.queries)
        ]
        return torch.stack([loop.logits(net, view) for view in (plain, *views)]).numpy()

    def changes(self, cell: SingleDeletions) -> Arrays:
        tensors = changes(self.workspace, cell, dataset(cell, self.workspace.device))
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    def audit(self, cell: SingleDeletions, changes: Arrays) -> Audit | NetAudit:
        return audit(self.workspace, cell, dataset(cell, "cpu"), changes)

    def outputs(self, cell: Cell) -> Arrays:
        predict(self.workspace, cell)
        return load_arrays(self.workspace.store.load(cell.predictions_key).read(OUTPUTS))


def predictions(workspace: Workspace, cell: Cell) -> Predictions:
    """The stored outputs of the cell's model; computed first if they are missing."""
    arrays = _Models(workspace).outputs(cell)
    y_N, rows_N, is_test_N = arrays["y_N"], arrays["rows_N"], arrays["is_test_N"]
    y_R = np.zeros(int(arrays[RECORDS][0]), y_N.dtype)
    y_R[rows_N] = y_N
    rows = torch.from_numpy(rows_N)
    parts = split(cell, torch.from_numpy(y_R), rows[~is_test_N], rows[is_test_N])
    split_N = np.full(len(y_N), RETAIN, np.int8)
    for code, subset in ((FORGET, parts.forget), (VAL, parts.val), (TEST, parts.test)):
        split_N[np.isin(rows_N, subset.numpy())] = code
    status_N = np.select([split_N == RETAIN, split_N == FORGET], [RETAINED, FORGOTTEN], UNSEEN)
    return Predictions(
        logits_MQNC=arrays["logits_NC"][None, None],
        y_N=y_N,
        rows_N=rows_N,
        split_N=split_N,
        status_MN=status_N[None].astype(np.int8),
        kind_M=(cell.kind,),
        parent_M=(-1,),
    )


def gathered(workspace: Workspace, cell: Cell) -> tuple[list[Any], Figures]:
    """The inputs of an attack on outputs or changes, and figures to add to the attack's own.

    Raises:
        Skip: this method or defense leaves the attack no input.
    """
    protocol = protocol_of(cell.attack)
    if protocol is None:
        return [predictions(workspace, cell)], {}
    if cell.defense["call"] is not None and not protocol.reads_outputs:
        reason = f"changes outputs, and {cell.attack['name']} reads parameters"
        raise Skip(f"defense={cell.defense['name']} {reason}")
    return protocol.gather(cell, _Models(workspace))
