"""From models to predictions: the outputs of a cell's model, and those of a shadow population."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save_file as save_arrays
from torch import Tensor

from unlearnbench import metric, train
from unlearnbench.cell import NOTHING, Cell
from unlearnbench.convex import Audit
from unlearnbench.loading import OUTPUTS, RECORDS
from unlearnbench.nets import NetAudit
from unlearnbench.parameters import audit, changes
from unlearnbench.pipeline import (
    WEIGHTS,
    Failed,
    Lab,
    batches,
    dataset,
    original,
    passing,
    role,
    unlearned,
)
from unlearnbench.request_pairs import HALVES, request, requests, training_rows
from unlearnbench.seeding import generator
from unlearnbench.shadow_models import originals, shadows
from unlearnbench.single_deletions import deletions
from unlearnbench.split import population, request_pools, split, status_of
from unlearnbench.values import (
    FORGET,
    FORGOTTEN,
    RETAIN,
    RETAINED,
    TEST,
    UNSEEN,
    VAL,
    Batches,
    Dataset,
    Predictions,
    Skip,
)


def predict(lab: Lab, cell: Cell) -> None:
    """Make sure that the outputs of the cell's model are stored.

    Of a cell of the grid on every row of both parts of the data set; of a model of a population on
    the audited records; of a request those before and after it; of single deletions what they
    change.

    Raises:
        Failed: an artifact it needs is known to be impossible.
        Skip: the method cannot work on this cell on principle.
    """
    if cell.predictions_key in lab.failures:
        raise Failed(lab.failures[cell.predictions_key])
    start = cell.start
    if start is not None and start.predictions_key in lab.failures:
        raise Failed(f"the original failed: {lab.failures[start.predictions_key]}")

    def make(folder: Path) -> dict[str, Any]:
        data = dataset(cell, lab.device)
        if "single_deletions" in cell.split:
            arrays = changes(lab, cell, data)
        elif "request_pairs" in cell.split:
            arrays = _of_request(lab, cell, data)
        elif "shadow_models" in cell.split:
            arrays = _of_population(lab, cell, data)
        else:
            asked = _rows(cell, data, data.rows)
            arrays = {
                "logits_NC": train.logits(unlearned(lab, cell), asked),
                "y_N": asked.y.cpu(),
                "is_test_N": torch.isin(data.rows, data.test_rows),
                "rows_N": data.rows,
                RECORDS: torch.tensor([len(data.y)]),
            }
        if not all(one.isfinite().all() for one in arrays.values()):
            raise Failed("outputs are not finite")
        # safetensors writes an array's memory, whatever its strides say.
        whole = {name: tensor.contiguous().numpy() for name, tensor in arrays.items()}
        save_arrays(whole, folder / OUTPUTS)
        return {"kind": "predictions", "model": cell.model_key}

    lab.store.get(cell.predictions_key, make)
    if cell.keep == "predictions" and role(cell) == "unlearned" and lab.store.has(cell.model_key):
        lab.store.drop(cell.model_key, WEIGHTS)


def _rows(cell: Cell, data: Dataset, rows_N: Tensor) -> Batches:
    return batches(cell, data, rows_N.to(data.x.device), "all")


def _of_population(lab: Lab, cell: Cell, data: Dataset) -> dict[str, Tensor]:
    """Of a model of a population, on views (Q, N, C) of the audited records."""
    if cell.queries > 1 and data.augment is None:
        told = f"attack.queries={cell.queries}: dataset={cell.dataset['name']}"
        raise ValueError(f"{told} is not augmented; take 1")
    rows_N = torch.from_numpy(population(cell, data.train_rows).rows_N)
    net, plain = passing(lab, cell), _rows(cell, data, rows_N)
    # All models are asked about the same views: the generators know nothing of the model.
    views = [
        replace(plain.ordered().augmented(), noise=generator(query, "view"))
        for query in range(1, cell.queries)
    ]
    logits_QNC = torch.stack([train.logits(net, view) for view in (plain, *views)])
    return {"logits_QNC": logits_QNC, "y_N": plain.y.cpu()}


def _of_request(lab: Lab, cell: Cell, data: Dataset) -> dict[str, Tensor]:
    """Before and after a request; or of an original, on rows it was and was not trained on.

    A method whose models are ensembles had one before the request too: it has deleted nothing.
    """
    own = request_pools(cell, data)
    ensemble = cell.traits.get("ensemble")
    before = unlearned(lab, replace(cell, forget=NOTHING)) if ensemble else original(lab, cell)
    if "request" not in cell.forget:
        size = cell.split["request_pairs"]["size"]
        trained, unseen = training_rows(cell, own), own.negative[:size]
        rows_N = torch.from_numpy(np.concatenate([trained, unseen]))
        asked = _rows(cell, data, rows_N)
        told = {"trained_N": torch.arange(len(rows_N)) < size, "y_N": asked.y.cpu()}
        return {"logits_NC": train.logits(before, asked), **told}
    rows_N = torch.from_numpy(request(cell, own).asked)
    asked = _rows(cell, data, rows_N)
    both = [train.logits(net, asked) for net in (before, passing(lab, cell))]
    k = cell.forget["deletions"]
    status_N = torch.tensor([FORGOTTEN] * k + [RETAINED] + [UNSEEN] * k, dtype=torch.int8)
    return {
        "logits_2NC": torch.stack(both),
        "y_N": asked.y.cpu(),
        "rows_N": rows_N,
        "status_N": status_N,
    }


def predictions(lab: Lab, cell: Cell) -> Predictions:
    """The stored outputs of the cell's model, made first if they are missing."""
    predict(lab, cell)
    arrays = load_arrays(lab.store.load(cell.predictions_key).read(OUTPUTS))
    y_N, rows_N, is_test_N = arrays["y_N"], arrays["rows_N"], arrays["is_test_N"]
    y_R = np.zeros(int(arrays[RECORDS][0]), y_N.dtype)
    y_R[rows_N] = y_N
    rows = torch.from_numpy(rows_N)
    parts = split(cell, torch.from_numpy(y_R), rows[~is_test_N], rows[is_test_N])
    split_N = np.full(len(y_N), RETAIN, np.int8)
    for code, part in ((FORGET, parts.forget), (VAL, parts.val), (TEST, parts.test)):
        split_N[np.isin(rows_N, part.numpy())] = code
    status_N = np.select([split_N == RETAIN, split_N == FORGET], [RETAINED, FORGOTTEN], UNSEEN)
    return Predictions(
        logits_MQNC=arrays["logits_NC"][None, None],
        y_N=y_N,
        rows_N=rows_N,
        split_N=split_N,
        status_MN=status_N[None].astype(np.int8),
        kind_M=(role(cell),),
        parent_M=(-1,),
    )


