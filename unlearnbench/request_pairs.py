"""A zoo: many small originals with some deletion requests each, for attacks on two outputs.

One half of it is the attacker's own (shadow), the other under attack (target); the halves share no
record. Imports no torch.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unlearnbench.cell import NOTHING, Cell

HALVES = ("shadow", "target")

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pools:
    """The records of one half, by what they may become.

    Attributes:
        positive: of these the training sets are drawn.
        negative: in no training set, the unseen records.
        replacement: what is learned instead of deleted records, in online learning.
    """

    positive: Rows
    negative: Rows
    replacement: Rows


@dataclass(frozen=True)
class Request:
    """One deletion: the rows to delete, and those the attacker asks about.

    Attributes:
        forget: rows to delete (k,), in the order of their drawing.
        retained: a row (1,) that stays.
        unseen: rows (k,) that are in no training set.
        added: rows learned instead, (k,) in online learning, else (0,).
    """

    forget: Rows
    retained: Rows
    unseen: Rows
    added: Rows

    @property
    def asked(self) -> Rows:
        """The rows (2k + 1,) asked before and after: forget, retained, unseen."""
        return np.concatenate([self.forget, self.retained, self.unseen])


def pools(rows: Rows, half: str) -> Pools:
    """Random halves; of each 80 % positive; of the rest 85 % negative, 15 % replacement.

    Chen et al., "When Machine Unlearning Jeopardizes Privacy" (CCS 2021, arXiv 2005.02205), with
    the seeds of its code where it has some.

    Args:
        rows: all records that models may be trained on or asked about.
        half: ``shadow`` or ``target``.
    """
    middle = len(rows) // 2
    shuffled = np.random.default_rng(100).permutation(rows)
    own = {"shadow": shuffled[:middle], "target": shuffled[middle:]}[half]
    positive, rest = np.split(own, [round(0.8 * len(own))])
    negative, replacement = np.split(rest, [round(0.85 * len(rest))])
    return Pools(positive, negative, replacement)


def training_rows(cell: Cell, own: Pools) -> Rows:
    """D_i: the rows that the cell's original is trained on, in the order of their drawing.

    Raises:
        ValueError: there are not enough of them.
    """
    settings = cell.split["request_pairs"]
    size, n = settings["size"], len(own.positive)
    if not 0 < size <= n:
        raise ValueError(f"attack.request_pairs.size={size}: must be between 1 and {n} here")
    chosen: Rows = _random(cell).permutation(own.positive)[:size]
    return chosen


def request(cell: Cell, own: Pools) -> Request:
    """U_ij and what is asked beside it; a cell's request is one of its original's.

    Unseen records are drawn with replacement, as in the paper's code.

    Raises:
        ValueError: more is to be deleted than was trained on, or added than there is.
    """
    asked = cell.forget
    k, trained = asked["deletions"], training_rows(cell, own)
    if not 0 < k < len(trained):
        most = len(trained) - 1
        raise ValueError(f"attack.request_pairs.deletions={k}: must be between 1 and {most}")
    if asked["online"] and k > len(own.replacement):
        limit = f"online learning has {len(own.replacement)} new records here"
        raise ValueError(f"attack.request_pairs.deletions={k}: {limit}")
    random = _random(cell, asked["request"], k)
    order = random.permutation(trained)
    added = random.permutation(own.replacement)[:k]
    return Request(
        forget=order[:k],
        retained=order[k : k + 1],
        unseen=random.choice(own.negative, k),
        added=added if asked["online"] else added[:0],
    )


def _random(cell: Cell, *purpose: int) -> np.random.Generator:
    split = cell.split
    place = [split["request_pairs"]["seed"], HALVES.index(split["half"]), split["index"], *purpose]
    return np.random.default_rng(place)


def requests(cell: Cell) -> list[Cell]:
    """The cells of the requests that the cell's attack needs; none for another attack.

    First the shadow half's, then the target's, by original. Their split names the half and the
    original's place in it, so that originals are shared by all methods and all kinds of requests.
    The shadow half is of another data set or model where ``cell.shadow`` says so: transfer.

    Raises:
        ValueError: there is no original, or no request to one, or the seed is below 0.
    """
    settings = cell.attack.get("request_pairs")
    if not settings:
        return []
    for name in ("originals", "requests"):
        if settings[name] < 1:
            raise ValueError(f"attack.request_pairs.{name}={settings[name]}: must be 1 or more")
    if settings["seed"] < 0:
        raise ValueError(f"attack.request_pairs.seed={settings['seed']}: must be 0 or more")
    drawn = {key: settings[key] for key in ("size", "seed")}
    asked = {key: settings[key] for key in ("deletions", "online")}
    theirs: dict[str, Cell] = {"target": cell, "shadow": cell.attackers()}
    return [
        replace(
            theirs[half],
            seed=_seed(cell, half, index),
            split={**cell.split, "request_pairs": drawn, "half": half, "index": index},
            forget={"name": "request", "version": 1, "call": None, "request": number, **asked},
            attack=NOTHING,
            defense=NOTHING,
            overrides="",
        )
        for half in HALVES
        for index in range(settings["originals"])
        for number in range(settings["requests"])
    ]


def _seed(cell: Cell, half: str, index: int) -> int:
    """Where neither a sweep's seeds reach, nor those of a shadow population."""
    return 10_000 * (cell.seed + 1) + 5_000 + 2_000 * HALVES.index(half) + index
