"""The commit that the code is of."""

import subprocess
from functools import lru_cache
from pathlib import Path

from unlearnbench.core.resources import package_folder

CODE = ("unlearnbench", "hydra_plugins", "conf")
"""Folders of a checkout in which an untracked file is part of what runs."""


@lru_cache
def commit() -> str | None:
    """The commit this code was checked out at, or None for an installed package.

    It ends in ``-dirty`` where the code is not that of the commit: a tracked file is changed (but
    for results, which running changes), or a file in the folders of ``CODE`` is not tracked.
    """
    here = package_folder().parent
    if not (here / ".git").exists():
        return None
    if not (name := _git(here, "rev-parse", "--short=12", "HEAD")):
        return None
    changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":!results")
    added = _git(here, "ls-files", "--others", "--exclude-standard", "--", *CODE)
    return f"{name}-dirty" if changed or added else name


def _git(here: Path, *words: str) -> str:
    """What git says about a checkout, changing nothing there; nothing where it fails."""
    asked = ["git", "--no-optional-locks", "-C", str(here), *words]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
