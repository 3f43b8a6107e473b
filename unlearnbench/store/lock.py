"""A lock that processes on several machines share through a folder, on a network file system too.

The lock ``x.held`` is held while a folder of that name holds a file. The file tells who the holder
is, is touched while he works, and has a token for its name that nobody else has. So two steps that
POSIX and NFS make atomic are enough, and neither can hit the wrong lock:

    take     rename(a folder with my token, x.held)   fails if x.held holds a token
    break    unlink(x.held/his token)                 fails if he is no longer the holder

No clocks of two machines are compared: ages are taken on the file system's own clock.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from errno import EEXIST, ENOENT, ENOTEMPTY, ESTALE
from functools import cache
from pathlib import Path
from typing import Any

from unlearnbench.core import damage

BEAT = 15.0
"""Seconds from one touch of a held lock to the next, and from one look at its holder to the next
by who waits."""

LIMIT = 120.0
"""Seconds without a touch after which a lock is broken. Several beats, for a network file system
may stall, and may show attributes that are a minute old."""

LONGEST_NAP = 2.0
"""Seconds between two looks of who waits, in the end; at first it looks fifty times a second."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        host: the machine, its boot and its namespace of process numbers; nobody else's.
        pid: the process.
        start: when it started, in the kernel's own count; None where that is not told.
        cluster: its SLURM cluster, if it runs in a job.
        job: the number of that job.
    """

    host: str
    pid: int
    start: int | None
    cluster: str | None = None
    job: str | None = None

    def dead(self) -> bool:
        """Whether it is known to be: it was a process of this machine, and is none now."""
        if self.host != _host():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # of another user; its state can be read
        state, start = _stat(self.pid)
        return state in ("Z", "X") or (start is not None and start != self.start)


OWNER = {"host": str, "pid": int, "start": int | None, "cluster": str | None, "job": str | None}
"""The form of an owner in a file."""


def owner(told: Mapping[str, Any]) -> Owner:
    """The owner that a file names, in the form of ``OWNER``."""
    return Owner(**{name: told[name] for name in OWNER})


def me() -> Owner:
    """This process."""
    pid = os.getpid()
    environment = os.environ.get
    cluster, job = environment("SLURM_CLUSTER_NAME"), environment("SLURM_JOB_ID")
    return Owner(_host(), pid, _stat(pid)[1], cluster, job)


@cache
def _host() -> str:
    marks = [socket.gethostname()]
    with suppress(OSError):  # Linux only
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        marks.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(marks)


def _stat(pid: int) -> tuple[str | None, int | None]:
    """State and start of a process of this machine, as Linux tells them."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None, None
    fields = told.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[19])


@dataclass(frozen=True)
class LockHandle:
    """A lock that is held.

    Attributes:
        path: of the lock.
        token: of the holder.
    """

    path: Path
    token: str

    @property
    def lost(self) -> bool:
        """Whether somebody has broken it meanwhile."""
        return not (self.path / self.token).exists()


Known = Callable[[str], bool]
"""Whether SLURM knows a job, by its number, to be pending or running. It is asked every ``BEAT``
seconds by everybody who waits for a job's lock; where it cannot tell it must say yes."""


@dataclass
class _Waiter:
    """Somebody who wants a lock, and what it has seen of it."""

    path: Path
    known: Known
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    looked: dict[str, float] = field(default_factory=dict)

    def take(self) -> bool:
        """Take the lock, if it is free."""
        mine = self.path.with_name(f"{self.path.name}.{self.token}.claim")
        mine.mkdir()
        try:
            (mine / self.token).write_text(json.dumps(asdict(me())))
            mine.rename(self.path)
        except OSError as error:
            with suppress(OSError):
                (mine / self.token).unlink()
                mine.rmdir()
            # The answer to a rename may be lost on the way from the server, and it asked again.
            if not (self.path / self.token).exists():
                if error.errno not in (ENOTEMPTY, EEXIST):
                    raise
                return False
        return True

    def holder(self) -> str | None:
        """The token of who holds the lock."""
        with suppress(FileNotFoundError):
            # NFS keeps a deleted file that somebody has open as .nfs…
            return next((name for name in os.listdir(self.path) if name[0] != "."), None)
        return None

    def evict_if_stale(self, holder: str) -> bool:
        """Break the lock of a holder that is gone, and say whether it was broken now.

        Whether a process of this machine is gone is seen each time; whether another one is, which
        takes a file and a question to SLURM, once a beat.
        """
        mark = self.path / holder
        try:
            with mark.open() as file:  # to open it is what makes NFS ask for its age anew
                touched, maker = os.fstat(file.fileno()).st_mtime, _owner(file.read())
        except OSError as error:
            if error.errno not in (ENOENT, ESTALE):
                raise
            return False  # it has given the lock back
        if maker is None or not maker.dead():
            now = time.monotonic()
            if now - self.looked.get(holder, -BEAT) < BEAT:
                return False
            self.looked[holder] = now
            if not gone(maker, self.known) and clock(self.path.parent) - touched < LIMIT:
                return False
        try:
            mark.unlink()
        except FileNotFoundError:
            return False  # somebody else who waits was first
        return True


def _owner(told: str) -> Owner | None:
    """Who a mark is of; None where it does not say, which is then known by its age only."""
    with suppress(ValueError):
        if damage.fits(read := json.loads(told), OWNER):
            return owner(read)
    return None


def gone(owner: Owner | None, known: Known) -> bool:
    """Whether a holder was a job of this cluster that SLURM knows no more."""
    if owner is None or owner.job is None or owner.cluster is None:
        return False
    return owner.cluster == os.environ.get("SLURM_CLUSTER_NAME") and not known(owner.job)


def clock(folder: Path) -> float:
    """The time, as the file system that holds the folder has it."""
    path = folder / f".{secrets.token_hex(8)}.clock"
    try:
        with path.open("x") as file:
            return os.fstat(file.fileno()).st_mtime
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def locked(
    path: Path, unless: Callable[[], bool], known: Known = lambda job: True
) -> Iterator[LockHandle | None]:
    """Hold a lock inside the block; wait until it is free, or its holder is seen to be gone.

    Args:
        path: of the lock; its folder exists.
        unless: asked while waiting; once it says yes, the block gets None instead of the lock.
        known: whether SLURM knows a job.

    Raises:
        OSError: the folder cannot be written, or the lock of somebody who is gone not be broken.
    """
    waiter, nap = _Waiter(path, known), 0.02
    while (holder := waiter.holder()) is not None or not waiter.take():
        if unless():
            yield None
            return
        # What a network file system shows may be old: it is not looked at again at once.
        if holder is None or not waiter.evict_if_stale(holder):
            time.sleep(nap)
            nap = min(1.3 * nap, LONGEST_NAP)
    mine, over = path / waiter.token, threading.Event()
    threading.Thread(target=_beat, args=(mine, over), daemon=True).start()
    try:
        yield LockHandle(path, waiter.token)
    finally:
        over.set()
        with suppress(OSError):  # broken, and held by another
            mine.unlink()
            path.rmdir()


def _beat(mine: Path, over: threading.Event) -> None:
    """Touch the lock now and then, by the file system's own clock."""
    while not over.wait(BEAT):
        try:
            os.utime(mine)
        except FileNotFoundError:
            return  # it was broken, or given back
        except OSError:
            continue  # a stall; the next one may get through
