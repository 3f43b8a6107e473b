"""Cells of digits × cnn, as small as tests need them."""

from collections.abc import Callable

from unlearnbench import config

Cells = Callable[..., config.Cell]


def compose(*overrides: str) -> config.Cell:
    """One cell of digits × cnn, trained for two epochs unless it says otherwise."""
    (cell,) = config.cells([["train.call.epochs=2", "attack=none", *overrides]])
    return cell
