"""Settings that a search has found, as defaults of a method."""

import math
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from yaml import YAMLError

from unlearnbench.config.arguments import expanded, whole_path
from unlearnbench.config.overrides import (
    NOT_COMPOSED,
    as_typed,
    leaves,
    nearest,
    one_line,
    plain_data,
)
from unlearnbench.config.validate import of_setting
from unlearnbench.core.cell import Option
from unlearnbench.core.errors import ConfigError
from unlearnbench.core.resources import options_folder


@dataclass(frozen=True)
class Tuned:
    """Settings of a method from a file.

    Attributes:
        name: of the folder, as ``tuned=`` says it.
        words: overrides that make the method so.
        seconds: that the search took; None of settings from a source, which no search here found.
        seeds: that it looked at.
        measured_on: the device whose seconds these are; None where that is not known.
    """

    name: str
    words: tuple[str, ...]
    seconds: float | None
    seeds: tuple[int, ...]
    measured_on: str | None = None

    @property
    def cost(self) -> Option:
        """What a cell has of it."""
        about = {"name": self.name, "seconds": self.seconds}
        return {**about, "measured_on": self.measured_on}


def tuned_folder(name: str, results: str) -> Path:
    """The folder that ``tuned=`` names.

    Raises:
        ConfigError: there is none.
    """
    places = (options_folder() / "tuned", Path(results) / "tuned")
    with of_setting("tuned"):
        whole_path(name)  # as an override it may be no path
    for path in (*(place / name for place in places), expanded(name)):
        if path.is_dir():
            return path
    known = sorted({path.name for place in places for path in place.glob("*") if path.is_dir()})
    near = nearest(name, known) if known else "; unlearnbench tune makes them"
    raise ConfigError(f"tuned={name}: no such settings{near}")


def read_tuned(top: Option, method: Option) -> Tuned | None:
    """The settings of a method in the folder of ``tuned=``; None where it has no file of it.

    What a search has found holds for the version of the method that it ran; what is taken from a
    ``source`` holds for any.

    Raises:
        ConfigError: the file is of another version of the method, or is none.
    """
    name = str(top["tuned"]["name"])
    path = tuned_folder(name, top["paths"]["results"]) / f"{method['name']}.yaml"
    if not path.is_file():
        return None
    try:
        told = plain_data(OmegaConf.load(path))
    except (*NOT_COMPOSED, ValueError, YAMLError, OSError) as error:
        reason = one_line(error)[:200]
        raise ConfigError(f"tuned={name}: {path} cannot be read ({reason})") from error
    try:
        about, settings = told["provenance"], dict(leaves(dict(told["call"]), "call"))
        seeds: tuple[int, ...] = ()
        if "source" in about:
            seconds, version = None, method["version"]
        else:
            seconds, version = float(about["seconds"]), about["method_version"]
            seeds = tuple(map(int, (*about["seeds"], *about["fresh_seeds"])))
            if not 0 <= seconds < math.inf or not isinstance(about.get("measured_on"), str | None):
                raise ValueError("no seconds of a device")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"tuned={name}: {path} is not as unlearnbench tune writes it") from error
    if version != method["version"]:
        of = f"{path} was found for version {version} of method={method['name']}"
        raise ConfigError(f"tuned={name}: {of}, which is {method['version']} now: tune it again")
    usual = dict(leaves(method["call"], "call"))
    if not_settings := [key for key in settings if "_target_" in key or key not in usual]:
        told_of = f"{not_settings[0]} is no setting of method={method['name']}"
        raise ConfigError(f"tuned={name}: {path}: {told_of}")
    words = tuple(f"method.{key}={as_typed(value)}" for key, value in settings.items())
    return Tuned(name, words, seconds, seeds, about.get("measured_on"))
