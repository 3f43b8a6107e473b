"""What protocols have in common. NumPy only: planning a sweep imports this."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from unlearnbench.core.cell import NOTHING, Cell

Rows = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]
Figures = dict[str, tuple[float, int]]
"""Metric name → (value, number of records it was computed on)."""


@dataclass(frozen=True)
class Records:
    """The records of a data set, by number, as a cell's own split cuts them.

    Attributes:
        train: the training part (n,), validation rows among them, in the order of draws.
        places: places in ``train`` of the rows that are no validation rows.
        val: validation rows.
        test: the test part.
        forget: the forget set that the cell's option chooses among some training rows.
    """

    train: Rows
    places: Rows
    val: Rows
    test: Rows
    forget: Callable[[Rows], Rows]

    @property
    def kept(self) -> Rows:
        """Training rows without validation rows."""
        return self.train[self.places]


class Subsets(NamedTuple):
    """Which rows do what, for one model; ``forget`` is part of ``train``."""

    train: Rows
    val: Rows
    test: Rows
    forget: Rows


class Models(Protocol):
    """What the pipeline offers to a protocol: models and stored outputs of cells."""

    def records(self, cell: Cell) -> Records:
        """The records of the cell's data set."""

    def labels(self, cell: Cell, rows_N: Rows) -> NDArray[Any]:
        """Labels (N,) of some rows."""

    def unlearned(self, cell: Cell) -> Any:
        """The model after the cell's method, or the original, through the store."""

    def ephemeral(self, cell: Cell) -> Any:
        """The model after the cell's method, which is not stored."""

    def logits(self, net: Any, cell: Cell, rows_N: Rows) -> NDArray[np.float32]:
        """Outputs (N, C) of a net on some rows."""

    def views(self, net: Any, cell: Cell, rows_N: Rows) -> NDArray[np.float32]:
        """Outputs (Q, N, C) on the rows as they are and on augmented views of them."""

    def changes(self, cell: Any) -> Arrays:
        """Changes of parameters that the cell's deletions make, see ``parameters.changes``."""

    def audit(self, cell: Any, changes: Arrays) -> Any:
        """Input of an attack on parameters, see ``parameters.audit``."""

    def outputs(self, cell: Cell) -> Arrays:
        """The stored outputs of the cell, made first if they are missing."""


@dataclass(frozen=True)
class Member(Cell):
    """The cell of a model that an attack's protocol draws; one subclass for each protocol.

    Attributes:
        protocol: the protocol's name: of its module, and of its block in the attack's YAML.
        reads_outputs: whether the attack reads outputs, so that a defense of outputs matters.
    """

    protocol: ClassVar[str]
    reads_outputs: ClassVar[bool] = True

    @classmethod
    def of(cls, cell: Cell, **changes: Any) -> Self:
        """A cell's method on a model of the protocol, without the cell's attack and defense."""
        own = {field.name: getattr(cell, field.name) for field in fields(Cell)}
        own |= {"attack": NOTHING, "defense": NOTHING, "overrides": ""}
        return cls(**{**own, **changes})

    @classmethod
    def models(cls, cell: Cell) -> list[Self]:
        """The models under the cell's method that its attack draws.

        Raises:
            ValueError: a setting of the protocol is not valid.
        """
        raise NotImplementedError

    @classmethod
    def needed(cls, cell: Cell) -> Iterator[Cell]:
        """All models whose outputs the attack reads, in an order in which they can be made."""
        for member in cls.models(cell):
            yield replace(member, method=cell.reference)
            yield member

    def parts(self, records: Records) -> Subsets:
        """Which rows do what for this model."""
        raise NotImplementedError

    def predict(self, models: Models) -> Arrays:
        """What is stored of this model."""
        raise NotImplementedError

    @classmethod
    def gather(cls, cell: Cell, models: Models) -> tuple[list[Any], Figures]:
        """The inputs of the cell's attack, and figures of the models that stand beside its own."""
        raise NotImplementedError
