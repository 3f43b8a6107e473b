"""Cells of digits × cnn, as small as tests need them."""

from collections.abc import Callable
from functools import cache

from unlearnbench.config import validate
from unlearnbench.config.compose import Composer, cells
from unlearnbench.core.cell import Cell

Cells = Callable[..., Cell]


def compose(*overrides: str) -> Cell:
    """One cell of digits × cnn, trained for two epochs unless it says otherwise."""
    return composed("train.call.epochs=2", "attack=none", *overrides)


def composed(*overrides: str) -> Cell:
    """One cell as ``config.cells`` gives it, of options that all tests compose once together."""
    if any("path=" in text for text in overrides):  # the file may have been written anew
        (cell,) = cells([overrides])
        return cell
    with validate.hydra_ready():
        return _parts().cell(overrides)


@cache
def _parts() -> Composer:
    return Composer()
