"""Which settings get figures, and processes that draw them while tables are made.

Knows no matplotlib: only the processes that draw import it.
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
"""Settings up to which each gets figures unasked; of more nobody looks at all of them."""


def left_out(study: Study, pattern: str | None = None) -> list[str]:
    """The settings that get no figures of their own.

    Args:
        study: the rows.
        pattern: of the names of settings that get some, such as ``mnist*``; without it all do, as
            long as there are no more than ``MOST``.

    Raises:
        ValueError: no setting has such a name.
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
    """Draw the figures in processes of their own; what is given tells their files, when there.

    Args:
        study: the rows.
        without: settings that get no figures of their own.
    """
    with_own = set(study.cells["setting"]) - set(without)
    count = min(os.cpu_count() or 1, 1 + len(with_own))
    fork = multiprocessing.get_context("fork")  # nothing is imported anew, and no row is sent
    with ProcessPoolExecutor(count, fork, _inherit, (study, without)) as pool:
        drawn = [pool.submit(_draw, slice(first, None, count)) for first in range(count)]
        yield lambda: sorted(
            (path for share in drawn for path in share.result()),
            key=lambda path: (path.stem, path.suffix),  # a setting before the same with a defense
        )


_inherited: dict[str, Any] = {}
"""What a process that draws is born with."""


def _inherit(study: Study, without: Sequence[str]) -> None:
    _inherited.update(study=study, without=without)


def _draw(share: slice) -> list[Path]:
    from unlearnbench.report import figures

    return figures.draw(**_inherited, share=share)
