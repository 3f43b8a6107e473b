"""Check methods against the properties and report the result of each."""

import inspect
import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import get_context

import torch

from unlearnbench.check.properties import MODELS, Verdict, properties
from unlearnbench.check.subject import FAIL, PASS, SKIP, Broken, Subject, as_text, subject_of
from unlearnbench.config import compose, overrides
from unlearnbench.core.cell import Option, target
from unlearnbench.core.errors import ConfigError, Skip


def examined(option: Option, models: Sequence[str] = MODELS) -> list[Verdict]:
    """Check all properties of one method."""
    torch.set_num_threads(1)
    with redirect_stdout(io.StringIO()):  # silence is a property that is checked separately
        return _examined(option, models)


def _examined(option: Option, models: Sequence[str]) -> list[Verdict]:
    descriptions, name = properties(models), option["name"]
    if option["call"] is None:
        return [Verdict(name, "It runs", SKIP, "it calls nothing")]
    try:
        subject = subject_of(option)
    except Skip as error:
        return [Verdict(name, description, SKIP, str(error)) for description in descriptions]
    except Exception as error:  # noqa: BLE001 - any exception is a verdict
        return [Verdict(name, "It runs", FAIL, as_text(error))]
    return [verdict_of(subject, description, models) for description in descriptions]


def verdict_of(subject: Subject, description: str, models: Sequence[str] = MODELS) -> Verdict:
    """Check one property of a method, selected by its description."""
    name = subject.cell.method["name"]
    try:
        note = properties(models)[description](subject)
    except Skip as error:
        return Verdict(name, description, SKIP, str(error))
    except Broken as error:
        return Verdict(name, description, FAIL, str(error))
    except Exception as error:  # noqa: BLE001 - see above
        return Verdict(name, description, FAIL, as_text(error))
    return Verdict(name, description, PASS, note or "")


def check(arguments: Sequence[str]) -> Iterator[list[Verdict]]:
    """Check the methods selected by overrides, on all cores; yields one list for each method.

    Args:
        arguments: overrides as on the command line: ``method=scrub``, ``method=glob(*)``, or the
            dotted path of a function with its settings, ``method=their.module.function
            method.call.epochs=3``; ``model=`` replaces ``MODELS``.

    Raises:
        ConfigError: an option is unknown, or a setting is missing.
    """
    models = [word.removeprefix("model=") for word in arguments if word.startswith("model=")]
    model_names = [name for word in models for name in word.split(",")] or list(MODELS)
    options = _options([word for word in arguments if not word.startswith("model=")])
    workers = min(len(options), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        yield from pool.map(partial(examined, models=model_names), options)


def _options(arguments: Sequence[str]) -> list[Option]:
    chosen = next((word for word in arguments if word.startswith("method=")), "method=glob(*)")
    path = chosen.removeprefix("method=")
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", path):
        return [_unlisted_option(path, [word for word in arguments if word != chosen])]
    grid = compose.expand([chosen, *(word for word in arguments if word != chosen)])
    return [cell.method for cell in compose.cells(grid)]


def _unlisted_option(path: str, arguments: Sequence[str]) -> Option:
    """Build the option of a function without a YAML from the settings on the command line."""
    function, _ = target({"_target_": path})
    settings = overrides.below(arguments, "method.call")
    needed = [
        name
        for name, parameter in list(inspect.signature(function).parameters.items())[2:]
        if parameter.default is parameter.empty
    ]
    missing = [f"method.call.{name}=…" for name in needed if name not in settings]
    if missing:
        raise ConfigError(f"method={path} needs {' '.join(missing)}")
    return {"name": path, "version": 0, "call": {"_target_": path, **settings}}
