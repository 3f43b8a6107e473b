"""What attacks on outputs get and give, in NumPy.

Axes: M models, Q queries of one row, N records, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNSEEN, RETAINED, FORGOTTEN = 0, 1, 2
RETAIN, FORGET, VAL, TEST = 0, 1, 2, 3


@dataclass(frozen=True)
class Predictions:
    """What M models say of N rows. All that an attack on outputs gets; NumPy, no weights.

    Attributes:
        logits_MQNC: float32 logits, Q augmented queries of each row (one unless asked).
        y_N: labels.
        rows_N: row numbers in the data set.
        split_N: RETAIN, FORGET, VAL or TEST, the row's part in the cell's split.
        status_MN: the row's part in the model's request: UNSEEN (in no training), RETAINED, or
            FORGOTTEN (to be forgotten). An original was trained on the FORGOTTEN rows, a retrained
            model was not.
        kind_M: ``original``, ``retrained`` or ``unlearned``.
        parent_M: index of the original an unlearned model came from; -1 if it is not among these.
        audited_M: whether it is a model under attack; the others are there to compare with.
        model_N: for an attack on two outputs, where M is 2: what a model said of a record before
            and after a request. There are many models, with some requests each: the number of the
            one that was asked about the record; ``status_MN`` is the record's part in the request.
        request_N: the number of the request, among those of its model.
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
    """What an attack found: figures, and one score for each record it attacked.

    Attributes:
        metrics: name to (value, number of records it was computed on).
        pool: for each record, which comparison it belongs to (``test`` or ``val``).
        row: its row in the data set.
        member: whether the attacker should call it a member.
        score: the attack's score; higher means "member".
        picture: what there is to see (H, W, 3), if there is anything.
    """

    metrics: dict[str, tuple[float, int]]
    pool: list[str]
    row: NDArray[np.int64]
    member: NDArray[np.bool_]
    score: NDArray[np.float64]
    picture: NDArray[np.uint8] | None = None
