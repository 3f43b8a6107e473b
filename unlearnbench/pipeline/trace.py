"""Outputs of a model along its run: the run is repeated with a probe, and metrics by step.

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
    """Outputs of a model for all rows along its run.

    Attributes:
        step_S: completed epochs over data.
        said_SN: the predicted class of each row, or the predicted value in a regression.
    """

    step_S: NDArray[np.int64]
    said_SN: NDArray[Any]


class Watch:
    """A probe: records the outputs of each model at the start and every ``every`` epochs."""

    def __init__(self, rows: Batches, every: int) -> None:
        self.rows, self.every = rows, every
        self.epochs: dict[nn.Module, int] = {}
        self.said: dict[nn.Module, dict[int, Tensor]] = {}

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Record a model's outputs; epoch 0 counts only in the model's first run over data."""
        if epoch == 0 and model in self.epochs:
            return
        over = self.epochs[model] = self.epochs.get(model, -1) + 1
        if over % self.every == 0:
            self.said.setdefault(model, {})[over] = self._says(model)

    def of(self, model: nn.Module) -> dict[int, Tensor]:
        """Outputs of this model by step; a model without epochs has its present ones as step 0."""
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
    """The stored outputs of the cell's model along its run, computed by repeating the run.

    The stored model and its cost are those of a run without a probe; the repeated run must give
    the same bits. A method without epochs, and an ensemble, whose members are trained one after
    the other, have one step, at the end.

    Raises:
        Failed: the model has failed before, or the repeated run gives another model.
        Skip: the method does not apply to this cell.
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


def metrics(seen: Trace, final: Predictions) -> dict[int, dict[str, tuple[float, int]]]:
    """By step, metric name to (value, records it was computed on).

    The accuracy on each part; if complete classes are forgotten, also on their test rows and on
    the other test rows (``test_acc_forgotten``, ``test_acc_others``). For a regression the RMSE on
    each part.

    Args:
        seen: the outputs along the run.
        final: the outputs of the model at its end, for labels and parts.
    """
    figures = {}
    chosen = {subset: final.split_N == code for subset, code in PARTS.items()}
    if not np.issubdtype(final.y_N.dtype, np.integer):
        for step, said_N in zip(seen.step_S.tolist(), seen.said_SN, strict=True):
            figures[step] = {
                f"rmse_{subset}": (utility.rmse(said_N[rows], final.y_N[rows]), int(rows.sum()))
                for subset, rows in chosen.items()
            }
        return figures
    names = {f"{subset}_acc": rows for subset, rows in chosen.items()}
    forgotten_classes = set(final.y_N[chosen["forget"]]) - set(final.y_N[chosen["retain"]])
    if forgotten_classes:
        is_forgotten_N = np.isin(final.y_N, list(forgotten_classes))
        names["test_acc_forgotten"] = chosen["test"] & is_forgotten_N
        names["test_acc_others"] = chosen["test"] & ~is_forgotten_N
    for step, said_N in zip(seen.step_S.tolist(), seen.said_SN, strict=True):
        right = said_N == final.y_N
        figures[step] = {
            name: (float(right[rows].mean()), int(rows.sum()))
            for name, rows in names.items()
            if rows.any()
        }
    return figures
