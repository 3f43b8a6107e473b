"""Cells of digits × cnn, as small as tests need them."""

from collections.abc import Callable

from unlearnbench import config
from unlearnbench.cell import Cell

Cells = Callable[..., Cell]


def compose(*overrides: str) -> Cell:
    """One cell of digits × cnn, trained for two epochs unless it says otherwise."""
    (cell,) = config.cells([["train.call.epochs=2", "attack=none", *overrides]])
    return cell
