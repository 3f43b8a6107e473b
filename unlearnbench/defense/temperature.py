"""Temperature: posteriors softened, or sharpened, after the fact."""

from scipy.special import log_softmax

from unlearnbench.core.outputs import Predictions
from unlearnbench.defense.posterior import log_posteriors, published


def temperature(predictions: Predictions, *, temperature: float) -> Predictions:
    """Publish posteriors at another temperature; the model was trained at 1.

        p'_c ∝ p_c^{1/T}

    Shokri et al. (S&P 2017, arXiv 1610.05820); Chen et al. (CCS 2021, arXiv 2005.02205).

    Args:
        predictions: of any number of models, queries and rows.
        temperature: T > 0; above 1 posteriors become more alike.

    Raises:
        ValueError: T is not positive, or a logit is not finite.
        Skip: a regression.
    """
    log_p = log_posteriors(predictions)
    if not temperature > 0:
        raise ValueError(f"defense.call.temperature={temperature}: must be above 0")
    return published(predictions, log_softmax(log_p / temperature, axis=-1))
