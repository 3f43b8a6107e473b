"""The training of a scikit-learn estimator."""

import torch
from torch import nn

from unlearnbench.core.data import Batches, Loss
from unlearnbench.model.estimator import Estimator


def fit(model: nn.Module, batches: Batches, loss: Loss) -> nn.Module:
    """Fit an estimator once on all rows, in their own order: bootstraps depend on it.

    ``loss`` has no say: the estimator minimises its own.

    Raises:
        ValueError: the model is a net, or there is no row.
    """
    if not isinstance(model, Estimator):
        told = "train=estimator fits scikit-learn's models, and this is a net"
        raise ValueError(f"{told}: take train=default")
    if not len(batches.rows):
        raise ValueError(f"model={model.name}: there is no row to fit it on")
    x, y = zip(*batches.ordered(), strict=True)
    model.fit(torch.cat(x), torch.cat(y))
    return model.eval()
