"""What a working process writes down while it works: one line a job begun, one a job settled.

A journal is ``<run>/journal/<task>.jsonl``. Lines are appended whole, so that one killed in the
middle of a write leaves at most one line that cannot be read, which is passed over. The file is
touched every ``BEAT`` seconds: that is how others see that its process is alive. What a journal
says never decides whether an artifact exists; that is the store's to say.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unlearnbench.core import atomic, damage
from unlearnbench.store.lock import OWNER, me, owner

BEAT = 10.0
"""Seconds from one touch of a journal to the next."""

SILENT = 60.0
"""Seconds without a touch after which nobody is taken to be writing any more: several beats, for
a network file system shows other machines' touches late."""

FAILED = "failed"


class Journal:
    """The journal of one task, opened by the process that works at it.

    Args:
        run: the run's folder.
        task: the task's name. A task that is queued again goes on in the same file.
    """

    def __init__(self, run: Path, task: str) -> None:
        self.path = run / "journal" / f"{task}.jsonl"
        self._failed = run / FAILED
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.settled = {line["key"]: line for line in lines(self.path) if line["did"] in SETTLED}
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        torn = self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n")
        os.write(self._file, b"\n" * bool(torn))
        self._beat = time.monotonic()
        self._write(did="started", owner=asdict(me()))

    def _write(self, **told: Any) -> None:
        line = (json.dumps({"at": time.time(), **told}) + "\n").encode()
        while line:  # a disk that fills up takes a part, and raises at the next
            line = line[os.write(self._file, line) :]

    def began(self, key: str) -> None:
        """A job was handed out."""
        self._write(did="began", key=key)

    def settle(self, key: str, status: str, reason: str, **told: Any) -> None:
        """A job is ``done``, ``skipped`` or ``failed``; what failed is known to later waves too."""
        self._write(did=status, key=key, reason=reason, **told)
        if status == FAILED:
            self._failed.mkdir(exist_ok=True)
            atomic.write(self._failed / key, reason)

    def ended(self) -> None:
        """The process stops working, whether or not all is done."""
        self._write(did="ended")

    def beat(self) -> None:
        """Say that this process is alive, if it is time to."""
        if time.monotonic() - self._beat >= BEAT:
            self._beat = time.monotonic()
            with suppress(OSError):  # a full or stalled disk stops nobody from working
                os.utime(self.path)

    def failures(self, keys: set[str]) -> dict[str, str]:
        """Which of some jobs are known to have failed in this run, and why."""
        found = {}
        for key in keys:
            try:
                found[key] = (self._failed / key).read_text(errors="replace")
            except FileNotFoundError:
                continue
            except OSError as error:
                found[key] = f"it has failed; why cannot be read: {error}"
        return found


SETTLED = ("done", "skipped", FAILED)

SAYS: dict[str, dict[str, Any]] = {
    "started": {"owner": OWNER},
    "began": {"key": str, "at": float},
    "ended": {},
    **{status: {"key": str, "reason": str} for status in SETTLED},
}
"""What else stands in a line, by what was done."""

COSTS = {"seconds": int | float, "bytes": int | float, "device": str}
"""What a line of a settled job may say besides."""


def _is_line(told: Any) -> bool:
    if not damage.fits(told, {"did": str}) or told["did"] not in SAYS:
        return False
    costs = {name: form for name, form in COSTS.items() if name in told}
    return damage.fits(told, SAYS[told["did"]] | costs)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """What stands in a journal, in its order; nothing where there is none.

    A line that a crash has torn is passed over; what was never the beginning of one is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        damage.passed_over(path, error, REPAIR)
        return
    strange = 0
    for line in content.splitlines():
        told = None
        with suppress(ValueError):
            told = json.loads(line)
        if _is_line(told):
            assert told is not None
            yield told
        elif line and (told is not None or not line.startswith(b'{"at"')):
            strange += 1
    if strange:
        damage.passed_over(path, f"{strange} lines are none of a journal", REPAIR)


REPAIR = "delete it: what is in the store and among the rows stays done"


def alive(path: Path, told: Sequence[Mapping[str, Any]]) -> bool:
    """Whether somebody is still writing: has not said its end, is not seen to be gone, was heard.

    Args:
        path: of the journal.
        told: its lines.
    """
    last = next((line for line in reversed(told) if line["did"] in ("started", "ended")), None)
    if last is None or last["did"] == "ended":
        return False
    return not owner(last["owner"]).dead() and heard(path)


def heard(path: Path) -> bool:
    """Whether a file was touched within the last ``SILENT`` seconds."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime < SILENT
    return False