def shadow_predictions(lab: Lab, cell: Cell) -> Predictions:
    """The outputs of the shadow population that the cell's attack asks for, on its records.

    First the models under the cell's method, which are under attack; then, to compare with, the
    originals and the retrained models, unless it is they that are under attack.
    """
    audited, data = shadows(cell), dataset(cell, "cpu")
    there = {one.model_key for one in audited}
    beside = [one for one in originals(cell) if one.model_key not in there]
    if cell.method != cell.reference:
        beside += shadows(replace(cell, method=cell.reference))
    logits, statuses, kinds, parents = [], [], [], []
    for one in (*audited, *beside):
        predict(lab, one)
        arrays = load_arrays(lab.store.load(one.predictions_key).read(OUTPUTS))
        logits.append(arrays["logits_QNC"])
        statuses.append(status_of(one, data))
        kinds.append(role(one))
        parents.append(len(audited) + one.split["index"] if role(one) == "unlearned" else -1)
    rows_N = population(audited[0], data.train_rows).rows_N
    return Predictions(
        logits_MQNC=np.stack(logits),
        y_N=arrays["y_N"],
        rows_N=rows_N,
        split_N=np.full(len(rows_N), RETAIN, np.int8),
        status_MN=np.stack(statuses),
        kind_M=tuple(kinds),
        parent_M=tuple(parents),
        audited_M=tuple(place < len(audited) for place in range(len(kinds))),
    )


def shadow_accuracies(population: Predictions) -> dict[str, tuple[float, int]]:
    """How accurate the trained models of a population are on the audited records they never saw.

    A training that went wrong distorts what an attack finds in all the others: models far below
    the rest of their kind are counted as ``shadow_models_outliers`` (``metric.low_outliers``).
    """
    right_MN = population.logits_MQNC[:, 0].argmax(2) == population.y_N
    accuracies_M = np.ma.masked_array(right_MN, population.status_MN != UNSEEN).mean(axis=1)
    kinds_M = np.array(population.kind_M)
    of_kind = [accuracies_M[kinds_M == kind].compressed() for kind in ("original", "retrained")]
    return outlier_figures("shadow_models", of_kind)


