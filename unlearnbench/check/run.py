"""Check methods against the properties, and say which hold."""

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
    """All properties of one method."""
    torch.set_num_threads(1)
    with redirect_stdout(io.StringIO()):  # what a method prints is a property of its own
        return _examined(option, models)


def _examined(option: Option, models: Sequence[str]) -> list[Verdict]:
    asked, name = properties(models), option["name"]
    if option["call"] is None:
        return [Verdict(name, "It runs", SKIP, "it calls nothing")]
    try:
        found = subject_of(option)
    except Skip as error:
        return [Verdict(name, what, SKIP, str(error)) for what in asked]
    except Exception as error:  # noqa: BLE001 - whatever it raises is the verdict
        return [Verdict(name, "It runs", FAIL, as_text(error))]
    return [verdict_of(found, what, models) for what in asked]


def verdict_of(subject: Subject, what: str, models: Sequence[str] = MODELS) -> Verdict:
    """One property of a method, by what it says."""
    name = subject.cell.method["name"]
    try:
        note = properties(models)[what](subject)
    except Skip as error:
        return Verdict(name, what, SKIP, str(error))
    except Broken as error:
        return Verdict(name, what, FAIL, str(error))
    except Exception as error:  # noqa: BLE001 - as above
        return Verdict(name, what, FAIL, as_text(error))
    return Verdict(name, what, PASS, note or "")


def check(words: Sequence[str]) -> Iterator[list[Verdict]]:
    """Examine the methods that overrides ask for, on all cores; one list a method, as they come.

    Args:
        words: as on the command line: ``method=scrub``, ``method=glob(*)``, or the dotted path of a
            function with its settings, ``method=their.module.function method.call.epochs=3``;
            ``model=`` for other models than ``MODELS``.

    Raises:
        ConfigError: an option is unknown, or a setting is missing.
    """
    models = [word.removeprefix("model=") for word in words if word.startswith("model=")]
    asked = [name for word in models for name in word.split(",")] or list(MODELS)
    options = _options([word for word in words if not word.startswith("model=")])
    workers = min(len(options), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        yield from pool.map(partial(examined, models=asked), options)


def _options(words: Sequence[str]) -> list[Option]:
    chosen = next((word for word in words if word.startswith("method=")), "method=glob(*)")
    path = chosen.removeprefix("method=")
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", path):
        return [_given(path, [word for word in words if word != chosen])]
    grid = compose.expand([chosen, *(word for word in words if word != chosen)])
    return [cell.method for cell in compose.cells(grid)]


def _given(path: str, words: Sequence[str]) -> Option:
    """The option of a function without a YAML, from the settings on the command line."""
    function, _ = target({"_target_": path})
    settings = overrides.below(words, "method.call")
    needed = [
        name
        for name, parameter in list(inspect.signature(function).parameters.items())[2:]
        if parameter.default is parameter.empty
    ]
    missing = [f"method.call.{name}=…" for name in needed if name not in settings]
    if missing:
        raise ConfigError(f"method={path} needs {' '.join(missing)}")
    return {"name": path, "version": 0, "call": {"_target_": path, **settings}}
