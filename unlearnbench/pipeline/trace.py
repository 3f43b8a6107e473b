"""What a model was on its way: the same run once more, in view, and metrics along it.

Axes: S steps, N rows of the whole set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save_file as save_arrays
from torch import Tensor, nn

from unlearnbench.core.cell import Cell
from unlearnbench.core.data import Batches
from unlearnbench.core.errors import Failed
from unlearnbench.core.outputs import FORGET, RETAIN, TEST, VAL, Predictions
from unlearnbench.metric import utility
from unlearnbench.pipeline.inputs import batches, dataset
from unlearnbench.pipeline.models import replay_with_probe
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train import loop

TRACE = "trace.safetensors"

PARTS = {"retain": RETAIN, "forget": FORGET, "val": VAL, "test": TEST}


@dataclass(frozen=True)
class Trace:
    """What a model said of all rows, on its way.

    Attributes:
        step_S: epochs that were over, of all walks over data the model had taken.
        said_SN: the class it called each row by, or its value in a regression.
    """

    step_S: NDArray[np.int64]
    said_SN: NDArray[Any]


class Watch:
    """A probe: takes down what each model says, when it sets out and every so many epochs."""

    def __init__(self, rows: Batches, every: int) -> None:
        self.rows, self.every = rows, every
        self.epochs: dict[nn.Module, int] = {}
        self.said: dict[nn.Module, dict[int, Tensor]] = {}

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Be shown a model; a walk that begins counts for its first one only."""
        if epoch == 0 and model in self.epochs:
            return
        over = self.epochs[model] = self.epochs.get(model, -1) + 1
        if over % self.every == 0:
            self.said.setdefault(model, {})[over] = self._says(model)

    def of(self, model: nn.Module) -> dict[int, Tensor]:
        """What this model said, by step; one that took no walk says it now, as step 0."""
        return self.said.get(model) or {0: self._says(model)}

    def _says(self, model: nn.Module) -> Tensor:
        modes = {module: module.training for module in model.modules()}
        logits_NC = loop.logits(model, self.rows)
        for module, mode in modes.items():
            module.training = mode
        if not self.rows.data.n_classes:
            return logits_NC[:, 0]
        return logits_NC.argmax(1).to(torch.int16)


def trace(workspace: Workspace, cell: Cell) -> Trace:
    """What the cell's model said on its way, stored; made by running once more what made it.

    The stored model and its cost are those of a run that nobody looked at, and the run in view
    must give the same bits. A method that walks over no data, and an ensemble, whose members walk
    one by one, are seen once, at their end.

    Raises:
        Failed: the model is known to be impossible, or comes out as another.
        Skip: the method cannot work on this cell on principle.
    """
    key, every = cell.trace_key, cell.trace_every
    assert key is not None
    assert every is not None
    for failed in (cell.predictions_key, key):
        if failed in workspace.failures:
            raise Failed(workspace.failures[failed])

    def make(folder: Path) -> Mapping[str, Any]:
        data = dataset(cell, workspace.device)
        watch = Watch(batches(cell, data, data.rows, "all"), every)
        said = watch.of(replay_with_probe(workspace, cell, watch))
        arrays = {
            "step_S": np.array(list(said), np.int64),
            "said_SN": torch.stack(list(said.values())).numpy(),
        }
        save_arrays(arrays, folder / TRACE)
        return {"kind": "trace", "model": cell.model_key, "every": every}

    workspace.store.get(key, make)
    return Trace(**load_arrays(workspace.store.load(key).read(TRACE)))


def metrics(seen: Trace, found: Predictions) -> dict[int, dict[str, tuple[float, int]]]:
    """By step, metric name to (value, records it was computed on).

    Accuracy on each part; where classes are forgotten whole, on their test rows and on the
    others' (``test_acc_forgotten``, ``test_acc_others``). Of a regression the RMSE on each part.

    Args:
        seen: along the run.
        found: of the model at its end, for labels and parts.
    """
    told = {}
    chosen = {part: found.split_N == code for part, code in PARTS.items()}
    if not np.issubdtype(found.y_N.dtype, np.integer):
        for step, said_N in zip(seen.step_S.tolist(), seen.said_SN, strict=True):
            told[step] = {
                f"rmse_{part}": (utility.rmse(said_N[rows], found.y_N[rows]), int(rows.sum()))
                for part, rows in chosen.items()
            }
        return told
    names = {f"{part}_acc": rows for part, rows in chosen.items()}
    whole = set(found.y_N[chosen["forget"]]) - set(found.y_N[chosen["retain"]])
    if whole:
        of_them = np.isin(found.y_N, list(whole))
        names["test_acc_forgotten"] = chosen["test"] & of_them
        names["test_acc_others"] = chosen["test"] & ~of_them
    for step, said_N in zip(seen.step_S.tolist(), seen.said_SN, strict=True):
        right = said_N == found.y_N
        told[step] = {
            name: (float(right[rows].mean()), int(rows.sum()))
            for name, rows in names.items()
            if rows.any()
        }
    return told
