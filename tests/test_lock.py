"""The lock: one holder at a time, whoever dies, and no lock broken that is not to be."""

import json
import multiprocessing
import os
import random
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unlearnbench.store import lock

fork = multiprocessing.get_context("fork")


def never() -> bool:
    return False


def put(path: Path, owner: lock.Owner | None, token: str = "theirs", age: float = 0) -> Path:
    """A lock that somebody else holds, touched so many seconds ago."""
    path.mkdir(exist_ok=True)
    mark = path / token
    mark.write_text(json.dumps(asdict(owner)) if owner else "")
    touched = mark.stat().st_mtime - age
    os.utime(mark, (touched, touched))
    return mark


def elsewhere(**told: Any) -> lock.Owner:
    return replace(lock.me(), host="another machine", **told)


def evict_if_stale(path: Path, known: lock.Known = lambda job: True) -> bool:
    """Whether somebody who comes now gets the lock, and need not wait after the first look."""
    looks = iter([False])
    with lock.locked(path, lambda: next(looks, True), known) as claim:
        return claim is not None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.held"


def test_taken_and_given_back_nothing_is_left(path: Path) -> None:
    with lock.locked(path, never) as claim:
        assert claim is not None
        assert [mark.name for mark in path.iterdir()] == [claim.token]
        assert not claim.lost
    assert list(path.parent.iterdir()) == []


