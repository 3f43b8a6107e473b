"""How the models under attack are drawn, where an attack is not on the cell's own model.

A protocol is one module here: a subclass of ``Member``, the cell of one of its models. It draws the
models (``models``, ``needed``), the rows of each (``parts``), says what is stored of one
(``predict``, ``key_parts``) and what the attack gets (``gather``). The attack's YAML chooses it by
a block of settings with the module's name.
"""

import pkgutil
from functools import cache
from importlib import import_module

from unlearnbench.core.cell import Option
from unlearnbench.protocol._member import Member


@cache
def protocols() -> dict[str, type[Member]]:
    """The protocols by name."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"]
    for name in names:
        import_module(f"{__name__}.{name}")
    return {member.protocol: member for member in Member.__subclasses__()}


def protocol_of(attack: Option) -> type[Member] | None:
    """The protocol of an attack; None for one on the cell's own model."""
    return next((member for name, member in protocols().items() if attack.get(name)), None)
