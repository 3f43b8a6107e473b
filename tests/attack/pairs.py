"""Synthetic outputs before and after requests: what a request changes is what a test says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.outputs import FORGOTTEN, RETAINED, UNSEEN, Predictions

PARTS = [UNSEEN, FORGOTTEN, RETAINED, FORGOTTEN, UNSEEN]
"""Records of one request: as many unseen as forgotten, of either the first is not the only one."""


def outputs(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    status: NDArray[np.int64],
    y: NDArray[np.int64],
    requests: int = 5,
) -> Predictions:
    """Of logits (N, C) or (Q, N, C); records follow each other request by request."""
    logits = np.stack([before, after]).astype(np.float32)
    n = len(status)
    pair = np.arange(n) // len(PARTS)
    return Predictions(
        logits_MQNC=logits if logits.ndim == 4 else logits[:, None],
        y_N=y,
        rows_N=np.arange(n) * 3 + 1,
        split_N=np.zeros(n, np.int8),
        status_MN=np.tile(status.astype(np.int8), (2, 1)),
        kind_M=("original", "unlearned"),
        parent_M=(-1, -1),
        audited_M=(False, True),
        model_N=pair // requests,
        request_N=pair % requests,
    )


def drawn(
    pairs: int = 50, drop: float = 1.0, classes: int = 5, queries: int = 1, seed: int = 0
) -> Predictions:
    """All records look alike before; after, all moved a little, and the forgotten ones' label lost
    ``drop`` of its logit."""
    random = np.random.default_rng(seed)
    status = np.tile(PARTS, pairs)
    shape = queries, len(status), classes
    y = random.integers(classes, size=len(status))
    own = np.eye(classes)[y]
    before = random.normal(size=shape) + 2 * own
    after = before + 0.2 * random.normal(size=shape)
    return outputs(before, after - drop * own * (status == FORGOTTEN)[:, None], status, y)


def chosen(predictions: Predictions, places: Sequence[int] | NDArray[np.int64]) -> Predictions:
    """Some records, in this order."""
    n = np.asarray(places)
    assert predictions.model_N is not None
    assert predictions.request_N is not None
    return replace(
        predictions,
        logits_MQNC=predictions.logits_MQNC[:, :, n],
        y_N=predictions.y_N[n],
        rows_N=predictions.rows_N[n],
        split_N=predictions.split_N[n],
        status_MN=predictions.status_MN[:, n],
        model_N=predictions.model_N[n],
        request_N=predictions.request_N[n],
    )
