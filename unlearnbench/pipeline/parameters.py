"""From models to the inputs of an attack on parameters: the change made by each of K deletions.

Axes: N training rows, P features with the constant last or all parameters of a net, C outputs,
K deletions.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearnbench.convex import deletion
from unlearnbench.convex.deletion import Deletions
from unlearnbench.convex.objective import Array
from unlearnbench.core.cell import Cell, target
from unlearnbench.core.data import Dataset
from unlearnbench.core.errors import Failed, Skip
from unlearnbench.core.seeding import seeded
from unlearnbench.model.linear import Linear
from unlearnbench.pipeline.inputs import batches, fresh, task
from unlearnbench.pipeline.models import ephemeral_model, original
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.protocol._audit import Audit, NetAudit
from unlearnbench.protocol.single_deletions import SingleDeletions
from unlearnbench.train.default import fit
from unlearnbench.train.exact import data as as_arrays
from unlearnbench.train.exact import exact, objective
from unlearnbench.train.gradient import buffers, flat, gradient, head
from unlearnbench.train.gradient import theta as theta_of

Arrays = Mapping[str, NDArray[Any]]


def changes(workspace: Workspace, cell: SingleDeletions, data: Dataset) -> dict[str, Tensor]:
    """θ₊, and θ₋ or θ₋ − θ₊ of each deletion; for the original θ₊ alone.

    A linear model is retrained to the optimum for all deletions at once. Any other training runs
    once for each deletion, with its own batches and noise: a retraining draws again. A net trained
    by SGD is retrained with the batches and draws of the original, without the record: other draws
    would hide the trace of the record. A training with private noise draws again.
    Any other method runs on a copy of the original, once for each deletion.

    Raises:
        Skip: the model is an ensemble, a regression net or a net without a linear last layer, or
            several rows are deleted at once.
        Failed: parameters are not finite.
    """
    net = fresh(cell, data)
    if isinstance(net, Linear):
        objective(net, cell.train["call"])
    elif head(net) is None:
        message = (
            "attack=hrec reads linear models, and nets with a linear layer and its bias at the end"
        )
        raise Skip(f"{message}; model={cell.model['name']} is none of these")
    elif not data.n_classes:
        message = "attack=hrec reads a class off the gradient of a net; a regression has none"
        raise Skip(f"{message}: take model=ridge")
    if cell.traits.get("ensemble"):
        raise Skip(f"method={cell.method['name']}: an ensemble has no one vector of parameters")
    if cell.forget["together"] > 1:
        message = f"attack.single_deletions.together={cell.forget['together']}"
        raise Skip(f"{message}: a change that several rows have made is not that of one")
    if cell.train.get("temperature") is not None:
        raise Skip("attack=hrec knows the loss without a temperature: take another training")
    if not isinstance(net, Linear):
        return _of_net(workspace, cell, data)
    return _of_linear(workspace, cell, data, net)


def _of_linear(
    workspace: Workspace, cell: SingleDeletions, data: Dataset, net: Linear
) -> dict[str, Tensor]:
    if cell.is_original:
        return {"theta_PC": torch.from_numpy(_theta(original(workspace, cell)))}
    parts, goal = split_of(cell, data), objective(net, cell.train["call"])
    x_NP, t_NC = as_arrays(goal, net, batches(cell, data, parts.train, "retain"))
    rows_K = np.flatnonzero(np.isin(parts.train.numpy(), parts.forget.numpy()))
    if _is_retrained(cell) and target(cell.train["call"])[0] is exact:
        result = deletion.delete(goal, x_NP, t_NC, rows_K)
    else:
        theta_PC = _theta(original(workspace, cell))
        delete_record = _retrained if _is_retrained(cell) else _unlearned
        each = [_theta(delete_record(workspace, cell.only(k), data)) for k in range(len(rows_K))]
        delta_KPC = np.stack([theta - theta_PC for theta in each])
        if not np.isfinite(delta_KPC).all():
            raise Failed("parameters after a deletion are not finite")
        result = deletion.observed(goal, x_NP, t_NC, rows_K, theta_PC, delta_KPC)
    return {
        "theta_PC": torch.from_numpy(result.theta_PC),
        "delta_KPC": torch.from_numpy(result.delta_KPC),
        "residual_K": torch.from_numpy(result.residual_K),
        "residual_1": torch.tensor([result.residual], dtype=torch.float64),
        "rows_K": torch.from_numpy(rows_K),
        "n_1": torch.tensor([result.n]),
    }


def _is_retrained(cell: Cell) -> bool:
    return bool(cell.method["call"] == cell.reference["call"])


def _theta(net: nn.Module) -> Array:
    assert isinstance(net, Linear)
    return net.theta_PC


def _of_net(workspace: Workspace, cell: SingleDeletions, data: Dataset) -> dict[str, Tensor]:
    start = original(workspace, cell)
    if cell.is_original:
        return {"theta_P": theta_of(start)}
    delete_record: Callable[[Workspace, Cell, Dataset], nn.Module] = _unlearned
    if _is_retrained(cell):
        delete_record = _retrained_alike if target(cell.train["call"])[0] is fit else _retrained
    parts = split_of(cell, data)
    thetas, statistics, residuals = [], [], [_residual(start, cell, data, parts.train)]
    for k in range(len(parts.forget)):
        each = cell.only(k)
        net = delete_record(workspace, each, data)
        thetas.append(theta_of(net))
        statistics.append(buffers(net))
        residuals.append(_residual(net, cell, data, split_of(each, data).retain))
    return {
        "theta_KP": torch.stack(thetas),
        "buffers_KS": torch.stack(statistics),
        "residual_1": torch.tensor([max(residuals)]),
        "rows_K": torch.isin(parts.train, parts.forget).nonzero().flatten(),
        "n_1": torch.tensor([len(parts.train)]),
    }


def _residual(net: nn.Module, cell: Cell, data: Dataset, rows: Tensor) -> float:
    """Largest absolute entry of ∇J, J a sum over ``rows``, of a net trained on them."""
    subset, loss = batches(cell, data, rows, "retain"), task(cell, data, split_of(cell, data)).loss
    slope_P = flat(gradient(net, subset, loss)).cpu() + _decay(cell) * theta_of(net)
    return len(rows) * float(slope_P.abs().max())


def _decay(cell: Cell) -> float:
    """λ' of a training: the weight decay of SGD is the penalty of a mean loss."""
    return float(cell.train["call"].get("sgd", {}).get("weight_decay", 0.0))


