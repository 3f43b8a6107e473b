"""The training of original and retrained models."""

from collections.abc import Mapping

from torch import nn

from unlearnbench.core.data import Batches, Loss
from unlearnbench.train.loop import cosine, descend


def fit(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
) -> nn.Module:
    """Train from scratch: SGD with a cosine schedule on augmented batches.

    The training of original and retrained models in Deep Unlearn (arXiv 2410.01276), without
    selection on validation rows: the result is the last weights.
    """
    batches = batches.batched(batch_size).augmented()
    return descend(model, batches, loss, sgd=sgd, epochs=epochs, schedule=cosine)
