"""Deletions of one record each, for attacks on parameters: which rows, and the cells of them.

An original is trained on private rows, some of which are deleted, one at a time; the attacker holds
public rows, which are none of these. Imports no torch.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.cell import NOTHING, Cell

Rows = NDArray[np.int64]


def deletions(cell: Cell) -> Cell | None:
    """The cell of all deletions that the cell's attack asks for; None for another attack.

    Its split names the draw, so that one original serves all methods and all counts of deletions.
    """
    settings = cell.attack.get("single_deletions")
    if not settings:
        return None
    drawn = {name: settings[name] for name in ("private", "public", "seed")}
    asked = {name: settings[name] for name in ("count", "together")}
    return replace(
        cell,
        split={**cell.split, "single_deletions": drawn},
        forget={"name": "single_deletions", "version": 1, "call": None, **asked},
        attack=NOTHING,
        defense=NOTHING,
        overrides="",
    )


def one(cell: Cell, number: int) -> Cell:
    """The cell of one of the deletions, from 0 on."""
    return replace(cell, forget={**cell.forget, "deletion": number})


def pools(cell: Cell, rows: Rows) -> tuple[Rows, Rows]:
    """Private and public rows, both in the order of their drawing.

    Args:
        cell: of deletions.
        rows: those that may become either: the training rows but the validation rows.

    Raises:
        ValueError: there are not enough of them.
    """
    settings = cell.split["single_deletions"]
    drawn = np.random.default_rng(settings["seed"]).permutation(rows)
    n, m = (_count(name, settings, len(rows)) for name in ("private", "public"))
    if n + m > len(rows):
        shares = f"private={settings['private']:g}, public={settings['public']:g}"
        raise ValueError(f"attack.single_deletions.{shares}: there are {len(rows)} rows here")
    return drawn[:n], drawn[n : n + m]


def _count(name: str, settings: dict[str, Any], rows: int) -> int:
    told = settings[name]
    if not told > 0:
        raise ValueError(f"attack.single_deletions.{name}={told:g}: must be above 0")
    return int(told * rows) if told <= 1 else round(told)


def forgotten(cell: Cell, private: Rows) -> Rows:
    """The rows that the cell's deletions delete, one each; of the cell of one of them, its own.

    Raises:
        ValueError: there are not so many rows.
    """
    count = cell.forget["count"]
    if not 0 < count < len(private):
        most = len(private) - 1
        limits = f"must be between 1 and {most} here"
        raise ValueError(f"attack.single_deletions.count={count}: {limits}")
    number = cell.forget.get("deletion")
    return private[:count] if number is None else private[number : number + 1]
