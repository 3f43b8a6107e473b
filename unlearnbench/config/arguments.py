"""Arguments of the command line: flags, names and overrides. Imports neither Hydra nor torch."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from unlearnbench.core.errors import ConfigError, printable
from unlearnbench.core.resources import options_folder

FLAGS: dict[str, dict[str, dict[str, Any]]] = {
    "retry": {
        "--failed": {
            "action": "store_true",
            "help": "only cells that failed, not those that are missing",
        },
        "--oom": {
            "action": "store_true",
            "help": "only cells killed for memory, with twice as much (here: one at a time)",
        },
    },
    "report": {
        "--figures": {
            "metavar": "'mnist*'",
            "help": "names of settings that get figures of their own; all, where they are few",
        }
    },
}
"""Flags of each command, in addition to a sweep and overrides."""

RESERVED = (
    *("rows", "scores", "roc", "trials", "sweeps", "studies", "tuned", "runs", "logs"),
    *("failures", "pictures", "tables", "store", "reference"),
)
"""Folder names in the results that no sweep may have, as reports are in ``<results>/<sweep>/``."""

LONGEST_NAME = 100
"""Characters of a sweep's name, which is part of file and folder names."""


def sweep_name(name: str) -> str:
    """The checked name of a sweep, which is part of paths in the results folder.

    Raises:
        ConfigError: the name is not valid as a file name, or is reserved.
    """
    if not re.fullmatch(r"\w[\w.+-]*", str(name)) or len(str(name)) > LONGEST_NAME:
        valid = f"letters, digits, _ . + -, at most {LONGEST_NAME}, the first a letter, digit or _"
        raise ConfigError(f"sweep {ascii(name)[:LONGEST_NAME]}: a name must be of {valid}")
    if str(name).lower() in RESERVED:
        raise ConfigError(f"sweep {name}: the results have a folder of that name; take another")
    return str(name)


def expanded(text: str) -> Path:
    """A path with ``~`` and ``$NAME`` expanded.

    Raises:
        ConfigError: the path is empty, or the user does not exist.
    """
    try:
        if not text.strip():
            raise ValueError("it is empty")
        return Path(os.path.expandvars(text)).expanduser()
    except (RuntimeError, ValueError) as error:
        raise _no_path(text, error) from error


def whole_path(text: str) -> Path:
    """The absolute path of a text, so that all spellings of one place give one path.

    Raises:
        ConfigError: the text is not a valid path.
    """
    try:
        path = expanded(text).resolve()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise _no_path(text, error) from error
    return path


def _no_path(text: str, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) else error
    return ConfigError(f"{ascii(text)[:LONGEST_NAME]}: is no path ({reason})")


def with_search_path(argv: Sequence[str]) -> list[str]:
    """Arguments with ``--config-dir`` as an override, which applies to the jobs of a sweep too.

    Raises:
        ConfigError: the flag has no folder.
    """
    parser = _Parser("unlearnbench", add_help=False, allow_abbrev=False)
    parser.add_argument("-cd", "--config-dir")
    flags, others = parser.parse_known_args(list(argv))
    return others if flags.config_dir is None else [*others, _search_word(flags.config_dir)]


def _search_word(folder: str) -> str:
    text = str(whole_path(folder)).replace("'", r"\'").replace("${", r"\${")
    return f"hydra.searchpath=['file://{text}']"


def override_words(text: str) -> list[str]:
    """The overrides in a row's column ``overrides``, separated by spaces.

    A space in quotes or in brackets is part of a value: ``dataset.path='a b.npz' split.val=.3`` is
    two overrides. If a quote or bracket is not closed, the text is split at every space.
    """
    overrides, word, quote, depth = [], "", "", 0
    signs = iter(text)
    for sign in signs:
        if sign == "\\":
            word += sign + next(signs, "")
            continue
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign.isspace() and not depth:
            overrides.append(word)
            word = ""
            continue
        depth += 0 if quote else (sign in "[({") - (sign in "])}")
        word += sign
    is_balanced = not quote and not depth
    return (
        [override for override in (*overrides, word) if override] if is_balanced else text.split()
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {printable(message)}")


def parse_arguments(
    command: str, argv: Sequence[str]
) -> tuple[str | None, dict[str, Any], list[str]]:
    """The arguments of a command: the name of the sweep, the flags, and the overrides.

    Raises:
        ConfigError: more than one sweep is named, a name is not valid, or a flag is unknown.
    """
    defaults_text = (options_folder() / "tuning.yaml").read_text() if command == "tune" else None
    parser = _Parser(
        f"unlearnbench {command}",
        allow_abbrev=False,
        epilog=defaults_text and f"beside cells it takes, as key=value:\n\n{defaults_text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, how in FLAGS.get(command, {}).items():
        parser.add_argument(flag, **how)
    parser.add_argument("-m", "--multirun", action="store_true", help="as in the sweep; no matter")
    parser.add_argument("-cd", "--config-dir", help="a folder of options of your own")
    parser.add_argument("words", nargs="*", help="a sweep's name, overrides such as seed=3")
    parsed = vars(parser.parse_intermixed_args(list(argv)))
    names = [word for word in parsed["words"] if "=" not in word]
    overrides = [word for word in parsed["words"] if "=" in word]
    if parsed["config_dir"] is not None:
        overrides.append(_search_word(parsed["config_dir"]))
    if len(names) > (command not in ("plan", "compact", "tune")):
        raise ConfigError(
            f"unlearnbench {command}: {printable(' '.join(names))}: one sweep at most, key=value"
        )
    for name in names:
        sweep_name(name)
    flags = {flag: value for flag in FLAGS.get(command, ()) if (value := parsed[flag.strip("-")])}
    return (names[0] if names else None), flags, overrides
