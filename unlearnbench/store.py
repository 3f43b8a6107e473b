"""Content-addressed artifacts: made once, complete or not there. Knows no machine learning.

An artifact is the folder ``<root>/ab/abcdef…/`` with its files and a ``manifest.json`` that holds
their SHA-256. It is made in a sibling folder under a lock and renamed into place, the manifest
written last, so that a crash leaves nothing a later run takes for a result.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

MANIFEST = "manifest.json"


class Damaged(RuntimeError):
    """An artifact's file is not what its manifest says."""


@dataclass(frozen=True)
class Entry:
    """A finished artifact on disk."""

    path: Path
    manifest: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """The bytes of one of its files.

        Raises:
            Damaged: they are missing, or not those that were written.
        """
        path = self.path / name
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != self.manifest["files"].get(name):
            raise Damaged(f"{path} is not what its manifest says: delete {self.path} to remake it")
        return data


class Store:
    """Artifacts under one root folder, which several processes and machines may share."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Where the artifact of a key lies, or would lie."""
        assert re.fullmatch(r"[0-9a-f]{64}", key), key
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether the artifact is finished."""
        return (self.path(key) / MANIFEST).is_file()

    def load(self, key: str) -> Entry:
        """A finished artifact.

        Raises:
            FileNotFoundError: it is not there.
        """
        path = self.path(key)
        return Entry(path, json.loads((path / MANIFEST).read_text()))

    def get(self, key: str, make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """Load the artifact, or make it while everybody else waits.

        Args:
            key: 64 hexadecimal digits.
            make: writes files into the folder it is given, returns what the manifest should say.
                If it raises, nothing is left behind.
        """
        if self.has(key):
            return self.load(key)
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The operating system drops this lock when its holder dies, however it dies.
        with FileLock(path.with_suffix(".lock")):
            if not self.has(key):
                self._make(path, key, make)
        return self.load(key)

    def _make(self, path: Path, key: str, make: Callable[[Path], Mapping[str, Any]]) -> None:
        temporary = path.with_suffix(".tmp")
        for leftover in (temporary, path):  # of a holder of this lock that died
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        try:
            told = make(temporary)
            files = {
                p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                for p in sorted(temporary.iterdir())
            }
            manifest = json.dumps({"key": key, "files": files, **told}, indent=1, sort_keys=True)
            with (temporary / MANIFEST).open("w") as file:
                file.write(manifest)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
