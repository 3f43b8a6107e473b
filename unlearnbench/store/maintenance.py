"""Damaged artifacts of a store, disk usage by kind, and what no sweep needs."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.store import lock
from unlearnbench.store.artifacts import KEY, Damaged, Store

HOUR = 3600.0


def damaged(store: Store) -> Iterator[str]:
    """One line for each artifact or file that does not match what was written."""
    for key in store.artifacts():
        path = store.path(key)
        if (manifest := _manifest(store, key)) is None:
            yield f"{path}: no manifest that can be read"
            continue
        if (named := manifest.get("key")) != key:
            yield f"{path}: holds the artifact {named}"
        for name, checksum in manifest["files"].items():
            if flaw := _flaw(path / name, checksum):
                yield f"{path / name}: {flaw}"


def _manifest(store: Store, key: str) -> Mapping[str, Any] | None:
    """The manifest of an artifact; None if it cannot be read."""
    try:
        return store.load(key).manifest
    except (OSError, Damaged):
        return None


def _flaw(path: Path, checksum: str) -> str | None:
    """What is wrong with a file of an artifact; None for an intact file."""
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == checksum
        return None if same else "is not what was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def taken(store: Store) -> dict[str, tuple[int, int]]:
    """Number and bytes of artifacts of each kind; unfinished ones are a kind of their own."""
    number, size = Counter[str](), Counter[str]()
    for key in store.artifacts():
        path, kind = store.path(key), "damaged"
        if (manifest := _manifest(store, key)) is not None:
            kind = str(manifest.get("role") or manifest.get("kind") or "other")
        number[kind] += 1
        size[kind] += size_of(path)
    for path in leftovers(store):
        number["not finished"] += 1
        size["not finished"] += size_of(path)
    return {kind: (number[kind], size[kind]) for kind in sorted(number)}


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; files deleted meanwhile count as 0."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if not path.is_dir():
            return path.lstat().st_size
        return sum(size_of(Path(entry)) for entry in os.scandir(path))
    return 0


@dataclass(frozen=True)
class Waste:
    """Artifacts, weights and leftovers that can be deleted.

    Attributes:
        artifacts: keys of artifacts that no sweep needs.
        weights: keys of unlearned models whose weights need not be kept.
        left: files and folders of processes that have ended.
    """

    artifacts: list[str]
    weights: list[str]
    left: list[Path]


def waste(store: Store, *, days: float, keep: str) -> Waste:
    """Collect what can be deleted; artifacts in progress and recent files are excluded.

    Args:
        store: the store.
        days: minimum age of artifacts, in days.
        keep: ``all``, or ``predictions`` to include the weights of unlearned models.
    """
    wanted = set().union(*store.references().values())
    now = lock.clock(store.root)
    existing = set(store.artifacts())
    artifacts = [
        key
        for key in sorted(existing - wanted)
        if now - _touched(store.path(key)) > 24 * HOUR * days
    ]
    weights = sorted(_droppable(store, existing - set(artifacts))) if keep == "predictions" else []
    abandoned = []
    for path in leftovers(store):
        key, _, suffix = path.name.partition(".")
        if suffix == "unfinished":  # a later process resumes from it, if a sweep needs it
            old = now - _touched(path) > 24 * HOUR * days
            if key in existing or (old and key not in wanted):
                abandoned.append(path)
        elif now - _touched(path) > HOUR and not _in_the_making(store, key, suffix, now):
            abandoned.append(path)
    return Waste(artifacts, weights, abandoned)


def leftovers(store: Store) -> Iterator[Path]:
    """Everything in the shards except artifacts: locks and unfinished artifacts."""
    for shard in sorted(filter(Path.is_dir, store.root.glob("[0-9a-f][0-9a-f]"))):
        yield from (shard / name for name in sorted(os.listdir(shard)) if not KEY.fullmatch(name))


def _touched(path: Path) -> float:
    """The latest modification time of a file or folder; infinity if it no longer exists."""
    with suppress(FileNotFoundError, NotADirectoryError):
        inside = [file.lstat().st_mtime for file in path.iterdir()] if path.is_dir() else []
        return max([path.lstat().st_mtime, *inside])
    return float("inf")


def _in_the_making(store: Store, key: str, suffix: str, now: float) -> bool:
    """Whether the path of this suffix belongs to an active holder of the artifact's lock."""
    if not KEY.fullmatch(key):
        return False
    with suppress(FileNotFoundError, NotADirectoryError):
        marks = store.path(key).with_suffix(".held").iterdir()
        return any(m.name in suffix and now - _touched(m) < lock.LIMIT for m in marks)
    return False


def _droppable(store: Store, keys: set[str]) -> Iterator[str]:
    """Keys of unlearned models with weights whose predictions are stored."""
    manifests = {key: manifest for key in keys if (manifest := _manifest(store, key)) is not None}
    predicted = [m.get("model") for m in manifests.values() if m.get("kind") == "predictions"]
    for key in manifests.keys() & set(map(str, predicted)):
        if manifests[key].get("role") == "unlearned" and manifests[key]["files"]:
            yield key


def clear(path: Path) -> None:
    """Delete a leftover of a process that has ended; a lock taken meanwhile stays."""
    with suppress(OSError):
        if path.suffix == ".held" and path.is_dir():
            for mark in path.iterdir():
                if lock.clock(path.parent) - _touched(mark) > HOUR:
                    mark.unlink()
            path.rmdir()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def weights(store: Store, key: str) -> list[str]:
    """Names of the files of an artifact."""
    return list(store.load(key).manifest["files"])
