"""Training of linear models to the optimum, by ``convex``.

Axes: N rows, P features with the constant last, C outputs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unlearnbench.convex import deletion
from unlearnbench.convex.objective import Array, Objective
from unlearnbench.core.data import Batches, Loss
from unlearnbench.core.errors import Skip
from unlearnbench.model.linear import Linear


def exact(model: nn.Module, batches: Batches, loss: Loss, *, lam: float, form: str) -> nn.Module:
    """Set the parameters to those at which the gradient of the penalised loss is 0.

        θ = argmin Σ_i ℓ(θᵀx̃_i; t_i) + ½λ‖θ‖²     (form=sum; else 1/n Σ_i)

    Rows are not augmented. ``loss`` is not used: the model defines its loss.

    Raises:
        ValueError: the model is of another kind, or there are no rows.
        Skip: the loss is the plain hinge, which has no gradient at its optimum.
    """
    if not isinstance(model, Linear):
        message = "train=exact solves model=ridge, softmax_regression and svm"
        raise ValueError(f"{message}: take train=default")
    if not len(batches.rows):
        raise ValueError("train=exact: there is no row to train on")
    goal = objective(model, {"lam": lam, "form": form})
    model.put(deletion.fit(goal, *data(goal, model, batches)))
    return model.eval()


def data(goal: Objective, model: Linear, batches: Batches) -> tuple[Array, Array]:
    """Features (N, P) and targets (N, C) of rows in their order, in the form of the objective."""
    features = torch.cat([model.features(x).cpu() for x, _ in batches.ordered()])
    classes = 0 if batches.y.is_floating_point() else model.head.out_features
    return goal.features(features.numpy()), goal.targets(batches.y.cpu().numpy(), classes)


def objective(model: Linear, call: Mapping[str, Any]) -> Objective:
    """The objective of a training; the weight decay of SGD is the penalty of a mean loss.

    Args:
        model: defines the loss.
        call: the call of the training.

    Raises:
        Skip: the loss is the plain hinge.
        ValueError: the form is unknown, or the penalty is negative.
    """
    if model.loss == "hinge":
        message = "the hinge has no curvature, and most rows leave no trace in the model"
        raise Skip(f"model.call.loss=hinge: {message}; take squared_hinge")
    if "form" in call:
        return Objective(model.loss, call["lam"], model.intercept, call["form"])
    intercept = "none" if model.intercept == "none" else "penalised"
    return Objective(model.loss, call.get("sgd", {}).get("weight_decay", 0.0), intercept, "mean")
