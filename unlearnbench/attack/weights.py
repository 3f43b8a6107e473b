"""How far a model's weights are from those of the retrained one, layer by layer."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Scores
from unlearnbench.core.task import Compared
from unlearnbench.metric.distance import weight_distance


def weights(models: Compared) -> Scores:
    """Compare the parameters with those of retraining from the same initial weights.

        ‖θ_U − θ_R‖₂   and   ‖θ_U − θ_R‖₂ / ‖θ_R‖₂,   for all layers and for each layer

    Two trainings on the same batches in different orders end at distant weights. The second retrain
    also has other initial weights and is no floor. Running statistics of batch norm are excluded.

    Returns:
        ``weight_distance`` and ``weight_distance_relative``, and both with ``_<layer>``; n is the
        number of parameters.

    Raises:
        Skip: the two nets differ in their shapes.
    """
    unlearned, retrained = parameters(models.model), parameters(models.retrained)
    if not unlearned:
        raise Skip("weights: the model has no parameters")
    if {k: v.shape for k, v in unlearned.items()} != {k: v.shape for k, v in retrained.items()}:
        raise Skip("weights: the model is built otherwise than the retrained one")
    sizes: dict[str, int] = {}
    for name, values in unlearned.items():
        for layer in (name.rpartition(".")[0] or name, ""):
            sizes[layer] = sizes.get(layer, 0) + values.size
    metrics = {}
    for layer, (distance, share) in weight_distance(unlearned, retrained).items():
        suffix = f"_{layer}" if layer else ""
        metrics[f"weight_distance{suffix}"] = distance, sizes[layer]
        metrics[f"weight_distance_relative{suffix}"] = share, sizes[layer]
    return measured(metrics)


def parameters(model: nn.Module) -> dict[str, NDArray[np.floating]]:
    """Parameters by name, in float64."""
    return {
        name: tensor.detach().double().cpu().numpy() for name, tensor in model.named_parameters()
    }


def measured(metrics: dict[str, tuple[float, int]]) -> Scores:
    """Wrap metrics as scores without any record."""
    nothing = np.zeros(0)
    rows = nothing.astype(np.int64)
    return Scores(metrics=metrics, pool=[], row=rows, member=rows.astype(np.bool_), score=nothing)
