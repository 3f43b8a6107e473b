"""The store: once, whole, or not at all."""

import errno
import hashlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from disks import full, read_only
from safetensors.numpy import save_file
from test_lock import elsewhere, put

from unlearnbench.store import lock
from unlearnbench.store.artifacts import FEW, MANIFEST, Damaged, Store

KEY = "ab" * 32
fork = multiprocessing.get_context("fork")


def make(folder: Path) -> dict[str, Any]:
    (folder / "data").write_bytes(b"1234")
    return {"seconds": 1.5}


def test_made_once_and_loaded_after(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def counted(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        return make(folder)

    for _ in range(2):
        entry = store.get(KEY, counted)
        assert entry.read("data") == b"1234"
        assert entry.manifest["seconds"] == 1.5
    assert len(calls) == 1
    assert store.path(KEY) == tmp_path / "ab" / KEY


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def broken(folder: Path) -> dict[str, Any]:
        make(folder)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="luck"):
        store.get(KEY, broken)
    assert not store.has(KEY)
    assert list((tmp_path / "ab").iterdir()) == []
    assert store.get(KEY, make).read("data") == b"1234"


@pytest.mark.parametrize("state", ["no manifest", "temporary"])
def test_what_a_crash_left_is_no_artifact(tmp_path: Path, state: str) -> None:
    store = Store(tmp_path)
    left = store.path(KEY) if state == "no manifest" else store._beside(KEY, "theirs.tmp")
    left.mkdir(parents=True)
    (left / "data").write_bytes(b"half")
    assert not store.has(KEY)
    assert store.get(KEY, make).read("data") == b"1234"


def test_what_is_left_of_who_broke_a_lock_and_died_too_is_cleared_away(tmp_path: Path) -> None:
    store = Store(tmp_path)
    left = store._beside(KEY, "0123456789abcdef.tmp")  # its lock is broken, its files are there
    left.mkdir(parents=True)
    (left / "data").write_text("half")
    store.get(KEY, make)
    assert list((tmp_path / "ab").iterdir()) == [store.path(KEY)]


def test_tampering_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = store.get(KEY, make)
    (entry.path / "data").write_bytes(b"12345")
    with pytest.raises(Damaged, match="delete"):
        store.load(KEY).read("data")
    (entry.path / "data").unlink()
    with pytest.raises(Damaged):
        store.load(KEY).read("data")
    with pytest.raises(Damaged):
        store.load(KEY).read("other")


def _slowly(folder: Path) -> dict[str, Any]:
    with (folder.parent.parent / "made").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.3)
    return make(folder)


