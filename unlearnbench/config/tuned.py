"""Tuned settings: results of a search, used as defaults of a method."""

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
        name: name of the folder, as in ``tuned=``.
        words: overrides that set the method's settings.
        seconds: duration of the search; None for settings from a published source.
        seeds: seeds used in the search.
        measured_on: the device of the search; None if it is not recorded.
    """

    name: str
    words: tuple[str, ...]
    seconds: float | None
    seeds: tuple[int, ...]
    measured_on: str | None = None

    @property
    def cost(self) -> Option:
        """Name, seconds and device of the search, as stored in a cell."""
        cost = {"name": self.name, "seconds": self.seconds}
        return {**cost, "measured_on": self.measured_on}


def tuned_folder(name: str, results: str) -> Path:
    """The folder that ``tuned=`` names.

    Raises:
        ConfigError: the folder does not exist.
    """
    places = (options_folder() / "tuned", Path(results) / "tuned")
    with of_setting("tuned"):
        whole_path(name)  # as an override it may be no path
    for path in (*(place / name for place in places), expanded(name)):
        if path.is_dir():
            return path
    existing = sorted({path.name for place in places for path in place.glob("*") if path.is_dir()})
    near = nearest(name, existing) if existing else "; unlearnbench tune makes them"
    raise ConfigError(f"tuned={name}: no such settings{near}")


def read_tuned(top: Option, method: Option) -> Tuned | None:
    """The settings of a method in the folder of ``tuned=``; None without a file for the method.

    The result of a search applies to the version of the method that was searched; settings from a
    ``source`` apply to any version.

    Raises:
        ConfigError: the file belongs to another version of the method, or is not valid.
    """
    name = str(top["tuned"]["name"])
    path = tuned_folder(name, top["paths"]["results"]) / f"{method['name']}.yaml"
    if not path.is_file():
        return None
    try:
        content = plain_data(OmegaConf.load(path))
    except (*NOT_COMPOSED, ValueError, YAMLError, OSError) as error:
        reason = one_line(error)[:200]
        raise ConfigError(f"tuned={name}: {path} cannot be read ({reason})") from error
    try:
        provenance, settings = content["provenance"], dict(leaves(dict(content["call"]), "call"))
        seeds: tuple[int, ...] = ()
        if "source" in provenance:
            seconds, version = None, method["version"]
        else:
            seconds, version = float(provenance["seconds"]), provenance["method_version"]
            seeds = tuple(map(int, (*provenance["seeds"], *provenance["fresh_seeds"])))
            if not 0 <= seconds < math.inf or not isinstance(
                provenance.get("measured_on"), str | None
            ):
                raise ValueError("no seconds of a device")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"tuned={name}: {path} is not as unlearnbench tune writes it") from error
    if version != method["version"]:
        of = f"{path} was found for version {version} of method={method['name']}"
        raise ConfigError(f"tuned={name}: {of}, which is {method['version']} now: tune it again")
    usual = dict(leaves(method["call"], "call"))
    if not_settings := [key for key in settings if "_target_" in key or key not in usual]:
        message = f"{not_settings[0]} is no setting of method={method['name']}"
        raise ConfigError(f"tuned={name}: {path}: {message}")
    overrides = tuple(f"method.{key}={as_typed(value)}" for key, value in settings.items())
    return Tuned(name, overrides, seconds, seeds, provenance.get("measured_on"))
