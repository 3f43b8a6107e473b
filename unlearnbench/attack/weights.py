"""How far a model's weights are from those of the retrained one, layer by layer."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Scores
from unlearnbench.core.task import Compared
from unlearnbench.metric.distance import weight_distance


def weights(models: Compared) -> Scores:
    """Hold the parameters to those of retraining from the same initial weights.

        ‖θ_U − θ_R‖₂   and   ‖θ_U − θ_R‖₂ / ‖θ_R‖₂,   of all and of each layer

    The same batches in another order end far from each other: the second retrain has other initial
    weights as well, and is no floor for this. Running statistics of batch norm are left out.

    Returns:
        ``weight_distance`` and ``weight_distance_relative``, and both with ``_<layer>``; n is the
        number of parameters.

    Raises:
        Skip: the two are no nets of one shape.
    """
    ours, theirs = parameters(models.model), parameters(models.retrained)
    if not ours:
        raise Skip("weights: the model has no parameters")
    if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        raise Skip("weights: the model is built otherwise than the retrained one")
    sizes: dict[str, int] = {}
    for name, values in ours.items():
        for layer in (name.rpartition(".")[0] or name, ""):
            sizes[layer] = sizes.get(layer, 0) + values.size
    told = {}
    for layer, (distance, share) in weight_distance(ours, theirs).items():
        end = f"_{layer}" if layer else ""
        told[f"weight_distance{end}"] = distance, sizes[layer]
        told[f"weight_distance_relative{end}"] = share, sizes[layer]
    return measured(told)


def parameters(model: nn.Module) -> dict[str, NDArray[np.floating]]:
    """Parameters by name, in float64."""
    return {
        name: tensor.detach().double().cpu().numpy() for name, tensor in model.named_parameters()
    }


def measured(metrics: dict[str, tuple[float, int]]) -> Scores:
    """Figures alone: no record has a score."""
    nothing = np.zeros(0)
    whole = nothing.astype(np.int64)
    return Scores(metrics=metrics, pool=[], row=whole, member=whole.astype(np.bool_), score=nothing)
