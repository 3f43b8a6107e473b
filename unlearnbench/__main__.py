"""The command's first step: how it uses memory, and whether it needs Hydra at all."""

import sys
from collections.abc import Sequence

from unlearnbench import damage, memory


def main() -> None:
    """Run ``unlearnbench``."""
    memory.keep_freed()
    memory.collect_seldom()
    first, *words = sys.argv[1:] or [""]
    try:
        if first == "report":
            with damage.in_one_line():
                return report(words)
        from unlearnbench import cli
    except (Exception, KeyboardInterrupt):
        from unlearnbench import cli

        with cli.mistakes_in_one_line():
            raise
    cli.main()


def report(words: Sequence[str]) -> None:
    """``unlearnbench report``: tables and figures of a sweep in files, from Parquet alone.

    It is no command of ``cli``, so as not to import what plans and trains.

    Raises:
        ValueError: a word is not valid.
        FileNotFoundError: there is no such sweep, or nothing of it yet.
    """
    from unlearnbench import results
    from unlearnbench.report import files
    from unlearnbench.words import printable, sorted_words

    sweep, flags, overrides = sorted_words("report", words)
    folder = results.default_folder()
    if overrides:
        from unlearnbench import commands

        folder = commands.results_folder(overrides)
    study = files.study(folder, sweep or files.latest(folder))
    written = files.report(study, flags.get("--figures"))
    sys.stdout.writelines(f"wrote {printable(str(path))}\n" for path in written)


if __name__ == "__main__":
    main()
