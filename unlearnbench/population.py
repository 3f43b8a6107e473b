"""Shadow populations: what each of many models sees, and is to forget, of the records under audit.

M models are trained on the same data but for the audited records, of which each model sees some
and is asked to forget some. The models are shared by all methods and attacks. Imports no torch.

Axes: M models, N audited records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.cell import Cell

UNSEEN, RETAINED, FORGOTTEN = 0, 1, 2


@dataclass(frozen=True)
class Population:
    """The keep matrix.

    Attributes:
        rows_N: the audited records, rows of the data set.
        status_MN: UNSEEN, RETAINED or FORGOTTEN.
    """

    rows_N: NDArray[np.int64]
    status_MN: NDArray[np.int8]


def audit_pool(train_rows: NDArray[np.int64], *, models: int, pool: float, seed: int) -> Population:
    """Each audited record is unseen by half of the models; of the others half must forget it.

    Balanced by record: uniform draws are ranked over the models, as in LiRA's keep matrix (Carlini
    et al., arXiv 2112.03570), here with three states.

    Args:
        train_rows: the training rows.
        models: M, a multiple of 4.
        pool: share of the training rows that is audited; all models see the others.
        seed: of the choice of records and of the matrix.

    Raises:
        ValueError: ``models`` is no multiple of 4, or ``pool`` leaves no record.
    """
    if models < 4 or models % 4:
        raise ValueError(f"attack.shadows.models={models}: must be a multiple of 4")
    n = round(pool * len(train_rows))
    if not 0 < n <= len(train_rows):
        raise ValueError(f"attack.shadows.pool={pool}: audits {n} of {len(train_rows)} records")
    random = np.random.default_rng(seed)
    rows_N = np.sort(random.permutation(train_rows)[:n])
    rank_MN = random.random((models, n)).argsort(axis=0).argsort(axis=0)
    status_MN = np.select([rank_MN < models // 2, rank_MN < 3 * models // 4], [0, 2], 1)
    return Population(rows_N, status_MN.astype(np.int8))


def shadows(cell: Cell) -> list[Cell]:
    """The cells of the population's models under the cell's method; none without an attack on one.

    Their split names the population and the model's place in it, so that originals are trained
    once for all methods and attacks. Their seeds begin where those of a sweep do not reach.
    """
    settings = cell.attack.get("shadows")
    if not settings:
        return []
    nothing: Mapping[str, Any] = {"name": "none", "call": None}
    return [
        replace(
            cell,
            seed=10_000 * (cell.seed + 1) + index,
            split={**cell.split, "population": dict(settings), "index": index},
            forget={"name": "population", "version": 1, "call": None},
            attack=nothing,
            defense=nothing,
            overrides="",
        )
        for index in range(settings["models"])
    ]
