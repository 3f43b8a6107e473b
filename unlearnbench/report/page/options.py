"""Descriptions of options, read from the YAML files of this installation."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from typing import Any

import yaml

from unlearnbench.core.resources import options_folder, package_folder

TRAITS = {
    "from_scratch": "trains from scratch",
    "uses_val": "looks at validation rows",
    "watches_training": "watches the original's training",
    "ensemble": "is an ensemble",
    "ignores_forget": "does not look at the forget rows",
    "prepares_blind": "prepares before the request is known",
    "seed_offset": "is of the next seed",
    "white_box": "holds the model itself",
    "compared": "beside the original and the retrained one",
}
"""Traits as rows name them, and their descriptions."""


@dataclass(frozen=True)
class Told:
    """The description of an option; only the name where this installation lacks the option.

    Attributes:
        label: name in tables.
        says: what the option does, in one sentence; empty where the option has no description.
        threat: what the attacker of an attack has.
        settings: arguments of the option, by dotted name.
        known: whether the YAML file exists.
    """

    label: str
    says: str = ""
    threat: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    known: bool = False


@lru_cache
def told(axis: str, name: str) -> Told:
    """Read the description of an option from ``conf/<axis>/<name>.yaml``.

    Args:
        axis: ``method`` or ``attack``.
        name: name of the option.
    """
    path = options_folder() / axis / f"{name}.yaml"
    if not path.is_file():
        return Told(name)
    text = path.read_text()
    says = yaml.load(text, yaml.CSafeLoader)  # no interpolation, and faster than OmegaConf
    settings: dict[str, Any] = {}
    for section in ("prepare", "call"):
        settings |= dict(_flat(says.get(section) or {}, section))
    sentence = _comment(text) or _docstring((says.get("call") or {}).get("_target_", ""))
    return Told(says.get("label", name), sentence, says.get("threat") or "", settings, True)


def _comment(text: str) -> str:
    """The comment lines at the top of a file, joined by spaces."""
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def _docstring(target: str) -> str:
    """The first docstring line of the module of a dotted path; no import, since torch is slow."""
    package, *module = target.split(".")[:-1] or [""]
    path = package_folder().joinpath(*module).with_suffix(".py")
    if package != package_folder().name or not path.is_file():
        return ""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def _flat(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if name == "_target_":
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}.{name}")
        else:
            yield f"{above}.{name}", value