def _hold(path: Path, log: Path, rounds: int, seed: int) -> None:
    """Be in the lock some times; sometimes die in it."""
    draw = random.Random(seed)
    for _ in range(rounds):
        with lock.locked(path, never):
            inside = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(inside, b"in\n")
            time.sleep(draw.uniform(0, 0.002))
            if draw.random() < 0.1:
                os.write(inside, b"out\n")
                os._exit(1)
            os.write(inside, b"out\n")
            os.close(inside)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_never_two_at_a_time_where_many_come_and_some_die(path: Path, seed: int) -> None:
    """Every death is found, and its lock broken, by several who wait at once."""
    log = path.with_name("log")
    rounds = 40 if seed else 8
    crowd = [
        fork.Process(target=_hold, args=(path, log, rounds, 100 * seed + number))
        for number in range(8)
    ]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(120)
    codes = [process.exitcode for process in crowd]
    assert {*codes} == {0, 1}
    said = log.read_text().split()
    assert said == ["in", "out"] * (len(said) // 2)
    assert len(said) // 2 >= codes.count(0) * rounds


def test_a_killed_holders_lock_is_broken_at_once(path: Path) -> None:
    ready = fork.Event()

    def hold() -> None:
        with lock.locked(path, never):
            ready.set()
            time.sleep(60)

    process = fork.Process(target=hold)
    process.start()
    ready.wait()
    (token,) = (mark.name for mark in path.iterdir())
    process.kill()
    process.join()
    with lock.locked(path, never) as claim:
        assert claim is not None
        assert [mark.name for mark in path.iterdir()] == [claim.token] != [token]


def test_a_killed_holder_that_nobody_has_reaped_is_dead(path: Path) -> None:
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    owner = replace(lock.me(), pid=pid, start=lock._stat(pid)[1])
    assert not owner.dead()
    os.kill(pid, 9)
    while lock._stat(pid)[0] != "Z":
        time.sleep(0.001)
    assert owner.dead()
    os.waitpid(pid, 0)
    assert owner.dead()


def test_another_process_of_the_holders_number_is_not_the_holder(path: Path) -> None:
    mine = lock.me()
    assert mine.start is not None
    put(path, mine)
    assert not evict_if_stale(path)
    put(path, replace(mine, start=mine.start - 1))
    assert evict_if_stale(path)


def test_a_living_holder_elsewhere_is_waited_for(path: Path) -> None:
    dead = fork.Process(target=os.getpid)
    dead.start()
    dead.join()
    assert dead.pid is not None
    put(path, replace(elsewhere(), pid=dead.pid))
    assert not evict_if_stale(path)
    put(path, replace(lock.me(), pid=dead.pid))
    assert evict_if_stale(path)


@pytest.mark.parametrize("owner", [elsewhere(), None], ids=["elsewhere", "unreadable"])
def test_a_stale_heartbeat_is_broken(path: Path, owner: lock.Owner | None) -> None:
    put(path, owner, age=lock.LIMIT - 5)
    assert not evict_if_stale(path)
    put(path, owner, age=lock.LIMIT + 5)
    assert evict_if_stale(path)


def test_ages_are_those_of_the_file_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server whose clock is an hour slow: all files are, those of the lock too."""

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fstat(self, descriptor: int) -> Any:
            return SimpleNamespace(st_mtime=os.fstat(descriptor).st_mtime - 3600)

    put(path, elsewhere())
    monkeypatch.setattr(lock, "os", Slow())
    assert not evict_if_stale(path)
    put(path, elsewhere(), age=lock.LIMIT + 5)
    assert evict_if_stale(path)
    assert list(path.parent.iterdir()) == []


def test_the_holder_is_heard_of_while_it_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with lock.locked(path, never) as claim:
        assert claim is not None
        mark = path / claim.token
        os.utime(mark, (0, 0))
        for _ in range(500):
            if mark.stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert lock.clock(path.parent) - mark.stat().st_mtime < lock.LIMIT


def job(monkeypatch: pytest.MonkeyPatch, cluster: str | None) -> None:
    for name, value in (("SLURM_CLUSTER_NAME", cluster), ("SLURM_JOB_ID", "7")):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)


def test_a_job_that_slurm_no_longer_knows_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(monkeypatch, "here")
    assert (lock.me().cluster, lock.me().job) == ("here", "7")
    asked: list[str] = []
    put(path, elsewhere(cluster="here", job="12_3"))
    assert not evict_if_stale(path, lambda number: asked.append(number) or True)
    assert asked == ["12_3"]
    assert evict_if_stale(path, lambda number: number != "12_3")


@pytest.mark.parametrize("cluster", ["there", None])
def test_another_clusters_slurm_is_not_asked(
    path: Path, cluster: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(monkeypatch, cluster)
    put(path, elsewhere(cluster="here", job="12_3"))
    assert not evict_if_stale(path, lambda number: False)


def test_who_is_late_to_break_a_lock_does_not_break_the_next_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two see a dead holder; one has broken the lock and taken it before the other moves."""
    put(path, None, age=lock.LIMIT + 5)
    clock = lock.clock
    quick = lock._Waiter(path, lambda job: True)
    late = lock._Waiter(path, lambda job: True)

    def interrupted(folder: Path) -> float:
        monkeypatch.setattr(lock, "clock", clock)
        assert quick.evict_if_stale("theirs")
        assert quick.take()
        return clock(folder)

    monkeypatch.setattr(lock, "clock", interrupted)
    assert not late.evict_if_stale("theirs")
    assert not late.take()
    assert late.holder() == quick.token


def test_who_has_lost_the_lock_leaves_the_next_holders_alone(path: Path) -> None:
    with lock.locked(path, never) as claim:
        assert claim is not None
        (path / claim.token).unlink()
        put(path, elsewhere(), "next")
        assert claim.lost
    assert [mark.name for mark in path.iterdir()] == ["next"]


def test_a_lost_answer_of_the_file_server(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has renamed, the answer is lost, and asked again it knows no such folder."""
    rename = Path.rename

    def unanswered(source: Path, to: Path) -> None:
        rename(source, to)
        raise FileNotFoundError(source)

    monkeypatch.setattr(Path, "rename", unanswered)
    with lock.locked(path, never) as claim:
        assert claim is not None
        assert not claim.lost


def test_a_file_that_nfs_keeps_for_a_reader_is_no_holder(path: Path) -> None:
    path.mkdir()
    (path / ".nfs0001").touch()
    waiter = lock._Waiter(path, lambda job: True)
    assert waiter.holder() is None
    assert not waiter.take()  # as long as it is there
    (path / ".nfs0001").unlink()
    assert waiter.take()
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def naps(path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """How long somebody sleeps between two looks, who waits in vain for so many seconds."""
    put(path, elsewhere())
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    monkeypatch.setattr(lock, "time", clock)
    with lock.locked(path, lambda: sum(slept) > seconds) as claim:
        assert claim is None
    return slept


def test_who_waits_sleeps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = naps(path, monkeypatch, 600)
    assert slept[0] < 0.05
    assert max(slept) == lock.LONGEST_NAP
    assert len(slept) < 330


@pytest.mark.parametrize("seen", ["theirs", None], ids=["one who has gone", "nobody"])
def test_an_old_listing_is_not_looked_at_again_at_once(
    path: Path, seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system still shows who held the lock before, or that nobody does."""
    monkeypatch.setattr(lock._Waiter, "holder", lambda _: seen)
    put(path, elsewhere(), "next")
    looks = iter(range(6))
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr(lock, "time", clock)
    with lock.locked(path, lambda: next(looks) == 5) as claim:
        assert claim is None
    assert len(slept) == 5
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_slurm_is_asked_once_a_beat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def asked(owner: lock.Owner | None, known: lock.Known) -> bool:
        looks.append(lock.time.monotonic())
        return False

    monkeypatch.setattr(lock, "gone", asked)
    naps(path, monkeypatch, 600)
    assert 600 / (lock.BEAT + lock.LONGEST_NAP) <= len(looks) <= 600 / lock.BEAT + 1


def test_a_lock_that_cannot_be_written_is_told(path: Path) -> None:
    with pytest.raises(FileNotFoundError), lock.locked(path.parent / "no" / "x.held", never):
        pass


def test_a_failure_inside_gives_the_lock_back(path: Path) -> None:
    with suppress(KeyError), lock.locked(path, never):
        raise KeyError
    assert not path.exists()
