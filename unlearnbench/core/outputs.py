"""Inputs and results of attacks on outputs, in NumPy.

Axes: M models, Q queries of one row, N records, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNSEEN, RETAINED, FORGOTTEN = 0, 1, 2
RETAIN, FORGET, VAL, TEST = 0, 1, 2, 3


@dataclass(frozen=True)
class Predictions:
    """Outputs of M models for N rows: the complete input of an attack on outputs; no weights.

    Attributes:
        logits_MQNC: float32 logits, for Q augmented queries of each row (one by default).
        y_N: labels.
        rows_N: row numbers in the data set.
        split_N: RETAIN, FORGET, VAL or TEST, the row's part in the cell's split.
        status_MN: the row's part in the model's request: UNSEEN (in no training), RETAINED, or
            FORGOTTEN (to be forgotten). An original was trained on the FORGOTTEN rows, a retrained
            model was not.
        kind_M: ``original``, ``retrained`` or ``unlearned``.
        parent_M: index of the original of an unlearned model; -1 if it is not among the M models.
        audited_M: whether the model is under attack; the other models are for comparison.
        model_N: for an attack on two outputs only. There M is 2: outputs before and after a
            request, from many models with several requests each. The number of the model that
            predicts the record; ``status_MN`` is the part of the record in the request.
        request_N: the number of the request among the requests of its model.
    """

    logits_MQNC: NDArray[np.float32]
    y_N: NDArray[np.generic]
    rows_N: NDArray[np.int64]
    split_N: NDArray[np.int8]
    status_MN: NDArray[np.int8]
    kind_M: tuple[str, ...]
    parent_M: tuple[int, ...]
    audited_M: tuple[bool, ...] = (True,)
    model_N: NDArray[np.int64] | None = None
    request_N: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Scores:
    """Result of an attack: figures, and one score for each attacked record.

    Attributes:
        metrics: name → (value, number of records it was computed on).
        pool: for each record, the comparison it belongs to (``test`` or ``val``).
        row: its row in the data set.
        member: whether the record is a member.
        score: the attack's score; higher means "member".
        picture: a picture of the result (H, W, 3), or None.
    """

    metrics: dict[str, tuple[float, int]]
    pool: list[str]
    row: NDArray[np.int64]
    member: NDArray[np.bool_]
    score: NDArray[np.float64]
    picture: NDArray[np.uint8] | None = None