def _ask(root: Path) -> None:
    assert Store(root).get(KEY, _slowly).read("data") == b"1234"


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    asking = [fork.Process(target=_ask, args=(tmp_path,)) for _ in range(4)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert [process.exitcode for process in asking] == [0] * 4
    assert len((tmp_path / "made").read_text().splitlines()) == 1
    assert [one.name for one in (tmp_path / "ab").iterdir()] == [KEY]


def _making(root: Path) -> Any:
    """A process in the middle of making the artifact."""
    maker = fork.Process(target=_ask, args=(root,))
    maker.start()
    while not (root / "made").is_file():
        time.sleep(0.001)
    return maker


def test_a_dead_holder_leaves_neither_lock_nor_files(tmp_path: Path) -> None:
    maker = _making(tmp_path)
    maker.kill()
    maker.join()
    assert not Store(tmp_path).has(KEY)
    assert len(list((tmp_path / "ab").iterdir())) == 2
    assert Store(tmp_path).get(KEY, make).read("data") == b"1234"
    assert [one.name for one in (tmp_path / "ab").iterdir()] == [KEY]


def test_a_stale_heartbeat_from_elsewhere_is_no_reason_to_wait(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store._beside(KEY, "held").parent.mkdir(parents=True)
    put(store._beside(KEY, "held"), elsewhere(), age=lock.LIMIT + 5)
    store._beside(KEY, "theirs.tmp").mkdir()
    assert store.get(KEY, make).read("data") == b"1234"
    assert [one.name for one in (tmp_path / "ab").iterdir()] == [KEY]


def test_a_job_that_slurm_has_forgotten_is_no_reason_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "here")
    store = Store(tmp_path, known=lambda job: job != "12")
    store._beside(KEY, "held").parent.mkdir(parents=True)
    put(store._beside(KEY, "held"), elsewhere(cluster="here", job="12"))
    assert store.get(KEY, make).read("data") == b"1234"


def test_who_waits_sees_the_artifact_though_its_lock_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine that went down between the last rename and giving the lock back."""
    store = Store(tmp_path)
    store._beside(KEY, "held").parent.mkdir(parents=True)
    put(store._beside(KEY, "held"), elsewhere())

    def arrives(seconds: float) -> None:
        store.path(KEY).mkdir()
        store._make(KEY, store._beside(KEY, "theirs.tmp"), make)

    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=arrives, monotonic=time.monotonic))
    assert store.get(KEY, _never).read("data") == b"1234"


def _never(folder: Path) -> dict[str, Any]:
    raise AssertionError("it is there")


@pytest.mark.parametrize("wakes", ["after", "meanwhile"])
def test_a_holder_that_only_stood_still_spoils_nothing(tmp_path: Path, wakes: str) -> None:
    """Its lock is broken, for it was not heard of; then it goes on."""
    maker = _making(tmp_path)
    os.kill(maker.pid, signal.SIGSTOP)
    (mark,) = Store(tmp_path)._beside(KEY, "held").iterdir()
    os.utime(mark, (0, 0))

    def slow(folder: Path) -> dict[str, Any]:
        if wakes == "meanwhile":
            os.kill(maker.pid, signal.SIGCONT)
            time.sleep(0.5)  # it finds its files gone, and waits for ours
        return make(folder)

    assert Store(tmp_path).get(KEY, slow).read("data") == b"1234"
    os.kill(maker.pid, signal.SIGCONT)
    maker.join()
    assert maker.exitcode == 0
    assert Store(tmp_path).load(KEY).read("data") == b"1234"
    assert [one.name for one in (tmp_path / "ab").iterdir()] == [KEY]


def test_of_two_copies_of_one_job_the_first_is_kept(tmp_path: Path) -> None:
    """Both are at work, on two machines of which one is cut off."""
    store = Store(tmp_path)

    def twice(folder: Path) -> dict[str, Any]:
        store._make(KEY, store._beside(KEY, "theirs.tmp"), lambda f: make(f) | {"who": "first"})
        return make(folder) | {"who": "second"}

    assert store.get(KEY, twice).manifest["who"] == "first"
    assert [one.name for one in (tmp_path / "ab").iterdir()] == [KEY]


def test_a_finished_artifact_leaves_nothing_unfinished(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def half(folder: Path) -> dict[str, Any]:
        store.unfinished(KEY).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get(KEY, half)
    assert store.unfinished(KEY).read_bytes() == b"half"
    store.get(KEY, make)
    assert not store.unfinished(KEY).exists()


# ---------------------------------------------------------------------------------------------
# Killed at any moment.

DEEP = 8
"""Artifacts of a chain, each of which needs the one before it, as predictions need a model."""


def _key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _chain(store: Store, number: int) -> bytes:
    def make(folder: Path) -> dict[str, Any]:
        before = _chain(store, number - 1) if number % DEEP else b""
        for part in ("weights", "notes"):
            (folder / part).write_bytes(hashlib.sha256(before + part.encode()).digest() * 400)
            time.sleep(0.001)
        return {"number": number}

    return store.get(_key(number), make).read("weights")


def _walk(root: Path, chains: list[int], seed: int) -> None:
    random.Random(seed).shuffle(chains)
    for chain in chains:
        _chain(Store(root), DEEP * chain + DEEP - 1)


def _contents(root: Path) -> dict[Path, bytes]:
    found = (path for path in root.glob("*/*/*") if "." not in path.parent.name)
    return {path.relative_to(root): path.read_bytes() for path in found}


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_workers_killed_at_random_points_leave_the_undisturbed_store(
    tmp_path: Path, kills: int
) -> None:
    draw, killed, rounds, root = random.Random(kills), 0, 0, tmp_path / "store"
    begun, alone = (
        time.monotonic(),
        fork.Process(target=_walk, args=(tmp_path / "alone", [0, 1], 0)),
    )
    alone.start()
    alone.join()
    span = time.monotonic() - begun
    while killed < kills:
        chains = [2 * rounds, 2 * rounds + 1]
        working = [fork.Process(target=_walk, args=(root, chains, seed)) for seed in range(3)]
        for process in working:
            process.start()
        time.sleep(draw.uniform(0, span))
        victim = draw.choice(working)
        victim.kill()
        victim.join()
        if victim.exitcode == -signal.SIGKILL:
            killed += 1
        else:  # it was done: the machine has become faster
            span *= 0.8
        working = [process for process in working if process is not victim]
        working.append(fork.Process(target=_walk, args=(root, chains, 3)))
        working[-1].start()
        for process in working:
            process.join(60)
            assert process.exitcode == 0
        rounds += 1
        assert rounds < 5 * kills + 20
    _walk(tmp_path / "undisturbed", list(range(2 * rounds)), 0)
    assert _contents(root) == _contents(tmp_path / "undisturbed")
    # A lock is left by who was killed between putting its artifact in place and giving it back: all
    # others find the artifact and do not ask for the lock. What is left is for gc.
    left = [one.name for one in root.glob("*/*") if "." in one.name]
    assert all(name.endswith((".claim", ".clock", ".held")) for name in left), left
    assert all(Store(root).has(name.split(".")[0]) for name in left if name.endswith(".held"))


# ---------------------------------------------------------------------------------------------
# Disks that are full, and that may not be written.


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    with full(tmp_path / "disk", "256k") as root:
        store = Store(root)
        store.get(KEY, make)

        def large(folder: Path) -> dict[str, Any]:
            (folder / "data").write_bytes(b"1" * 2**20)
            return {}

        other = "cd" * 32
        with pytest.raises(OSError, match="No space left on device") as told:
            store.get(other, large)
        assert told.value.errno == errno.ENOSPC
        assert list((root / "cd").iterdir()) == []
        assert store.load(KEY).read("data") == b"1234"
        assert store.get(other, make).read("data") == b"1234"


def test_a_read_only_store_is_read_and_not_waited_for(tmp_path: Path) -> None:
    with read_only(tmp_path / "disk", lambda root: Store(root).get(KEY, make)) as root:
        store = Store(root)
        assert store.get(KEY, _never).read("data") == b"1234"
        with pytest.raises(OSError, match="Read-only file system"):
            store.get("cd" * 32, make)


def test_a_key_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        Store(tmp_path).path("../../etc/passwd")


# ---------------------------------------------------------------------------------------------
# Many.


def test_many_keys_are_looked_for_by_listing_each_shard_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = Store(tmp_path), [_key(number) for number in range(2000)]
    for key in keys[::2]:
        store.path(key).mkdir(parents=True)
        (store.path(key) / MANIFEST).touch()
    looks: list[str] = []
    has, listed = store.has, store._listed
    monkeypatch.setattr(store, "has", lambda key: looks.append(key[:2]) or has(key))
    monkeypatch.setattr(store, "_listed", lambda shard: looks.append(shard) or listed(shard))
    assert store.present(keys) == {*keys[::2]}
    times = Counter(looks)
    assert len(times) == 256
    assert max(times.values()) <= FEW
    assert sum(times.values()) < 400


def test_few_keys_are_looked_for_one_by_one(tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path)
    store.get(KEY, make)
    monkeypatch.setattr(store, "_listed", lambda shard: pytest.fail("all listed"))
    half_deleted = "ab" + 31 * "cd"
    store.path(half_deleted).mkdir()
    assert store.present([KEY, half_deleted, "cd" * 32]) == {KEY}


# ---------------------------------------------------------------------------------------------
# Of two users.

GROUP = 54321


def as_user(uid: int, function: Callable[[], object]) -> int:
    """Call a function as a user of the group, with the umask that is documented; its exit code."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgroups([GROUP])
            os.setgid(GROUP)
            os.setuid(uid)
            os.umask(0o002)
            function()
            code = 0
        except BaseException:  # noqa: BLE001 - this is a process of its own
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def make_privately(folder: Path) -> dict[str, Any]:
    """What libraries do that write to a temporary file of their own and rename it."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.write(descriptor, b"1234")
    os.close(descriptor)
    Path(name).rename(folder / "data")
    save_file({"w": np.zeros(3)}, folder / "weights.safetensors")
    return {}


@pytest.mark.tried(
    "two users of a group share a store, and a library makes files of mode 600",
    "every file of an artifact has the mode of the umask, and the other user reads it",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users")
def test_two_users_share_a_store() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # whose parents both may enter
        Path(name).chmod(0o755)
        root = Path(name) / "store"
        root.mkdir()
        os.chown(root, 0, GROUP)
        root.chmod(0o2775)
        store = Store(root)
        first, second = "ab" * 32, "ab" + "cd" * 31

        def reads() -> None:
            assert store.load(first).read("data") == b"1234"
            assert store.load(first).read("weights.safetensors")
            store.get(second, make_privately)
            store.drop(first, "weights.safetensors")
            store.remove(first)

        assert as_user(11111, lambda: store.get(first, make_privately)) == 0
        modes = {path.stat().st_mode & 0o777 for path in store.path(first).iterdir()}
        assert modes == {0o664}
        assert as_user(22222, reads) == 0
        assert as_user(11111, lambda: store.load(second).read("data")) == 0


@pytest.mark.tried("a manifest is damaged", "the artifact is named, and how to make it again")
@pytest.mark.parametrize("content", ["", "[]", "{}", "{"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    store.get(KEY, make)
    (store.path(KEY) / MANIFEST).write_text(content)
    with pytest.raises(Damaged, match=r"manifest.json is damaged: delete .*makes it again"):
        store.load(KEY)
