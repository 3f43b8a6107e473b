"""Training to the optimum: linear models, by ``convex``.

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
    """The parameters at which the gradient of the penalised loss is 0, whatever they are now.

        θ = argmin Σ_i ℓ(θᵀx̃_i; t_i) + ½λ‖θ‖²     (form=sum; else 1/n Σ_i)

    Rows are not augmented. ``loss`` has no say: it is the model's own.

    Raises:
        ValueError: the model is of another kind, or there is no row.
        Skip: the plain hinge, whose optimum has no gradient.
    """
    if not isinstance(model, Linear):
        told = "train=exact solves model=ridge, softmax_regression and svm"
        raise ValueError(f"{told}: take train=default")
    if not len(batches.rows):
        raise ValueError("train=exact: there is no row to train on")
    goal = objective(model, {"lam": lam, "form": form})
    model.put(deletion.fit(goal, *data(goal, model, batches)))
    return model.eval()


def data(goal: Objective, model: Linear, batches: Batches) -> tuple[Array, Array]:
    """Features (N, P) and targets (N, C) of some rows in their order, as the objective has them."""
    features = torch.cat([model.features(x).cpu() for x, _ in batches.ordered()])
    classes = 0 if batches.y.is_floating_point() else model.head.out_features
    return goal.features(features.numpy()), goal.targets(batches.y.cpu().numpy(), classes)


def objective(model: Linear, call: Mapping[str, Any]) -> Objective:
    """What a training minimises, or goes down on: SGD's weight decay is a mean's penalty.

    Args:
        model: says the loss.
        call: of the training.

    Raises:
        Skip: the plain hinge.
        ValueError: an unknown form, or a negative penalty.
    """
    if model.loss == "hinge":
        told = "the hinge has no curvature, and most rows leave no trace in the model"
        raise Skip(f"model.call.loss=hinge: {told}; take squared_hinge")
    if "form" in call:
        return Objective(model.loss, call["lam"], model.intercept, call["form"])
    intercept = "none" if model.intercept == "none" else "penalised"
    return Objective(model.loss, call.get("sgd", {}).get("weight_decay", 0.0), intercept, "mean")