def _unlearned(workspace: Workspace, cell: Cell, data: Dataset) -> nn.Module:
    del data
    return ephemeral_model(workspace, cell)


def _retrained(workspace: Workspace, cell: Cell, data: Dataset) -> nn.Module:
    """A net retrained from the same initial weights, with other draws than the original's."""
    del workspace
    net, number = fresh(cell, data), cell.forget["deletion"]
    drawn = replace(cell, seed=10_000 * (cell.seed + 1) + number)
    training_task = task(drawn, data, split_of(cell, data))
    with seeded(drawn.model_seed, "global"):
        return training_task.fit(net, training_task.retain)


def _retrained_alike(workspace: Workspace, cell: Cell, data: Dataset) -> nn.Module:
    """A net retrained as the original was, with the record absent from the batches."""
    del workspace
    parts = split_of(cell, data)
    training_task = task(cell.original(), data, parts.hide_forget())
    with seeded(cell.model_seed, "global"):
        return training_task.fit(fresh(cell, data), training_task.train.lacking(parts.forget))


def audit(
    workspace: Workspace, cell: SingleDeletions, data: Dataset, arrays: Arrays
) -> Audit | NetAudit:
    """The attacker's public records, the changes made by the deletions, and the true records.

    Args:
        workspace: holds the original.
        cell: the cell of the deletions.
        data: the data set, in memory, on the CPU.
        arrays: the arrays of ``changes``.
    """
    net, records = fresh(cell, data), _records(cell, data, arrays["rows_K"])
    if not isinstance(net, Linear):
        return NetAudit(
            net=original(workspace, cell).cpu().eval(),
            theta_KP=torch.from_numpy(arrays["theta_KP"]),
            buffers_KS=torch.from_numpy(arrays["buffers_KS"]),
            loss=task(cell, data, split_of(cell, data)).loss,
            decay=_decay(cell),
            n=int(arrays["n_1"][0]),
            residual=float(arrays["residual_1"][0]),
            **records,
        )
    observed = Deletions(
        theta_PC=arrays["theta_PC"],
        delta_KPC=arrays["delta_KPC"],
        residual_K=arrays["residual_K"],
        residual=float(arrays["residual_1"][0]),
        rows_K=arrays["rows_K"],
        n=int(arrays["n_1"][0]),
    )
    goal = objective(net, cell.train["call"])
    return Audit(objective=goal, found=observed, embedding=net.embedding, **records)


def _records(cell: Cell, data: Dataset, rows_K: NDArray[Any]) -> dict[str, Any]:
    """The attacker's public records, and the deleted records."""
    parts = split_of(cell, data)
    deleted = parts.train[torch.from_numpy(rows_K)]
    public_MF, x_KF = (_inputs(data, rows) for rows in (parts.test, deleted))
    low_F, high_F = public_MF.min(axis=0), public_MF.max(axis=0)
    if data.kind == "image":  # black, and the brightest pixel value
        limits = (
            ((limit - data.mean) / data.std)[:, None, None] for limit in (0, int(data.x.max()))
        )
        low_F, high_F = (limit.expand(data.shape).flatten().double().numpy() for limit in limits)
    return {
        "public_MF": public_MF,
        "public_y_M": data.y[parts.test].numpy(),
        "x_KF": x_KF,
        "y_K": data.y[deleted].numpy(),
        "row_K": deleted.numpy(),
        "n_classes": data.n_classes,
        "shape": data.shape,
        "low_F": low_F,
        "high_F": high_F,
    }


def _inputs(data: Dataset, rows: Tensor) -> Array:
    parts = (data.inputs(some).flatten(1).double() for some in rows.split(1000))
    return torch.cat(list(parts)).numpy()
