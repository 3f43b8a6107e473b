"""Journals: whole lines, a second go in the same file, and who is alive."""

import json
import os
import time
from pathlib import Path

import pytest

from unlearnbench.core import damage
from unlearnbench.sweep import journal
from unlearnbench.sweep.journal import Journal


def test_a_second_go_knows_what_the_first_has_settled(tmp_path: Path) -> None:
    first = Journal(tmp_path, "task")
    first.began("a")
    first.settle("a", "done", "", seconds=1.5)
    first.began("b")
    first.settle("c", "failed", "why")
    second = Journal(tmp_path, "task")
    assert {key: line["did"] for key, line in second.settled.items()} == {
        "a": "done",
        "c": "failed",
    }
    assert second.settled["a"]["seconds"] == 1.5
    assert Journal(tmp_path, "another").settled == {}


def test_what_failed_is_known_to_every_task_of_the_run(tmp_path: Path) -> None:
    Journal(tmp_path, "one").settle("c", "failed", "why")
    assert Journal(tmp_path, "two").failures({"a", "c"}) == {"c": "why"}
    assert Journal(tmp_path / "other_run", "one").failures({"a", "c"}) == {}


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    Journal(tmp_path, "task").settle("a", "done", "")
    path = tmp_path / "journal" / "task.jsonl"
    with path.open("a") as file:
        file.write('{"at": 1, "did": "done", "ke')
    Journal(tmp_path, "task").settle("b", "done", "")
    assert Journal(tmp_path, "task").settled.keys() == {"a", "b"}
    started = [line for line in journal.lines(path) if line["did"] == "started"]
    assert len(started) == 3  # nor is the line after it lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Journal(tmp_path, "task").began("a")
    return tmp_path / "journal" / "task.jsonl"


def test_who_writes_is_alive(path: Path) -> None:
    assert journal.alive(path, list(journal.lines(path)))


def test_who_has_ended_is_not(path: Path, tmp_path: Path) -> None:
    Journal(tmp_path, "task").ended()
    assert not journal.alive(path, list(journal.lines(path)))
    Journal(tmp_path, "task")  # its second go
    assert journal.alive(path, list(journal.lines(path)))


def test_who_has_gone_is_not_at_once_here_and_after_a_while_elsewhere(path: Path) -> None:
    started, *others = list(journal.lines(path))
    gone = {**started, "owner": {**started["owner"], "pid": 2**22 + 1}}
    assert not journal.alive(path, [gone, *others])
    far = {**gone, "owner": {**gone["owner"], "host": "elsewhere"}}
    assert journal.alive(path, [far, *others])
    silent = time.time() - journal.SILENT - 1
    os.utime(path, (silent, silent))
    assert not journal.alive(path, [far, *others])


def test_a_beat_is_seen(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Journal(tmp_path, "task")
    silent = time.time() - journal.SILENT - 1
    os.utime(path, (silent, silent))
    one.beat()
    assert path.stat().st_mtime == pytest.approx(silent)
    monkeypatch.setattr(journal, "BEAT", 0)
    one.beat()
    assert time.time() - path.stat().st_mtime < 5


def test_lines_are_one_a_line(path: Path) -> None:
    assert [json.loads(line)["did"] for line in path.read_text().splitlines()] == [
        "started",
        "began",
    ]


STRANGE = [
    {"did": ["done"], "key": "a", "reason": ""},
    {"did": "done", "key": ["a"], "reason": ""},
    {"did": "done", "key": "a", "reason": None},
    {"did": "done", "key": "a", "reason": "", "seconds": "1"},
    {"did": "began", "key": "a", "at": "noon"},
    {"did": "started", "owner": {"host": 5}},
    {
        "did": "started",
        "owner": {"host": "h", "pid": "1", "start": None, "cluster": None, "job": None},
    },
    {"did": "flown", "key": "a"},
]


@pytest.mark.tried(
    "lines of a journal have values of other types", "they are counted and named, the others read"
)
@pytest.mark.parametrize("line", STRANGE)
def test_a_line_of_another_form_is_named(path: Path, line: dict[str, object]) -> None:
    before = list(journal.lines(path))
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.warns(damage.DamagedFile, match="1 lines are none of a journal"):
        assert list(journal.lines(path)) == before


@pytest.mark.tried("the reason of a failed job cannot be read", "the job is known to have failed")
def test_a_reason_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    one = Journal(tmp_path, "one")
    (tmp_path / "failed" / "c").mkdir(parents=True)
    assert "cannot be read" in one.failures({"a", "c"})["c"]


def test_a_journal_that_has_gone_is_not_alive(path: Path) -> None:
    told = list(journal.lines(path))
    path.unlink()
    assert not journal.alive(path, told)