def outlier_figures(
    name: str, accuracies: Sequence[NDArray[np.floating]]
) -> dict[str, tuple[float, int]]:
    """How many trainings of some kinds are outliers of their kind, the lowest accuracy, the median.

    Args:
        name: what the names of the figures begin with.
        accuracies: of the models of each kind (M,).
    """
    every_M = np.concatenate(accuracies)
    if not len(every_M):
        return {}
    outliers = sum(int(metric.low_outliers(of_kind).sum()) for of_kind in accuracies)
    figures = {"outliers": outliers, "acc_min": every_M.min(), "acc_median": np.median(every_M)}
    return {f"{name}_{key}": (float(value), len(every_M)) for key, value in figures.items()}


def request_predictions(lab: Lab, cell: Cell) -> dict[str, Predictions]:
    """Outputs before and after each request that the cell's attack asks for, by half.

    The original compared with itself needs no models of its own: its requests are those of the
    reference, without what became of them.
    """
    asked = replace(cell, method=cell.reference) if cell.untouched else cell
    found = {}
    for half in HALVES:
        of_half = [pair for pair in requests(asked) if pair.split["half"] == half]
        parts = []
        for one in of_half:
            predict(lab, one)
            parts.append(load_arrays(lab.store.load(one.predictions_key).read(OUTPUTS)))
        sizes = [len(part["y_N"]) for part in parts]
        joined = {
            name: np.concatenate([part[name] for part in parts], axis=int(name == "logits_2NC"))
            for name in parts[0]
        }
        logits_2NC = joined["logits_2NC"][[0, 0] if cell.untouched else [0, 1]]
        places = ([one.split["index"], one.forget["request"]] for one in of_half)
        model_N, request_N = np.repeat(np.array(list(places)), sizes, axis=0).T
        trained_N = np.where(joined["status_N"] == UNSEEN, UNSEEN, RETAINED)
        found[half] = Predictions(
            logits_MQNC=logits_2NC[:, None],
            y_N=joined["y_N"],
            rows_N=joined["rows_N"],
            split_N=np.full(len(joined["y_N"]), RETAIN, np.int8),
            status_MN=np.stack([trained_N, joined["status_N"]]).astype(np.int8),
            kind_M=("original", role(cell)),
            parent_M=(-1, 0),
            audited_M=(False, True),
            model_N=model_N,
            request_N=request_N,
        )
    return found


def request_accuracies(lab: Lab, cell: Cell) -> dict[str, tuple[float, int]]:
    """Accuracy of the targets' originals on training rows, and on as many rows never seen.

    The attack lives on what lies between: Chen et al. (2005.02205) blame overfitting.
    """
    originals = {
        one.original().predictions_key: one.original()
        for one in requests(cell)
        if one.split["half"] == "target"
    }
    right: dict[bool, list[NDArray[np.bool_]]] = {True: [], False: []}
    for key, one in originals.items():
        predict(lab, one)
        arrays = load_arrays(lab.store.load(key).read(OUTPUTS))
        right_N = arrays["logits_NC"].argmax(axis=1) == arrays["y_N"]
        for trained, parts in right.items():
            parts.append(right_N[arrays["trained_N"] == trained])
    accuracies_M = np.array([right_N.mean() for right_N in right[False]])
    told = {
        "request_pairs_train_acc": np.concatenate(right[True]),
        "request_pairs_test_acc": np.concatenate(right[False]),
    }
    figures = {name: (float(right_N.mean()), len(right_N)) for name, right_N in told.items()}
    return {**figures, **outlier_figures("request_pairs", [accuracies_M])}


def deleted(lab: Lab, cell: Cell) -> Audit | NetAudit:
    """What the deletions that the cell's attack asks for change in the cell's model.

    Raises:
        Skip: the method deletes nothing.
    """
    if cell.untouched:
        raise Skip("the original has deleted nothing: there is no change to read")
    each = deletions(cell)
    assert each is not None
    predict(lab, each)
    arrays = load_arrays(lab.store.load(each.predictions_key).read(OUTPUTS))
    return audit(lab, each, dataset(each, "cpu"), arrays)
