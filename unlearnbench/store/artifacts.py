"""Content-addressed artifacts: made once, complete or absent. Independent of machine learning.

An artifact is the folder ``<root>/ab/abcdef…/`` with its files and a ``manifest.json`` that holds
their SHA-256. It is made in a sibling folder under a lock and renamed into place. The manifest is
written last, so a later run never reads the output of a crashed process as a result. Each process
has a sibling folder of its own, so a process whose lock was broken damages no artifact.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from errno import EEXIST, ENOTEMPTY
from pathlib import Path
from typing import Any

from unlearnbench.core import atomic, damage
from unlearnbench.store.lock import Known, locked

MANIFEST = "manifest.json"

SWEEPS = "sweeps"
"""Folder of the lists of keys that sweeps need; no shard has this name."""

KEY = re.compile(r"[0-9a-f]{64}")

Make = Callable[[Path], Mapping[str, Any]]

FEW = 4
"""Up to this many keys of one shard are checked one by one; for more, the shard is listed."""


class Damaged(RuntimeError):
    """A file of an artifact does not match the manifest."""


@dataclass(frozen=True)
class Entry:
    """A finished artifact on disk."""

    path: Path
    manifest: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            Damaged: the file is missing, or its content does not match the manifest.
        """
        path = self.path / name
        if name in self.manifest.get("dropped", {}):
            raise Damaged(f"{path} was not kept")
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != self.manifest["files"].get(name):
            raise Damaged(f"{path} is not what its manifest says: delete {self.path} to remake it")
        return data


