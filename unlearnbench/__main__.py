"""The entry point: it configures memory, and imports Hydra only where a command needs it."""

import sys
from collections.abc import Sequence

from unlearnbench.core import damage
from unlearnbench.sweep import memory


def main() -> None:
    """Run ``unlearnbench``."""
    memory.keep_freed()
    memory.collect_seldom()
    first, *argv = sys.argv[1:] or [""]
    try:
        if first == "report":
            with damage.in_one_line():
                return report(argv)
        from unlearnbench.cli.main import main as run_command
    except (Exception, KeyboardInterrupt):
        from unlearnbench.cli.main import mistakes_in_one_line

        with mistakes_in_one_line():
            raise
    run_command()


def report(argv: Sequence[str]) -> None:
    """``unlearnbench report``: write tables and figures of a sweep, from Parquet files alone.

    It is not part of ``cli``, so that it imports neither planning nor training.

    Raises:
        ValueError: an argument is not valid.
        FileNotFoundError: there is no such sweep, or it has no rows yet.
    """
    from unlearnbench.config.arguments import parse_arguments
    from unlearnbench.core.errors import printable
    from unlearnbench.report import files
    from unlearnbench.results import load

    sweep, flags, overrides = parse_arguments("report", argv)
    folder = load.default_folder()
    if overrides:
        from unlearnbench.sweep import estimate

        folder = estimate.results_folder(overrides)
    study = files.study(folder, sweep or files.latest(folder))
    written = files.report(study, flags.get("--figures"))
    sys.stdout.writelines(f"wrote {printable(str(path))}\n" for path in written)


if __name__ == "__main__":
    main()
