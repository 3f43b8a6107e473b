"""From models to what an attack on parameters gets: the change that each of K deletions makes.

Axes: N rows trained on, P features with the constant last, C outputs, K deletions.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from unlearnbench import convex
from unlearnbench.cell import Cell, target
from unlearnbench.convex import Audit, Deletions
from unlearnbench.deletion import one
from unlearnbench.exact import data as as_arrays
from unlearnbench.exact import exact, objective
from unlearnbench.model.linear import Linear
from unlearnbench.objective import Array
from unlearnbench.pipeline import Failed, Lab, batches, fresh, original, passing, task
from unlearnbench.seeding import seeded
from unlearnbench.split import split_of
from unlearnbench.values import Dataset, Skip


def changes(lab: Lab, cell: Cell, data: Dataset) -> dict[str, Tensor]:
    """θ₊, and θ₋ − θ₊ of each deletion; of the original its θ₊ alone.

    Retraining to the optimum is done for all deletions at once. Any other training is done anew for
    each, with batches and noise of its own: who retrains draws again. Any other method works on
    a copy of the original, once for each deletion.

    Raises:
        Skip: the model has not one vector of parameters in which losses are convex, or several rows
            are deleted at once.
        Failed: parameters are not finite.
    """
    net = _linear(cell, data)
    goal = objective(net, cell.train["call"])
    if cell.traits.get("ensemble"):
        raise Skip(f"method={cell.method['name']}: an ensemble has no one vector of parameters")
    if cell.forget["together"] > 1:
        told = f"attack.deletions.together={cell.forget['together']}"
        raise Skip(f"{told}: a change that several rows have made is not that of one")
    if cell.train.get("temperature") is not None:
        raise Skip("attack=hrec knows the loss without a temperature: take another training")
    parts = split_of(cell, data)
    if cell.untouched:
        return {"theta_PC": torch.from_numpy(_theta(original(lab, cell)))}
    x_NP, t_NC = as_arrays(goal, net, batches(cell, data, parts.train, "retain"))
    rows_K = np.flatnonzero(np.isin(parts.train.numpy(), parts.forget.numpy()))
    retrained = cell.method["call"] == cell.reference["call"]
    if retrained and target(cell.train["call"])[0] is exact:
        found = convex.delete(goal, x_NP, t_NC, rows_K)
    else:
        start = original(lab, cell)
        again = _retrained if retrained else _unlearned
        theta_PC = _theta(start)
        each = [again(lab, one(cell, k), data) for k in range(len(rows_K))]
        delta_KPC = np.stack([theta - theta_PC for theta in each])
        if not np.isfinite(delta_KPC).all():
            raise Failed("parameters after a deletion are not finite")
        found = convex.observed(goal, x_NP, t_NC, rows_K, theta_PC, delta_KPC)
    return {
        "theta_PC": torch.from_numpy(found.theta_PC),
        "delta_KPC": torch.from_numpy(found.delta_KPC),
        "residual_K": torch.from_numpy(found.residual_K),
        "residual_1": torch.tensor([found.residual], dtype=torch.float64),
        "rows_K": torch.from_numpy(rows_K),
        "n_1": torch.tensor([found.n]),
    }


def _linear(cell: Cell, data: Dataset) -> Linear:
    net = fresh(cell, data)
    if not isinstance(net, Linear):
        told = "reads model=ridge, softmax_regression and svm"
        raise Skip(f"attack=hrec {told}; model={cell.model['name']} is none of these")
    return net


def _theta(net: object) -> Array:
    assert isinstance(net, Linear)
    return net.theta_PC


def _unlearned(lab: Lab, cell: Cell, data: Dataset) -> Array:
    del data
    return _theta(passing(lab, cell))


def _retrained(lab: Lab, cell: Cell, data: Dataset) -> Array:
    """By a training that draws: from the same start, with other draws than the original's."""
    del lab
    net, number = fresh(cell, data), cell.forget["deletion"]
    drawn = replace(cell, seed=10_000 * (cell.seed + 1) + number)
    todo = task(drawn, data, split_of(cell, data))
    with seeded(drawn.model_seed, "global"):
        return _theta(todo.fit(net, todo.retain))


def audit(cell: Cell, data: Dataset, found: Deletions) -> Audit:
    """The attacker's public records beside what the deletions have changed, and the truth.

    Args:
        cell: of the deletions.
        data: in memory.
        found: what they have changed.
    """
    net, parts = _linear(cell, data), split_of(cell, data)
    deleted = parts.train[torch.from_numpy(found.rows_K)]
    public_MF, x_KF = (_inputs(data, rows) for rows in (parts.test, deleted))
    low_F, high_F = public_MF.min(axis=0), public_MF.max(axis=0)
    if data.kind == "image":  # black, and the brightest there is
        ends = (((end - data.mean) / data.std)[:, None, None] for end in (0, int(data.x.max())))
        low_F, high_F = (end.expand(data.shape).flatten().double().numpy() for end in ends)
    return Audit(
        objective=objective(net, cell.train["call"]),
        found=found,
        public_MF=public_MF,
        public_y_M=data.y[parts.test].numpy(),
        x_KF=x_KF,
        y_K=data.y[deleted].numpy(),
        row_K=deleted.numpy(),
        n_classes=data.n_classes,
        embedding=net.embedding,
        shape=data.shape,
        low_F=low_F,
        high_F=high_F,
    )


def _inputs(data: Dataset, rows: Tensor) -> Array:
    parts = (data.inputs(some).flatten(1).double() for some in rows.split(1000))
    return torch.cat(list(parts)).numpy()
