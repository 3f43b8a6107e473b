"""From models to predictions: the outputs of a cell's model, and those of a shadow population."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save_file as save_arrays

from unlearnbench import train
from unlearnbench.cell import Cell
from unlearnbench.pipeline import (
    Failed,
    Lab,
    audited_rows,
    batches,
    dataset,
    passing,
    population,
    split,
    unlearned,
)
from unlearnbench.population import shadows
from unlearnbench.values import (
    FORGET,
    FORGOTTEN,
    RETAIN,
    RETAINED,
    TEST,
    UNSEEN,
    VAL,
    Predictions,
)

LOGITS = "predictions.safetensors"


def predict(lab: Lab, cell: Cell) -> None:
    """Make sure that the model's outputs on every row of the data set are stored.

    Raises:
        Failed: an artifact it needs is known to be impossible.
        Skip: the method cannot work on this cell on principle.
    """
    if cell.predictions_key in lab.failures:
        raise Failed(lab.failures[cell.predictions_key])
    start = cell.original().predictions_key
    if not cell.from_scratch and start in lab.failures:
        raise Failed(f"the original failed: {lab.failures[start]}")

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, lab.device)
        shadow = "population" in cell.split
        net = passing(lab, cell) if shadow else unlearned(lab, cell)
        rows_N = audited_rows(cell, data) if shadow else torch.arange(len(data.y))
        on_device = rows_N.to(data.x.device)
        logits_NC = train.logits(net, batches(cell, data, on_device, "all"), on_device)
        if not logits_NC.isfinite().all():
            raise Failed("outputs are not finite")
        arrays = {
            "logits_NC": logits_NC,
            "y_N": data.y[on_device].cpu(),
            "is_test_N": torch.isin(rows_N, data.test_rows),
        }
        save_arrays({name: tensor.numpy() for name, tensor in arrays.items()}, folder / LOGITS)
        return {"kind": "predictions", "model": cell.model_key}

    lab.store.get(cell.predictions_key, make)


def predictions(lab: Lab, cell: Cell) -> Predictions:
    """The stored outputs of the cell's model, made first if they are missing."""
    predict(lab, cell)
    arrays = load_arrays(lab.store.load(cell.predictions_key).read(LOGITS))
    y_N, rows_N = arrays["y_N"], np.arange(len(arrays["y_N"]))
    train_rows, test_rows = (
        torch.from_numpy(np.flatnonzero(arrays["is_test_N"] == part)) for part in (False, True)
    )
    parts = split(cell, torch.from_numpy(y_N), train_rows, test_rows)
    split_N = np.full(len(y_N), RETAIN, np.int8)
    for code, rows in ((FORGET, parts.forget), (VAL, parts.val), (TEST, parts.test)):
        split_N[rows.numpy()] = code
    status_N = np.select([split_N == RETAIN, split_N == FORGET], [RETAINED, FORGOTTEN], UNSEEN)
    return Predictions(
        logits_MQNC=arrays["logits_NC"][None, None],
        y_N=y_N,
        rows_N=rows_N,
        split_N=split_N,
        status_MN=status_N[None].astype(np.int8),
        kind_M=(_kind(cell),),
        parent_M=(-1,),
    )


def _kind(cell: Cell) -> str:
    return "original" if cell.untouched else "retrained" if cell.from_scratch else "unlearned"


def population_predictions(lab: Lab, cell: Cell) -> Predictions:
    """The outputs of the shadow population that the cell's attack asks for, on its records.

    First the models under the cell's method, which are under attack; then, to compare with, the
    originals and the retrained models, unless it is they that are under attack.
    """
    asked = [(cell.method, True)]
    if not cell.untouched:
        asked.append((cell.original().method, False))
    if cell.method != cell.reference:
        asked.append((cell.reference, False))
    logits, kinds, parents, under_attack = [], [], [], []
    for method, audited in asked:
        one = replace(cell, method=method)
        for index, shadow in enumerate(shadows(one)):
            predict(lab, shadow)
            arrays = load_arrays(lab.store.load(shadow.predictions_key).read(LOGITS))
            logits.append(arrays["logits_NC"])
            kinds.append(_kind(one))
            parents.append(len(shadows(one)) + index if _kind(one) == "unlearned" else -1)
            under_attack.append(audited)
    first = shadows(cell)[0]
    data = dataset(cell, "cpu")
    found = population(first, data.train_rows)
    return Predictions(
        logits_MQNC=np.stack(logits)[:, None],
        y_N=arrays["y_N"],
        rows_N=found.rows_N,
        split_N=np.full(len(found.rows_N), RETAIN, np.int8),
        status_MN=np.tile(found.status_MN, (len(asked), 1)),
        kind_M=tuple(kinds),
        parent_M=tuple(parents),
        audited_M=tuple(under_attack),
    )
