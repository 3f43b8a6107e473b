"""Deletions of one record each, for attacks on parameters.

An original is trained on private rows, some of which are deleted, one at a time; the attacker holds
public rows, which are none of these.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from unlearnbench.core.cell import Cell, Written, written
from unlearnbench.core.errors import Skip
from unlearnbench.protocol._member import Arrays, Figures, Member, Models, Records, Rows, Subsets


@dataclass(frozen=True)
class SingleDeletions(Member):
    """The cell of all deletions that an attack asks for, or of one of them (``only``)."""

    protocol: ClassVar[str] = "single_deletions"
    reads_outputs: ClassVar[bool] = False

    @classmethod
    def models(cls, cell: Cell) -> list["SingleDeletions"]:
        """The cell of all deletions.

        Its split names the draw, so that one original serves all methods and all counts.
        """
        settings = cell.attack[cls.protocol]
        drawn = {name: settings[name] for name in ("private", "public", "seed")}
        request = {name: settings[name] for name in ("count", "together")}
        return [
            cls.of(
                cell,
                split={**cell.split, cls.protocol: drawn},
                forget={"name": cls.protocol, "version": 1, "call": None, **request},
            )
        ]

    @classmethod
    def needed(cls, cell: Cell) -> Iterator[Cell]:
        """The original, retraining and the method; nothing for the original itself."""
        if cell.is_original:
            return
        for member in cls.models(cell):
            if not cell.from_scratch:
                yield member.original()
            yield replace(member, method=cell.reference)
            yield member

    def key_parts(self) -> list[Written]:
        """The changes depend on the deletions also where the model does not."""
        return [written(self.forget)]

    def only(self, number: int) -> "SingleDeletions":
        """The cell of one of the deletions, from 0 on."""
        return replace(self, forget={**self.forget, "deletion": number})

    def parts(self, records: Records) -> Subsets:
        """Private rows to train on, and public ones in the place of a test part."""
        private, public = self.pools(records.kept)
        return Subsets(private, records.val, public, self.forgotten(private))

    def pools(self, rows: Rows) -> tuple[Rows, Rows]:
        """Private and public rows, both in the order of their drawing.

        Args:
            rows: those that may become either: the training rows without validation rows.

        Raises:
            ValueError: there are not enough of them.
        """
        settings = self.split[self.protocol]
        drawn = np.random.default_rng(settings["seed"]).permutation(rows)
        n, m = (_count(name, settings, len(rows)) for name in ("private", "public"))
        if n + m > len(rows):
            shares = f"private={settings['private']:g}, public={settings['public']:g}"
            raise ValueError(f"attack.single_deletions.{shares}: there are {len(rows)} rows here")
        return drawn[:n], drawn[n : n + m]

    def forgotten(self, private: Rows) -> Rows:
        """The rows that the cell's deletions delete, one each; of the cell of one, its own.

        Raises:
            ValueError: there are not so many rows.
        """
        count = self.forget["count"]
        if not 0 < count < len(private):
            limits = f"must be between 1 and {len(private) - 1} here"
            raise ValueError(f"attack.single_deletions.count={count}: {limits}")
        number = self.forget.get("deletion")
        return private[:count] if number is None else private[number : number + 1]

    def predict(self, models: Models) -> Arrays:
        """The change of parameters that each deletion makes."""
        return models.changes(self)

    @classmethod
    def gather(cls, cell: Cell, models: Models) -> tuple[list[Any], Figures]:
        """What the deletions change in the cell's model, beside the attacker's public records.

        Raises:
            Skip: the method deletes nothing.
        """
        if cell.is_original:
            raise Skip("the original has deleted nothing: there is no change to read")
        (member,) = cls.models(cell)
        return [models.audit(member, models.outputs(member))], {}


def _count(name: str, settings: Mapping[str, Any], rows: int) -> int:
    share = settings[name]
    if not share > 0:
        raise ValueError(f"attack.single_deletions.{name}={share:g}: must be above 0")
    return int(share * rows) if share <= 1 else round(share)
