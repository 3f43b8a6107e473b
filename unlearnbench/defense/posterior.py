"""What defenses read and publish: log-posteriors, so that nothing is lost where they are small.

Axes: M models, Q queries of one row, N rows, C classes.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import Predictions

ZERO = 1e-45
"""What a posterior of 0 is published as, log 0 being no number: LiRA's guard of its logarithms."""


def log_posteriors(predictions: Predictions) -> NDArray[np.float64]:
    """Log-posteriors (M, Q, N, C) of what the models say, in float64.

    Raises:
        ValueError: a logit is not finite; a defense could hide that from the attack.
        Skip: a regression.
    """
    if not np.issubdtype(predictions.y_N.dtype, np.integer):
        raise Skip("a defense of posteriors needs classes; this is a regression")
    if not np.isfinite(predictions.logits_MQNC).all():
        raise ValueError("defense: logits are not finite")
    log_p: NDArray[np.float64] = log_softmax(predictions.logits_MQNC.astype(np.float64), axis=-1)
    return log_p


def published(predictions: Predictions, log_p_MQNC: NDArray[np.float64]) -> Predictions:
    """The predictions with these log-posteriors (M, Q, N, C) as logits: float32, finite."""
    lowest = np.finfo(np.float32).min
    return replace(predictions, logits_MQNC=np.maximum(log_p_MQNC, lowest).astype(np.float32))
