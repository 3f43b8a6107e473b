"""Content-addressed artifacts: made once, complete or not there. Knows no machine learning.

An artifact is the folder ``<root>/ab/abcdef…/`` with its files and a ``manifest.json`` that holds
their SHA-256. It is made in a sibling folder under a lock and renamed into place, the manifest
written last, so that a crash leaves nothing a later run takes for a result. The sibling is its
maker's alone: one whose lock was broken while it was still at work spoils nothing.
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
"""Folder of the lists of what sweeps need; no shard has such a name."""

KEY = re.compile(r"[0-9a-f]{64}")

Make = Callable[[Path], Mapping[str, Any]]

FEW = 4
"""Keys of one shard up to which each is looked for; of more, the shard is listed."""


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
        if name in self.manifest.get("dropped", {}):
            raise Damaged(f"{path} was not kept")
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != self.manifest["files"].get(name):
            raise Damaged(f"{path} is not what its manifest says: delete {self.path} to remake it")
        return data


class Store:
    """Artifacts under one root folder, which several processes and machines may share."""

    def __init__(self, root: Path, known: Known = lambda job: True) -> None:
        """Open the store.

        Args:
            root: its folder, which need not exist yet.
            known: whether SLURM knows a job; asked about one that holds what is waited for.
        """
        self.root = Path(root)
        self.known = known

    def path(self, key: str) -> Path:
        """Where the artifact of a key lies, or would lie."""
        assert KEY.fullmatch(key), key
        return self.root / key[:2] / key

    def unfinished(self, key: str) -> Path:
        """A file beside the artifact, for what its maker wants to find again if it is killed.

        It is deleted when the artifact is done.
        """
        return self._beside(key, "unfinished")

    def _beside(self, key: str, suffix: str) -> Path:
        return self.path(key).with_suffix(f".{suffix}")

    def has(self, key: str) -> bool:
        """Whether the artifact is finished."""
        return (self.path(key) / MANIFEST).is_file()

    def present(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose artifacts are finished: for many, by few looks at the disk."""
        shards: dict[str, set[str]] = {}
        for key in keys:
            shards.setdefault(key[:2], set()).add(key)
        there: set[str] = set()
        for shard, wanted in shards.items():
            if len(wanted) <= FEW:
                there |= {key for key in wanted if self.has(key)}
            else:
                there |= wanted & self._listed(shard)
        return there

    def artifacts(self) -> Iterator[str]:
        """Keys of all finished artifacts, by one look at each of 256 folders."""
        for shard in (f"{number:02x}" for number in range(256)):
            yield from (name for name in self._listed(shard) if KEY.fullmatch(name))

    def _listed(self, shard: str) -> set[str]:
        folder = self.root / shard
        return set(os.listdir(folder)) if folder.is_dir() else set()

    def load(self, key: str) -> Entry:
        """A finished artifact.

        Raises:
            FileNotFoundError: it is not there.
            Damaged: its manifest cannot be read.
        """
        path = self.path(key)
        text = (path / MANIFEST).read_bytes()
        try:
            manifest = json.loads(text)
            if not damage.fits(manifest, {"files": dict}):
                raise ValueError
        except ValueError:
            told = f"{path / MANIFEST} is damaged: delete {path}, and the next run makes it again"
            raise Damaged(told) from None
        return Entry(path, manifest)

    def get(self, key: str, make: Make) -> Entry:
        """Load the artifact, or make it while everybody else waits.

        Args:
            key: 64 hexadecimal digits.
            make: writes files into the folder it is given, returns what the manifest should say.
                If it raises, nothing is left behind.
        """
        while not self.has(key):
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
            with locked(self._beside(key, "held"), lambda: self.has(key), self.known) as claim:
                if claim is None or self.has(key):
                    continue
                # Of who is gone: all others, for who holds the lock is the only one at work.
                for left in self.path(key).parent.glob(f"{key}.*.tmp"):
                    shutil.rmtree(left, ignore_errors=True)
                try:
                    self._make(key, self._beside(key, f"{claim.token}.tmp"), make)
                except Exception:
                    # Who has broken the lock of a process that only stood still has deleted what
                    # it had made so far, and makes it again.
                    if not claim.lost:
                        raise
        return self.load(key)

    def _make(self, key: str, temporary: Path, make: Make) -> None:
        temporary.mkdir()
        try:
            told = make(temporary)
            files = {
                p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                for p in sorted(temporary.iterdir())
            }
            manifest = {"key": key, "files": files, **told}
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
                return  # another copy of this job was first, and it made the same
            shutil.rmtree(path)  # half of an artifact that somebody was deleting
            temporary.rename(path)

    def drop(self, key: str, name: str) -> None:
        """Delete one file of a finished artifact; its checksum stays, under ``dropped``.

        A reader at this moment finds the file, or a manifest that no longer lists it, or else it is
        told that the file is missing.
        """
        entry = self.load(key)
        if name in entry.manifest["files"]:
            files = dict(entry.manifest["files"])
            dropped = {**entry.manifest.get("dropped", {}), name: files.pop(name)}
            manifest = {**entry.manifest, "files": files, "dropped": dropped}
            atomic.write(entry.path / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
        (entry.path / name).unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Delete an artifact, all of it or nothing."""
        aside = self._beside(key, f"{secrets.token_hex(8)}.tmp")
        self.path(key).rename(aside)
        shutil.rmtree(aside)

    def refer(self, name: str, keys: Iterable[str]) -> None:
        """Note that a sweep needs these artifacts, in place of what it needed before.

        In the store itself, for the sweeps of all who share it count.
        """
        path, text = self.root / SWEEPS / f"{name}.txt", "\n".join(sorted(set(keys)))
        if path.is_file() and path.read_bytes() == text.encode():
            return  # also where the store may only be read
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text)

    def references(self) -> dict[str, set[str]]:
        """Keys of what the sweeps of all who share the store need, by their name.

        Raises:
            OSError: a list, or the folder of them, cannot be read.
            Damaged: a list is not as it was written.
        """
        found = {}
        for path in damage.inside(self.root / SWEEPS, ".txt"):
            keys = path.read_text(errors="replace").split()
            if not keys or not all(map(KEY.fullmatch, keys)):
                repair = "run the sweep's command, which writes it again, or delete it"
                raise Damaged(f"{path} is no list of keys: {repair}, if nothing needs the sweep")
            found[path.stem] = set(keys)
        return found


def _shared(folder: Path) -> None:
    """Give the files of an artifact the mode that the umask asks for, and flush them.

    Some libraries make files that their owner alone may read, whatever the umask; the manifest has
    the mode that any new file gets in this folder.
    """
    mode = stat.S_IMODE((folder / MANIFEST).stat().st_mode)
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
