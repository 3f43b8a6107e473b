"""A benchmark for machine unlearning whose methods and attacks are verified.

``load_results``, ``load_scores`` and ``load_predictions`` read computed results, ``load_trials``
reads trials of searches, ``run`` computes cells. The module imports its parts on first access, so
that the command and its workers start with only what they need.
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
    """Compute cells as the command line does, and return their rows.

        unlearnbench.run(method="finetune", seed=1)
        unlearnbench.run(["method=glob(*)", "seed=range(3)", "method.call.epochs=2"])

    Args:
        overrides: as on the command line; the cells are the product of all sweeps.
        settings: overrides as keywords; a list or range is a sweep, a mapping is a nested level.

    Returns:
        One row per value, controls included; see ``load_results``.

    Raises:
        ValueError: an option, key or value is not valid; the message names the nearest valid one.
    """
    from unlearnbench.config import compose, validate
    from unlearnbench.core.errors import ConfigError
    from unlearnbench.results.public import typed
    from unlearnbench.sweep import local as launch

    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides):
        example = 'a list of texts such as ["method=finetune", "seed=1"]'
        raise ConfigError(f"overrides: must be {example}")
    argv = [*overrides, *_words(settings)]
    with validate.hydra_ready():
        grid = compose.expand([*compose.study(argv), *argv])
        config = compose.settings(grid[0])
        cells = compose.cells(grid, config["controls"])
    return typed(launch.run(cells, config, words=argv))


def _words(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    argv = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            argv += _words(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple | range):
            argv.append(f"{prefix}{key}={','.join(map(_typed, value))}")
        else:
            argv.append(f"{prefix}{key}={_typed(value)}")
    return argv


def _typed(value: Any) -> str:
    """A value as typed on the command line; a string, which may be a sweep, is unchanged."""
    from unlearnbench.config.overrides import as_typed

    if isinstance(value, str):
        return value
    return as_typed(fspath(value) if isinstance(value, PathLike) else value)
