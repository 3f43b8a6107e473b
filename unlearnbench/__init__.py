"""A benchmark for machine unlearning whose methods and attacks are verified.

``load_results``, ``load_scores`` and ``load_predictions`` read what was computed, ``load_trials``
what was searched, ``run`` computes cells. Importing this imports nothing else until it is asked
for, so that the command and its workers start with what they need.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from unlearnbench.results.load import load_trials
    from unlearnbench.results.public import load_predictions, load_results, load_scores

__all__ = [
    "__version__",
    "load_predictions",
    "load_results",
    "load_scores",
    "load_trials",
    "run",
]

_HOMES = {
    "load_predictions": "unlearnbench.results.public",
    "load_results": "unlearnbench.results.public",
    "load_scores": "unlearnbench.results.public",
    "load_trials": "unlearnbench.results.load",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("unlearnbench")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__


def run(overrides: Sequence[str] = (), /, **settings: Any) -> "pd.DataFrame":
    """Compute cells as the command line would, and return their rows.

        unlearnbench.run(method="finetune", seed=1)
        unlearnbench.run(["method=glob(*)", "seed=range(3)", "method.call.epochs=2"])

    Args:
        overrides: as on the command line; sweeps multiply out.
        settings: the same by keyword; a list or a range is a sweep, a mapping goes one level down.

    Returns:
        One row a number, controls included; see ``load_results``.

    Raises:
        ValueError: an option, key or value is not valid; it names the nearest valid one.
    """
    from unlearnbench.config import compose, validate
    from unlearnbench.core.errors import ConfigError
    from unlearnbench.results.public import typed
    from unlearnbench.sweep import local as launch

    if isinstance(overrides, str) or not all(isinstance(word, str) for word in overrides):
        example = 'a list of texts such as ["method=finetune", "seed=1"]'
        raise ConfigError(f"overrides: must be {example}")
    words = [*overrides, *_words(settings)]
    with validate.hydra_ready():
        grid = compose.expand([*compose.study(words), *words])
        told = compose.settings(grid[0])
        cells = compose.cells(grid, told["controls"])
    return typed(launch.run(cells, told, words=words))


def _words(settings: Mapping[str, Any], above: str = "") -> list[str]:
    words = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            words += _words(value, f"{above}{key}.")
        elif isinstance(value, list | tuple | range):
            words.append(f"{above}{key}={','.join(map(_typed, value))}")
        else:
            words.append(f"{above}{key}={_typed(value)}")
    return words


def _typed(value: Any) -> str:
    """A value as on the command line; a text, which may be a sweep, is as it was typed there."""
    from unlearnbench.config.overrides import as_typed

    if isinstance(value, str):
        return value
    return as_typed(fspath(value) if isinstance(value, PathLike) else value)
