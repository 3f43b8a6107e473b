"""Predictions as tests of defenses need them: models, queries, rows, classes, drawn or given."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from unlearnbench.core.outputs import Predictions


def given(logits_MQNC: NDArray[np.float32]) -> Predictions:
    n_models, _, n, n_classes = logits_MQNC.shape
    return Predictions(
        logits_MQNC,
        np.arange(n) % n_classes,
        np.arange(n),
        np.zeros(n, np.int8),
        np.zeros((n_models, n), np.int8),
        ("original",) * n_models,
        (-1,) * n_models,
    )


def drawn(shape: tuple[int, int, int, int] = (3, 2, 40, 7), scale: float = 3.0) -> Predictions:
    return given(np.random.default_rng(0).normal(0, scale, shape).astype(np.float32))


def permuted(predictions: Predictions, order: NDArray[np.int64]) -> Predictions:
    return replace(
        predictions,
        logits_MQNC=predictions.logits_MQNC[:, :, order],
        y_N=predictions.y_N[order],
        rows_N=predictions.rows_N[order],
    )


def posteriors(predictions: Predictions) -> NDArray[np.float64]:
    return np.asarray(softmax(predictions.logits_MQNC.astype(np.float64), axis=-1))
