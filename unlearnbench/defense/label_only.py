"""Label-only: the predicted class and nothing else."""

import numpy as np

from unlearnbench.core.outputs import Predictions
from unlearnbench.defense.posterior import ZERO, log_posteriors, published


def label_only(predictions: Predictions) -> Predictions:
    """Publish the predicted class alone.

        p'_c = 1[c = argmax p],   0 published as ``ZERO``

    Of classes that tie the first one is predicted. Chen et al. (CCS 2021, arXiv 2005.02205).

    Raises:
        ValueError: a logit is not finite.
        Skip: a regression.
    """
    log_p = log_posteriors(predictions)
    # Of the logits themselves: log-posteriors of near ties can round to one number.
    predicted = predictions.logits_MQNC.argmax(axis=-1, keepdims=True)
    chosen = np.arange(log_p.shape[-1]) == predicted
    return published(predictions, np.where(chosen, 0.0, np.log(ZERO)))
