"""Words of the command line: flags, names and overrides. Knows neither Hydra nor torch."""

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
"""Of each command, beside a sweep and overrides."""

RESERVED = (
    *("rows", "scores", "roc", "trials", "sweeps", "studies", "tuned", "runs", "logs"),
    *("failures", "pictures", "tables", "store", "reference"),
)
"""Folders of the results that a report, which lies in ``<results>/<sweep>/``, must not lie in."""

LONGEST_NAME = 100
"""Characters of a sweep's name: it is part of names of files and folders."""


def sweep_name(name: str) -> str:
    """The name of a sweep as it was given, which is part of paths in the results folder.

    Raises:
        ConfigError: it is no name of a file or folder of its own.
    """
    if not re.fullmatch(r"\w[\w.+-]*", str(name)) or len(str(name)) > LONGEST_NAME:
        valid = f"letters, digits, _ . + -, at most {LONGEST_NAME}, the first a letter, digit or _"
        raise ConfigError(f"sweep {ascii(name)[:LONGEST_NAME]}: a name must be of {valid}")
    if str(name).lower() in RESERVED:
        raise ConfigError(f"sweep {name}: the results have a folder of that name; take another")
    return str(name)


def expanded(text: str) -> Path:
    """A path with what ``~`` and ``$NAME`` in it stand for.

    Raises:
        ConfigError: it is empty, or there is no such user.
    """
    try:
        if not text.strip():
            raise ValueError("it is empty")
        return Path(os.path.expandvars(text)).expanduser()
    except (RuntimeError, ValueError) as error:
        raise _no_path(text, error) from error


def whole_path(text: str) -> Path:
    """An absolute path of what was typed, so that all spellings of one place are one path.

    Raises:
        ConfigError: no path can be made of it.
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


def with_search_path(words: Sequence[str]) -> list[str]:
    """Words in which ``--config-dir`` is an override, which holds for the jobs of a sweep too.

    Raises:
        ConfigError: no folder stands behind the flag.
    """
    parser = _Parser("unlearnbench", add_help=False, allow_abbrev=False)
    parser.add_argument("-cd", "--config-dir")
    given, others = parser.parse_known_args(list(words))
    return others if given.config_dir is None else [*others, _search_word(given.config_dir)]


def _search_word(folder: str) -> str:
    text = str(whole_path(folder)).replace("'", r"\'").replace("${", r"\${")
    return f"hydra.searchpath=['file://{text}']"


def override_words(text: str) -> list[str]:
    """The overrides in a row's column ``overrides``, which spaces keep apart.

    A space in quotes or in brackets is part of a value: ``dataset.path='a b.npz' split.val=.3`` is
    two words. Quotes or brackets that do not end are signs like any other.
    """
    words, word, quote, depth = [], "", "", 0
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
            words.append(word)
            word = ""
            continue
        depth += 0 if quote else (sign in "[({") - (sign in "])}")
        word += sign
    whole = not quote and not depth
    return [one for one in (*words, word) if one] if whole else text.split()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {printable(message)}")


def parse_arguments(
    command: str, words: Sequence[str]
) -> tuple[str | None, dict[str, Any], list[str]]:
    """A command's words: the sweep it names, the flags that are given, and overrides.

    Raises:
        ConfigError: more than one sweep is named, one by what is no name, or a flag is unknown.
    """
    told = (options_folder() / "tuning.yaml").read_text() if command == "tune" else None
    parser = _Parser(
        f"unlearnbench {command}",
        allow_abbrev=False,
        epilog=told and f"beside cells it takes, as key=value:\n\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for flag, how in FLAGS.get(command, {}).items():
        parser.add_argument(flag, **how)
    parser.add_argument("-m", "--multirun", action="store_true", help="as in the sweep; no matter")
    parser.add_argument("-cd", "--config-dir", help="a folder of options of your own")
    parser.add_argument("words", nargs="*", help="a sweep's name, overrides such as seed=3")
    given = vars(parser.parse_intermixed_args(list(words)))
    names = [word for word in given["words"] if "=" not in word]
    overrides = [word for word in given["words"] if "=" in word]
    if given["config_dir"] is not None:
        overrides.append(_search_word(given["config_dir"]))
    if len(names) > (command not in ("plan", "compact", "tune")):
        raise ConfigError(
            f"unlearnbench {command}: {printable(' '.join(names))}: one sweep at most, key=value"
        )
    for name in names:
        sweep_name(name)
    flags = {flag: told for flag in FLAGS.get(command, ()) if (told := given[flag.strip("-")])}
    return (names[0] if names else None), flags, overrides
