"""The settings that get figures, and the processes that draw them while tables are made.

This module does not import matplotlib; only the drawing processes do.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from unlearnbench.report.analysis.study import Study

MOST = 6
"""Most settings for which each setting gets its own figures by default."""


def left_out(study: Study, pattern: str | None = None) -> list[str]:
    """The settings that get no figures of their own.

    Args:
        study: the rows.
        pattern: glob for the names of settings that get figures, such as ``mnist*``. Without a
            pattern, all settings get figures if there are at most ``MOST`` of them, else none.

    Raises:
        ValueError: no name of a setting matches the pattern.
    """
    names = sorted(study.cells["setting"].unique())
    if pattern is None:
        return names if len(names) > MOST else []
    rest = [name for name in names if not fnmatchcase(name, pattern)]
    if len(rest) == len(names):
        near = get_close_matches(pattern, names, n=1, cutoff=0) or ["none at all"]
        raise ValueError(f"--figures {pattern}: no setting is named so; there is {near[0]}")
    return rest


@contextmanager
def beside(study: Study, without: Sequence[str]) -> Iterator[Callable[[], list[Path]]]:
    """Draw the figures in other processes; yield a function that waits for and returns the files.

    Args:
        study: the rows.
        without: settings that get no figures of their own.
    """
    with_own = set(study.cells["setting"]) - set(without)
    count = min(os.cpu_count() or 1, 1 + len(with_own))
    fork = multiprocessing.get_context("fork")  # no new imports, and no rows are sent
    with ProcessPoolExecutor(count, fork, _inherit, (study, without)) as pool:
        drawn = [pool.submit(_draw, slice(first, None, count)) for first in range(count)]
        yield lambda: sorted(
            (path for share in drawn for path in share.result()),
            key=lambda path: (path.stem, path.suffix),  # settings without a defense first
        )


_inherited: dict[str, Any] = {}
"""Arguments of ``draw`` in a drawing process, set when the process starts."""


def _inherit(study: Study, without: Sequence[str]) -> None:
    _inherited.update(study=study, without=without)


def _draw(share: slice) -> list[Path]:
    from unlearnbench.report import figures

    return figures.draw(**_inherited, share=share)
