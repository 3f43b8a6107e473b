"""The command line: parse arguments, run a command, report errors in one line."""

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
"""Exit code of a command that was interrupted, as in shells."""

FULL_ERROR = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Report an error in one line, exit with 1 (130 if interrupted); HYDRA_FULL_ERROR=1 raises."""
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
    """One line that says how to correct an error on the command line."""
    swept = re.match(r"(Ambiguous value for argument|Sweep parameters) '([^']*)'", str(error))
    if swept:
        return f"{swept[2]} is a sweep: add -m"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return text_of(error)
    arguments = get_args_parser().parse_args()
    # Arguments without = name a command or a sweep.
    return compose.explain(error, [argument for argument in arguments.overrides if "=" in argument])


def typed(hydra_config: Any) -> list[str]:
    """The overrides that compose a cell, from Hydra's lists of its own and the task's overrides.

    Args:
        hydra_config: the node ``hydra`` of the composed config.
    """
    # ${…} is resolved in the cell.
    overrides = OmegaConf.to_container(hydra_config.overrides, resolve=False)
    assert isinstance(overrides, dict)
    return [*search_path(overrides["hydra"]), *overrides["task"]]


def asked(hydra_config: Any) -> list[str]:
    """The overrides of ``typed`` and those of the launcher: all that a repeated run needs."""
    overrides = OmegaConf.to_container(hydra_config.overrides.hydra, resolve=False)
    assert isinstance(overrides, list)
    return [*launcher_overrides(map(str, overrides)), *typed(hydra_config)]


class CellFailed(RuntimeError):
    """The error that a third-party launcher receives; the row holds the reason."""


def one_cell(composed: DictConfig) -> None:
    """Hydra's task: one cell, in a single run or under a third-party launcher."""
    overrides = typed(HydraConfig.get())
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # the launcher has other cells to run
        if not execute([overrides], compose.settings(overrides), None, overrides):
            raise CellFailed(f"failed: {' '.join(overrides)}")
        return
    with mistakes_in_one_line():  # before Hydra adds a line of its own
        succeeded = execute([overrides], compose.settings(overrides), None, overrides)
    sys.exit(0 if succeeded else 1)


def _check_flags(argv: Sequence[str]) -> None:
    """Raise ConfigError for unknown flags and separated overrides; Hydra would print its usage."""
    parser = get_args_parser()
    parser.exit_on_error = False
    _, unknown = parser.parse_known_args(list(argv))
    if unknown:
        is_flag = unknown[0].startswith("-")
        advice = (
            "there is no such flag" if is_flag else "overrides stand together, with no flag between"
        )
        raise ConfigError(f"{' '.join(unknown)}: {advice}; see unlearnbench --help")


def main() -> None:
    """Run the command line."""
    first, *argv = sys.argv[1:] or [""]
    if first in COMMANDS:
        with mistakes_in_one_line():
            succeeded = COMMANDS[first](argv)
        sys.exit(0 if succeeded else 1)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    application = hydra.main(str(options_folder()), "config", version_base="1.3")(one_cell)
    with mistakes_in_one_line():
        argv = with_search_path(sys.argv[1:])
        _check_flags(argv)
        validate.check_folders(search_path(argv))  # Hydra only warns about these
        sys.argv = [sys.argv[0], *map(plain_value, argv)]
        application()
