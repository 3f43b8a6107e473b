"""Words of a command line: a sweep's name, flags, overrides. Knows no Hydra."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


class ConfigError(ValueError):
    """A user's mistake in an option, a key or a value: one line, with the nearest valid name."""


def options_folder() -> Path:
    """Where the YAML options lie: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def sorted_words(
    command: str, words: Sequence[str]
) -> tuple[str | None, dict[str, Any], list[str]]:
    """A command's words: the sweep it names, the flags that are given, and overrides.

    Raises:
        ConfigError: more than one sweep is named.
    """
    told = (options_folder() / "tuning.yaml").read_text() if command == "tune" else None
    parser = argparse.ArgumentParser(
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
    if given["config_dir"]:
        overrides.append(f"hydra.searchpath=[file://{Path(given['config_dir']).resolve()}]")
    if len(names) > (command not in ("plan", "compact", "tune")):
        raise ConfigError(
            f"unlearnbench {command}: {' '.join(names)}: one sweep at most, key=value"
        )
    flags = {flag: told for flag in FLAGS.get(command, ()) if (told := given[flag.strip("-")])}
    return (names[0] if names else None), flags, overrides
