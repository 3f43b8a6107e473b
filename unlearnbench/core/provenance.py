"""The commit of the running code."""

import subprocess
from functools import lru_cache
from pathlib import Path

from unlearnbench.core.resources import package_folder

CODE = ("unlearnbench", "hydra_plugins", "conf")
"""Folders of a checkout in which an untracked file is part of the running code."""


@lru_cache
def commit() -> str | None:
    """The commit of the checkout, or None for an installed package.

    It ends in ``-dirty`` if the code differs from the commit: a tracked file outside ``results``,
    which runs change, is modified, or a file in the folders of ``CODE`` is not tracked.
    """
    here = package_folder().parent
    if not (here / ".git").exists():
        return None
    if not (name := _git(here, "rev-parse", "--short=12", "HEAD")):
        return None
    changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":!results")
    added = _git(here, "ls-files", "--others", "--exclude-standard", "--", *CODE)
    return f"{name}-dirty" if changed or added else name


def _git(here: Path, *arguments: str) -> str:
    """Output of a read-only git command in a checkout; empty if the command fails."""
    command = ["git", "--no-optional-locks", "-C", str(here), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
