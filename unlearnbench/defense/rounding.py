"""Rounding: posteriors with few decimals."""

import numpy as np

from unlearnbench.core.outputs import Predictions
from unlearnbench.defense.posterior import ZERO, log_posteriors, published


def rounding(predictions: Predictions, *, decimals: int) -> Predictions:
    """Publish posteriors rounded to some decimals, scaled so that they sum to 1 again.

        p'_c ∝ max(round(p_c, decimals), ``ZERO``)

    Rounding is NumPy's, a half going to the even digit. Where all round to 0, what is published
    is uniform. Shokri et al. (S&P 2017, arXiv 1610.05820).

    Args:
        predictions: of any number of models, queries and rows.
        decimals: digits after the point, 0 to 15.

    Raises:
        ValueError: decimals are out of range, or a logit is not finite.
        Skip: a regression.
    """
    log_p = log_posteriors(predictions)
    if not 0 <= decimals <= 15:  # float64 has no more
        raise ValueError(f"defense.call.decimals={decimals}: must lie in 0..15")
    p = np.maximum(np.round(np.exp(log_p), decimals), ZERO)
    return published(predictions, np.log(p) - np.log(p.sum(axis=-1, keepdims=True)))