class Store:
    """Artifacts under one root folder, which several processes and machines can share."""

    def __init__(self, root: Path, known: Known = lambda job: True) -> None:
        """Open the store.

        Args:
            root: the folder of the store; it need not exist yet.
            known: whether SLURM knows a job; called for the job that holds a lock.
        """
        self.root = Path(root)
        self.known = known

    def path(self, key: str) -> Path:
        """The path of a key's artifact, finished or not."""
        assert KEY.fullmatch(key), key
        return self.root / key[:2] / key

    def unfinished(self, key: str) -> Path:
        """The path of a sibling file in which the process that makes the artifact saves progress.

        The file survives a kill, and is deleted when the artifact is finished.
        """
        return self._beside(key, "unfinished")

    def _beside(self, key: str, suffix: str) -> Path:
        return self.path(key).with_suffix(f".{suffix}")

    def has(self, key: str) -> bool:
        """Whether the artifact is finished."""
        return (self.path(key) / MANIFEST).is_file()

    def present(self, keys: Iterable[str]) -> set[str]:
        """The keys whose artifacts are finished; large sets need few disk accesses."""
        shards: dict[str, set[str]] = {}
        for key in keys:
            shards.setdefault(key[:2], set()).add(key)
        existing: set[str] = set()
        for shard, wanted in shards.items():
            if len(wanted) <= FEW:
                existing |= {key for key in wanted if self.has(key)}
            else:
                existing |= wanted & self._listed(shard)
        return existing

    def artifacts(self) -> Iterator[str]:
        """Keys of all finished artifacts, from one listing of each of 256 folders."""
        for shard in (f"{number:02x}" for number in range(256)):
            yield from (name for name in self._listed(shard) if KEY.fullmatch(name))

    def _listed(self, shard: str) -> set[str]:
        folder = self.root / shard
        return set(os.listdir(folder)) if folder.is_dir() else set()

    def load(self, key: str) -> Entry:
        """A finished artifact.

        Raises:
            FileNotFoundError: the artifact does not exist.
            Damaged: the manifest cannot be read.
        """
        path = self.path(key)
        text = (path / MANIFEST).read_bytes()
        try:
            manifest = json.loads(text)
            if not damage.fits(manifest, {"files": dict}):
                raise ValueError
        except ValueError:
            message = (
                f"{path / MANIFEST} is damaged: delete {path}, and the next run makes it again"
            )
            raise Damaged(message) from None
        return Entry(path, manifest)

    def get(self, key: str, make: Make) -> Entry:
        """Load the artifact, or make it under a lock while other processes wait.

        Args:
            key: 64 hexadecimal digits.
            make: writes files into the given folder and returns entries for the manifest. If it
                raises, the folder is deleted.
        """
        while not self.has(key):
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
            with locked(self._beside(key, "held"), lambda: self.has(key), self.known) as claim:
                if claim is None or self.has(key):
                    continue
                # Only the lock holder writes, so the other temporary folders are abandoned.
                for leftover in self.path(key).parent.glob(f"{key}.*.tmp"):
                    shutil.rmtree(leftover, ignore_errors=True)
                try:
                    self._make(key, self._beside(key, f"{claim.token}.tmp"), make)
                except Exception:
                    # If another process broke the lock of this one while it was suspended, that
                    # process has deleted this temporary folder and makes the artifact itself.
                    if not claim.lost:
                        raise
        return self.load(key)

    def _make(self, key: str, temporary: Path, make: Make) -> None:
        temporary.mkdir()
        try:
            entries = make(temporary)
            files = {
                p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                for p in sorted(temporary.iterdir())
            }
            manifest = {"key": key, "files": files, **entries}
            atomic.write(temporary / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
            _shared(temporary)
            self._put(key, temporary)
            self.unfinished(key).unlink(missing_ok=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _put(self, key: str, temporary: Path) -> None:
        path = self.path(key)
        try:
            temporary.rename(path)
        except OSError as error:
            if error.errno not in (ENOTEMPTY, EEXIST):
                raise
            if self.has(key):
                return  # another copy of this job finished first, with the same result
            shutil.rmtree(path)  # an artifact that another process was deleting
            temporary.rename(path)

    def drop(self, key: str, name: str) -> None:
        """Delete one file of a finished artifact; its checksum stays, under ``dropped``.

        A concurrent reader sees the file, or a manifest that no longer lists it, or gets an error
        that the file is missing.
        """
        entry = self.load(key)
        if name in entry.manifest["files"]:
            files = dict(entry.manifest["files"])
            dropped = {**entry.manifest.get("dropped", {}), name: files.pop(name)}
            manifest = {**entry.manifest, "files": files, "dropped": dropped}
            atomic.write(entry.path / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
        (entry.path / name).unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Delete an artifact atomically."""
        temporary = self._beside(key, f"{secrets.token_hex(8)}.tmp")
        self.path(key).rename(temporary)
        shutil.rmtree(temporary)

    def refer(self, name: str, keys: Iterable[str]) -> None:
        """Record the artifacts that a sweep needs; this replaces its earlier list.

        The list lies in the store itself, because several results folders can share a store.
        """
        path, text = self.root / SWEEPS / f"{name}.txt", "\n".join(sorted(set(keys)))
        if path.is_file() and path.read_bytes() == text.encode():
            return  # also correct for a read-only store
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text)

    def references(self) -> dict[str, set[str]]:
        """Keys of the artifacts that each sweep on this store needs, by name of the sweep.

        Raises:
            OSError: a list, or the folder of lists, cannot be read.
            Damaged: a list contains something else than keys.
        """
        keys_by_sweep = {}
        for path in damage.inside(self.root / SWEEPS, ".txt"):
            keys = path.read_text(errors="replace").split()
            if not keys or not all(map(KEY.fullmatch, keys)):
                repair = "run the sweep's command, which writes it again, or delete it"
                raise Damaged(f"{path} is no list of keys: {repair}, if nothing needs the sweep")
            keys_by_sweep[path.stem] = set(keys)
        return keys_by_sweep


def _shared(folder: Path) -> None:
    """Set the files of an artifact to the mode of the umask, and flush them.

    Some libraries create files that only the owner can read, whatever the umask. The manifest has
    the mode of any new file in this folder.
    """
    mode = stat.S_IMODE((folder / MANIFEST).stat().st_mode)
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
