"""Journals of the working processes: one line when a job begins, one when it is settled.

A journal is the file ``<run>/journal/<task>.jsonl``. Lines are appended one by one, so a
process that is killed leaves at most one unreadable line, which readers skip. The process touches
the file every ``BEAT`` seconds to show that it is alive. The store decides whether an artifact
exists; the journal never does.
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
"""Seconds between two touches of a journal."""

SILENT = 60.0
"""Seconds without a touch after which the process counts as ended. This is several beats, because
a network file system shows touches by other machines late."""

FAILED = "failed"


class Journal:
    """The journal of one task, opened for writing by its working process.

    Args:
        run: the folder of the run.
        task: the name of the task. A task that is queued again appends to the same file.
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

    def _write(self, **entries: Any) -> None:
        line = (json.dumps({"at": time.time(), **entries}) + "\n").encode()
        while line:  # a full disk can accept some of the bytes and raise at the next write
            line = line[os.write(self._file, line) :]

    def began(self, key: str) -> None:
        """Record that a job was assigned to a worker."""
        self._write(did="began", key=key)

    def settle(self, key: str, status: str, reason: str, **costs: Any) -> None:
        """Record a job as ``done``, ``skipped`` or ``failed``; later waves see failures too."""
        self._write(did=status, key=key, reason=reason, **costs)
        if status == FAILED:
            self._failed.mkdir(exist_ok=True)
            atomic.write(self._failed / key, reason)

    def ended(self) -> None:
        """Record that the process ends, whether or not all jobs are done."""
        self._write(did="ended")

    def beat(self) -> None:
        """Touch the file if ``BEAT`` seconds have passed, to show that this process is alive."""
        if time.monotonic() - self._beat >= BEAT:
            self._beat = time.monotonic()
            with suppress(OSError):  # a full or stalled disk does not stop the work
                os.utime(self.path)

    def failures(self, keys: set[str]) -> dict[str, str]:
        """Reasons of those of the jobs that have failed in this run, by key."""
        reasons = {}
        for key in keys:
            try:
                reasons[key] = (self._failed / key).read_text(errors="replace")
            except FileNotFoundError:
                continue
            except OSError as error:
                reasons[key] = f"it has failed; why cannot be read: {error}"
        return reasons


SETTLED = ("done", "skipped", FAILED)

SAYS: dict[str, dict[str, Any]] = {
    "started": {"owner": OWNER},
    "began": {"key": str, "at": float},
    "ended": {},
    **{status: {"key": str, "reason": str} for status in SETTLED},
}
"""Form of the required entries of a line, by the value of ``did``."""

COSTS = {"seconds": int | float, "bytes": int | float, "device": str}
"""Form of the optional entries of a line for a settled job: seconds, bytes, and the device."""


def _is_line(record: Any) -> bool:
    if not damage.fits(record, {"did": str}) or record["did"] not in SAYS:
        return False
    costs = {name: form for name, form in COSTS.items() if name in record}
    return damage.fits(record, SAYS[record["did"]] | costs)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal in order; none if the file does not exist.

    A line that a crash has cut off is skipped. Content that is no beginning of a line is reported
    as damaged.
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
        record = None
        with suppress(ValueError):
            record = json.loads(line)
        if _is_line(record):
            assert record is not None
            yield record
        elif line and (record is not None or not line.startswith(b'{"at"')):
            strange += 1
    if strange:
        damage.passed_over(path, f"{strange} lines are none of a journal", REPAIR)


REPAIR = "delete it: what is in the store and among the rows stays done"


def alive(path: Path, records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a process still writes a journal: not ended, not dead, and with a recent touch.

    Args:
        path: the journal.
        records: its records, as ``lines`` returns them.
    """
    last = next((line for line in reversed(records) if line["did"] in ("started", "ended")), None)
    if last is None or last["did"] == "ended":
        return False
    return not owner(last["owner"]).dead() and heard(path)


def heard(path: Path) -> bool:
    """Whether a file was touched less than ``SILENT`` seconds ago."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime < SILENT
    return False
