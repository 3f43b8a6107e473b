"""The command line: parse, run a command, and say mistakes in one line."""

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unlearnbench.cli.commands import COMMANDS, execute
from unlearnbench.config import compose, validate
from unlearnbench.config.arguments import with_search_path
from unlearnbench.config.overrides import launcher_overrides, plain_value, search_path
from unlearnbench.core import damage
from unlearnbench.core.errors import ConfigError, printable, text_of
from unlearnbench.core.resources import options_folder

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that was interrupted, as shells have it."""

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """End with one line and exit code 1 on whatever is wrong; HYDRA_FULL_ERROR=1 shows all."""
    try:
        with damage.in_one_line():
            yield
    except KeyboardInterrupt:
        sys.stderr.write("unlearnbench: interrupted; the same command goes on from here\n")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if FULL_ERROR:
            raise
        sys.exit(f"unlearnbench: {printable(explained(error))}")


def explained(error: Exception) -> str:
    """One line that says what to do about a mistake on the command line."""
    swept = re.match(r"(Ambiguous value for argument|Sweep parameters) '([^']*)'", str(error))
    if swept:
        return f"{swept[2]} is a sweep: add -m"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return text_of(error)
    given = get_args_parser().parse_args()
    # Other words name a command, or a sweep.
    return compose.explain(error, [word for word in given.overrides if "=" in word])


def typed(hydra_config: Any) -> list[str]:
    """The overrides that cells are composed of, from what Hydra has sorted into its own and ours.

    Args:
        hydra_config: the node ``hydra`` of the composed config.
    """
    told = OmegaConf.to_container(hydra_config.overrides, resolve=False)  # ${…} is the cell's
    assert isinstance(told, dict)
    return [*search_path(told["hydra"]), *told["task"]]


def asked(hydra_config: Any) -> list[str]:
    """The same, with what was said of the launcher: all that it takes to ask again."""
    told = OmegaConf.to_container(hydra_config.overrides.hydra, resolve=False)
    assert isinstance(told, list)
    return [*launcher_overrides(map(str, told)), *typed(hydra_config)]


class CellFailed(RuntimeError):
    """What a launcher that is not ours is told; the row says why."""


def one_cell(composed: DictConfig) -> None:
    """Hydra's task: one cell, in a single run or under a launcher that is not ours."""
    overrides = typed(HydraConfig.get())
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # such a launcher has other cells to run
        if not execute([overrides], compose.settings(overrides), None, overrides):
            raise CellFailed(f"failed: {' '.join(overrides)}")
        return
    with mistakes_in_one_line():  # before Hydra adds a line of its own
        works = execute([overrides], compose.settings(overrides), None, overrides)
    sys.exit(0 if works else 1)


def _check_flags(words: Sequence[str]) -> None:
    """Refuse in one line the flags of which Hydra would print its usage."""
    parser = get_args_parser()
    parser.exit_on_error = False
    _, unknown = parser.parse_known_args(list(words))
    if unknown:
        flag = unknown[0].startswith("-")
        told = "there is no such flag" if flag else "overrides stand together, with no flag between"
        raise ConfigError(f"{' '.join(unknown)}: {told}; see unlearnbench --help")


def main() -> None:
    """Run the command line."""
    first, *words = sys.argv[1:] or [""]
    if first in COMMANDS:
        with mistakes_in_one_line():
            works = COMMANDS[first](words)
        sys.exit(0 if works else 1)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    application = hydra.main(str(options_folder()), "config", version_base="1.3")(one_cell)
    with mistakes_in_one_line():
        words = with_search_path(sys.argv[1:])
        _check_flags(words)
        validate.check_folders(search_path(words))  # of which Hydra only warns
        sys.argv = [sys.argv[0], *map(plain_value, words)]
        application()
