"""A lock that processes on several machines share through a folder, also on a network file system.

The lock ``x.held`` is held while a folder of that name contains a file. The file describes the
owner, is touched while the owner works, and is named by a unique token. Two operations that are
atomic on POSIX and NFS are enough, and neither can affect the wrong lock:

    take     rename(a folder with the own token, x.held)   fails if x.held contains a token
    break    unlink(x.held/token of the holder)            fails if the holder has changed

Clocks of different machines are never compared: ages are measured on the file system's clock.
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
"""Seconds between two touches of a held lock, and between two checks of its holder by a waiting
process."""

LIMIT = 120.0
"""Seconds without a touch after which a lock is broken. This is several beats, because a network
file system can stall, and can show attributes that are a minute old."""

LONGEST_NAP = 2.0
"""Longest interval in seconds between two polls of a waiting process; the first is 0.02 s."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        host: unique name of the machine, its boot and its namespace of process numbers.
        pid: the process number.
        start: the start time in clock ticks of the kernel; None where it is not available.
        cluster: the SLURM cluster, if the process runs in a job.
        job: the number of that job.
    """

    host: str
    pid: int
    start: int | None
    cluster: str | None = None
    job: str | None = None

    def dead(self) -> bool:
        """Whether it was a process of this machine and has ended."""
        if self.host != _host():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # a process of another user; its state can be read
        state, start = _stat(self.pid)
        return state in ("Z", "X") or (start is not None and start != self.start)


OWNER = {"host": str, "pid": int, "start": int | None, "cluster": str | None, "job": str | None}
"""The form of an owner in a JSON file."""


def owner(fields: Mapping[str, Any]) -> Owner:
    """The owner from the fields of a file, in the form of ``OWNER``."""
    return Owner(**{name: fields[name] for name in OWNER})


def me() -> Owner:
    """The owner that describes this process."""
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
    """State and start time of a process of this machine, from Linux' ``/proc/<pid>/stat``."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None, None
    fields = text.rpartition(")")[2].split()  # the name before it can contain any character
    return fields[0], int(fields[19])


@dataclass(frozen=True)
class LockHandle:
    """A lock that this process holds.

    Attributes:
        path: the folder of the lock.
        token: the token of this holder.
    """

    path: Path
    token: str

    @property
    def lost(self) -> bool:
        """Whether another process has broken the lock."""
        return not (self.path / self.token).exists()


Known = Callable[[str], bool]
"""Whether a job, by its number, is pending or running in SLURM. Each process that waits for the
lock of a job calls it every ``BEAT`` seconds; it must return True where SLURM does not answer."""


@dataclass
class _Waiter:
    """A process that waits for a lock, with the times at which it checked each holder."""

    path: Path
    known: Known
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    looked: dict[str, float] = field(default_factory=dict)

    def take(self) -> bool:
        """Take the lock if it is free; return whether this process holds it now."""
        folder = self.path.with_name(f"{self.path.name}.{self.token}.claim")
        folder.mkdir()
        try:
            (folder / self.token).write_text(json.dumps(asdict(me())))
            folder.rename(self.path)
        except OSError as error:
            with suppress(OSError):
                (folder / self.token).unlink()
                folder.rmdir()
            # If the reply of an NFS server is lost, the client repeats a rename that has succeeded.
            if not (self.path / self.token).exists():
                if error.errno not in (ENOTEMPTY, EEXIST):
                    raise
                return False
        return True

    def holder(self) -> str | None:
        """The token of the holder; None for a free lock."""
        with suppress(FileNotFoundError):
            # NFS renames a deleted file that is still open to .nfs…
            return next((name for name in os.listdir(self.path) if name[0] != "."), None)
        return None

    def evict_if_stale(self, holder: str) -> bool:
        """Break the lock if its holder has ended; return whether this call broke it.

        Each call checks a holder on this machine. A holder on another machine, whose check needs
        a file and a query to SLURM, is checked once per ``BEAT``.
        """
        mark = self.path / holder
        try:
            with mark.open() as file:  # opening the file makes NFS refresh its modification time
                touched, maker = os.fstat(file.fileno()).st_mtime, _owner(file.read())
        except OSError as error:
            if error.errno not in (ENOENT, ESTALE):
                raise
            return False  # the holder has released the lock
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
            return False  # another waiting process was first
        return True


def _owner(text: str) -> Owner | None:
    """The owner in the text of a lock's file; None for invalid text, where only the age counts."""
    with suppress(ValueError):
        if damage.fits(fields := json.loads(text), OWNER):
            return owner(fields)
    return None


def gone(owner: Owner | None, known: Known) -> bool:
    """Whether a holder was a job of this cluster and is no longer pending or running."""
    if owner is None or owner.job is None or owner.cluster is None:
        return False
    return owner.cluster == os.environ.get("SLURM_CLUSTER_NAME") and not known(owner.job)


def clock(folder: Path) -> float:
    """The time in seconds on the clock of the folder's file system."""
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
    """Hold a lock inside the block; first wait until it is free or its holder has ended.

    Args:
        path: the lock, in a folder that exists.
        unless: called while waiting; once it returns True, the block gets None and no lock.
        known: whether SLURM knows a job.

    Raises:
        OSError: the folder cannot be written, or the lock of an ended holder cannot be broken.
    """
    waiter, nap = _Waiter(path, known), 0.02
    while (holder := waiter.holder()) is not None or not waiter.take():
        if unless():
            yield None
            return
        # A network file system can show an old state, so the next poll follows after a pause.
        if holder is None or not waiter.evict_if_stale(holder):
            time.sleep(nap)
            nap = min(1.3 * nap, LONGEST_NAP)
    mark, over = path / waiter.token, threading.Event()
    threading.Thread(target=_beat, args=(mark, over), daemon=True).start()
    try:
        yield LockHandle(path, waiter.token)
    finally:
        over.set()
        with suppress(OSError):  # the lock was broken, and another process holds it
            mark.unlink()
            path.rmdir()


def _beat(mark: Path, over: threading.Event) -> None:
    """Touch the lock's file every ``BEAT`` seconds, by the file system's clock."""
    while not over.wait(BEAT):
        try:
            os.utime(mark)
        except FileNotFoundError:
            return  # the lock was broken or released
        except OSError:
            continue  # a stalled file system; the next touch may succeed
