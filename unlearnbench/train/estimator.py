"""The training of a scikit-learn estimator."""

import torch
from torch import nn

from unlearnbench.core.data import Batches, Loss
from unlearnbench.model.estimator import Estimator


def fit(model: nn.Module, batches: Batches, loss: Loss) -> nn.Module:
    """Fit an estimator once on all rows, in their own order: bootstraps depend on it.

    ``loss`` is not used: the estimator minimises its own loss.

    Raises:
        ValueError: the model is a net, or there are no rows.
    """
    if not isinstance(model, Estimator):
        message = "train=estimator fits scikit-learn's models, and this is a net"
        raise ValueError(f"{message}: take train=default")
    if not len(batches.rows):
        raise ValueError(f"model={model.name}: there is no row to fit it on")
    x, y = zip(*batches.ordered(), strict=True)
    model.fit(torch.cat(x), torch.cat(y))
    return model.eval()
