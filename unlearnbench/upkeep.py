"""``unlearnbench store verify | gc | du``: is it whole, what is not needed, what does it take."""

import hashlib
import os
import shutil
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from unlearnbench import config, lock
from unlearnbench.cell import KEEP
from unlearnbench.store import KEY, Damaged, Store
from unlearnbench.words import ConfigError

console = Console(highlight=False, soft_wrap=True)

HOUR = 3600.0

DAYS = 7.0
"""Age from which on an artifact that no sweep needs is taken for forgotten, and not for one that
is just being tried out."""


def command(words: Sequence[str]) -> bool:
    """``unlearnbench store``: what the words ask for, on the store that they or the config name.

    Returns:
        Whether nothing is damaged.

    Raises:
        ConfigError: an override is not valid.
        FileNotFoundError: there is no store.
    """
    parser = ArgumentParser(prog="unlearnbench store", description=command.__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("verify", help="read all files and compare them with their checksums")
    commands.add_parser("du", help="bytes by kind")
    gc = commands.add_parser("gc", help="list what nobody needs, and with --delete delete it")
    gc.add_argument("--delete", action="store_true", help="delete it; without this nothing is")
    gc.add_argument("--days", type=float, default=DAYS, help="least age of artifacts that go")
    given, overrides = parser.parse_known_args(list(words))
    for word in overrides:
        if word.startswith("-"):
            parser.error(f"unrecognized arguments: {word}")
    settings = config.settings(overrides)
    store = Store(Path(settings["paths"]["store"]))
    if not store.root.is_dir():
        raise FileNotFoundError(f"no store in {store.root}: name another with paths.store=…")
    if settings["store"]["keep"] not in KEEP:
        raise ConfigError(f"store.keep={settings['store']['keep']}: all or predictions")
    told = {"verify": _verify, "du": _du, "gc": _gc}[given.what]
    return told(store, given, settings["store"]["keep"])


# ---------------------------------------------------------------------------------------------
# verify


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


def _verify(store: Store, given: Namespace, keep: str) -> bool:
    wrong = 0
    for line in damaged(store):
        wrong += 1
        console.print(line, markup=False)
    console.print(f"{sum(1 for _ in store.artifacts())} artifacts, {wrong} files damaged")
    if wrong:
        console.print("delete the folders named above: the next run makes again what it needs")
    return not wrong


# ---------------------------------------------------------------------------------------------
# du


def taken(store: Store) -> dict[str, tuple[int, int]]:
    """How many there are of each kind, and their bytes; what is not finished is a kind too."""
    number, size = Counter[str](), Counter[str]()
    for key in store.artifacts():
        path, kind = store.path(key), "damaged"
        if (manifest := _manifest(store, key)) is not None:
            kind = str(manifest.get("role") or manifest.get("kind") or "other")
        number[kind] += 1
        size[kind] += _size(path)
    for path in leftovers(store):
        number["not finished"] += 1
        size["not finished"] += _size(path)
    return {kind: (number[kind], size[kind]) for kind in sorted(number)}


def _size(path: Path) -> int:
    """Bytes in a file, or in the files of a folder; what goes meanwhile counts nothing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if not path.is_dir():
            return path.lstat().st_size
        return sum(_size(Path(entry)) for entry in os.scandir(path))
    return 0


def _du(store: Store, given: Namespace, keep: str) -> bool:
    kinds = taken(store)
    for kind, (number, size) in kinds.items():
        console.print(f"{kind:<14}{number:>10,}{_human(size):>12}")
    total = sum(size for _, size in kinds.values())
    console.print(f"{'all':<14}{sum(n for n, _ in kinds.values()):>10,}{_human(total):>12}")
    return True


def _human(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


# ---------------------------------------------------------------------------------------------
# gc


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


def _gc(store: Store, given: Namespace, keep: str) -> bool:
    found = waste(store, days=given.days, keep=keep)
    sweeps = store.references()
    console.print(f"needed by {len(sweeps)} sweeps: {', '.join(sweeps) or 'none'}", markup=False)
    files = [store.path(key) / name for key in found.weights for name in _weights(store, key)]
    for what, paths in {
        f"artifacts that none of them needs, older than {given.days:g} days": [
            store.path(key) for key in found.artifacts
        ],
        "weights of unlearned models": files,
        "locks and files of processes that are gone": found.left,
    }.items():
        console.print(f"{len(paths):>10,} {what}, {_human(sum(map(_size, paths)))}")
    if not given.delete:
        console.print("nothing is deleted without --delete")
        return True
    for key in found.artifacts:
        with suppress(FileNotFoundError):
            store.remove(key)
    for key in found.weights:
        for name in _weights(store, key):
            store.drop(key, name)
    for path in found.left:
        _clear(path)
    console.print("deleted")
    return True


def _clear(path: Path) -> None:
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


def _weights(store: Store, key: str) -> list[str]:
    return list(store.load(key).manifest["files"])
