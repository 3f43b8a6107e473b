"""What is damaged in a store, what takes space, and what is not needed."""

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
    """What is wrong with artifacts, one line each; nothing if all are as they were written."""
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
    """What an artifact's manifest says; None where it cannot be read."""
    try:
        return store.load(key).manifest
    except (OSError, Damaged):
        return None


def _flaw(path: Path, checksum: str) -> str | None:
    """What is wrong with a file of an artifact."""
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == checksum
        return None if same else "is not what was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def taken(store: Store) -> dict[str, tuple[int, int]]:
    """How many there are of each kind, and their bytes; what is not finished is a kind too."""
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
    """Bytes in a file, or in the files of a folder; what goes meanwhile counts nothing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if not path.is_dir():
            return path.lstat().st_size
        return sum(size_of(Path(entry)) for entry in os.scandir(path))
    return 0


@dataclass(frozen=True)
class Waste:
    """What nobody needs.

    Attributes:
        artifacts: keys of those that no sweep needs.
        weights: keys of unlearned models whose weights are not to be kept.
        left: files and folders of makers that are gone.
    """

    artifacts: list[str]
    weights: list[str]
    left: list[Path]


def waste(store: Store, *, days: float, keep: str) -> Waste:
    """What nobody needs now. What is in the making, or was not touched for too short, is needed.

    Args:
        store: whose.
        days: least age of artifacts.
        keep: ``all``, or ``predictions`` for weights of unlearned models not to be kept.
    """
    wanted = set().union(*store.references().values())
    now = lock.clock(store.root)
    there = set(store.artifacts())
    artifacts = [
        key for key in sorted(there - wanted) if now - _touched(store.path(key)) > 24 * HOUR * days
    ]
    weights = sorted(_droppable(store, there - set(artifacts))) if keep == "predictions" else []
    left = []
    for path in leftovers(store):
        key, _, what = path.name.partition(".")
        if what == "unfinished":  # somebody will go on from it, if a sweep wants it
            old = now - _touched(path) > 24 * HOUR * days
            if key in there or (old and key not in wanted):
                left.append(path)
        elif now - _touched(path) > HOUR and not _in_the_making(store, key, what, now):
            left.append(path)
    return Waste(artifacts, weights, left)


def leftovers(store: Store) -> Iterator[Path]:
    """What is in the shards beside artifacts: locks, and what is or was in the making."""
    for shard in sorted(filter(Path.is_dir, store.root.glob("[0-9a-f][0-9a-f]"))):
        yield from (shard / name for name in sorted(os.listdir(shard)) if not KEY.fullmatch(name))


def _touched(path: Path) -> float:
    """When somebody was last at work on it; for what is gone, now."""
    with suppress(FileNotFoundError, NotADirectoryError):
        inside = [each.lstat().st_mtime for each in path.iterdir()] if path.is_dir() else []
        return max([path.lstat().st_mtime, *inside])
    return float("inf")


def _in_the_making(store: Store, key: str, what: str, now: float) -> bool:
    """Whether it is of somebody who holds the artifact's lock, and is heard of."""
    if not KEY.fullmatch(key):
        return False
    with suppress(FileNotFoundError, NotADirectoryError):
        marks = store.path(key).with_suffix(".held").iterdir()
        return any(m.name in what and now - _touched(m) < lock.LIMIT for m in marks)
    return False


def _droppable(store: Store, keys: set[str]) -> Iterator[str]:
    """Unlearned models with weights, whose predictions are stored."""
    manifests = {key: told for key in keys if (told := _manifest(store, key)) is not None}
    predicted = [t.get("model") for t in manifests.values() if t.get("kind") == "predictions"]
    for key in manifests.keys() & set(map(str, predicted)):
        if manifests[key].get("role") == "unlearned" and manifests[key]["files"]:
            yield key


def clear(path: Path) -> None:
    """Delete what a process that is gone has left; a lock that has been taken since stays."""
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
    """The files of an artifact."""
    return list(store.load(key).manifest["files"])
