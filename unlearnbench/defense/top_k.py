"""Top-k: the largest posteriors, and nothing of the order of the others."""

import numpy as np
from scipy.special import logsumexp

from unlearnbench.core.outputs import Predictions
from unlearnbench.defense.posterior import log_posteriors, published


def top_k(predictions: Predictions, *, k: int) -> Predictions:
    """Publish the k largest posteriors; the other classes share what is left equally.

        p'_c = p_c                        for the k largest
        p'_c = (1 − Σ_{top k} p)/(C − k)  for the rest

    Of classes that tie the first ones are kept. Chen et al. (CCS 2021, arXiv 2005.02205).

    Args:
        predictions: of any number of models, queries and rows.
        k: how many posteriors stay, from 1 to the number of classes less one.

    Raises:
        ValueError: k is out of range, or a logit is not finite.
        Skip: a regression.
    """
    log_p = log_posteriors(predictions)
    n_classes = log_p.shape[-1]
    if not 1 <= k < n_classes:
        raise ValueError(f"defense.call.k={k}: must lie in 1..{n_classes - 1}, of so many classes")
    order = np.argsort(-log_p, axis=-1, kind="stable")
    is_top = np.zeros(log_p.shape, bool)
    np.put_along_axis(is_top, order[..., :k], True, axis=-1)
    # The rest is summed, not taken from 1: where the model is certain, 1 − Σ would round to 0.
    rest = logsumexp(np.where(is_top, -np.inf, log_p), axis=-1, keepdims=True)
    return published(predictions, np.where(is_top, log_p, rest - np.log(n_classes - k)))
