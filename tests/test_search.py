"""A study in its journal: toy objectives of which the optimum is known, and processes that die."""

import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cells import Cells

from unlearnbench.core import damage
from unlearnbench.core.cell import Cell
from unlearnbench.search import journal_study as search
from unlearnbench.search.journal_study import COMPLETE, FAILED, PRUNED, SKIPPED, Outcome
from unlearnbench.search.study import Settings, Slot, Study

fork = multiprocessing.get_context("fork")

TOY = {
    "name": "toy",
    "version": 1,
    "call": {"_target_": "toy.toy", "x": -2.0, "lr": 1e-4, "wd": 0.0, "k": 1, "kind": "a"},
    "space": {
        "x": {"low": -1.0, "high": 1.0},
        "lr": {"low": 1e-5, "high": 1e-1, "log": True},
        "wd": {"low": 1e-5, "high": 1e-1, "log": True, "zero": True},
        "k": {"low": 1, "high": 10},
        "kind": {"choices": ["b", "c"]},
    },
}


@pytest.fixture
def study(cell: Cells) -> Study:
    plain = replace(cell(), method=TOY)
    cells = tuple(replace(plain, seed=seed) for seed in (100, 101, 102))
    fresh = tuple(replace(plain, seed=seed) for seed in (103, 104))
    return Study(cells, fresh, "retrained", "tpe", True, 0)


def bowl(settings: Settings, cell: Cell) -> Outcome:
    """Zero at x = 0.3, lr = 0.01, wd = 0, k = 7 and kind b."""
    values = (
        abs(settings["x"] - 0.3) / 4,
        abs(math.log10(settings["lr"]) + 2) / 16,
        0.0 if settings["wd"] == 0 else 0.1,
        abs(settings["k"] - 7) / 40 + 0.3 * (settings["kind"] != "b"),
    )
    return Outcome(cell.seed, values, math.hypot(*values), 0.01)


def searched(
    folder: Path, study: Study, slots: range, evaluate: search.Evaluate = bowl
) -> dict[int, search.Told]:
    for number in slots:
        search.run(folder, Slot(study, number), evaluate)
    return search.told(folder, study)


def tried(told: dict[int, search.Told]) -> list[Any]:
    return [(slot, one.settings, one.status, one.outcomes) for slot, one in told.items()]


def test_the_first_trial_is_the_defaults_wherever_they_lie(study: Study, tmp_path: Path) -> None:
    (first,) = searched(tmp_path, study, range(1)).values()
    assert first.settings == {name: axis.default for name, axis in study.space.items()}
    assert first.settings["x"] == -2.0  # below its range; wd is 0, and kind none of the choices
    assert [one.seed for one in first.outcomes] == [100, 101, 102]
    assert first.status == COMPLETE
    assert first.score == pytest.approx(bowl(first.settings, study.cell).score)


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga3"])
def test_a_known_optimum_is_found(study: Study, tmp_path: Path, sampler: str) -> None:
    tolerance = {"tpe": 0.1, "random": 0.2, "nsga3": 0.2}[sampler]
    told = searched(tmp_path, replace(study, sampler=sampler), range(60))
    (best,) = search.best(told, 1)
    assert best.score < tolerance < told[0].score / 2
    assert best.settings["wd"] == 0.0 or sampler != "tpe"
    for trial in list(told.values())[1:]:
        assert 1e-5 <= trial.settings["lr"] <= 1e-1
        assert trial.settings["wd"] == 0 or 1e-5 <= trial.settings["wd"] <= 1e-1
        assert type(trial.settings["k"]) is int


def test_zeros_and_numbers_are_both_tried(study: Study, tmp_path: Path) -> None:
    told = searched(tmp_path, replace(study, sampler="random"), range(30))
    zeros = [trial.settings["wd"] == 0 for trial in told.values()]
    assert 2 <= sum(zeros) <= 15  # one decade of five


@pytest.mark.parametrize("sampler", ["tpe", "nsga3"])
def test_a_seed_gives_the_same_trials_whoever_dies_on_the_way(
    study: Study, tmp_path: Path, sampler: str
) -> None:
    study = replace(study, sampler=sampler)
    whole = searched(tmp_path / "whole", study, range(16))
    other = searched(tmp_path / "other", replace(study, seed=1), range(16))
    assert tried(other) != tried(whole)
    for moment in (3, 17, 26):  # evaluations, which are three a trial
        _in_a_process_that_dies(partial(_dying, tmp_path / "killed", study, moment))
    killed = searched(tmp_path / "killed", study, range(16))
    assert tried(killed) == tried(whole)


def _dying(folder: Path, study: Study, evaluations: int) -> None:
    left = [evaluations]

    def evaluate(settings: Settings, cell: Cell) -> Outcome:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return bowl(settings, cell)

    searched(folder, study, range(16), evaluate)


def _in_a_process_that_dies(what: Callable[[], object]) -> None:
    process = fork.Process(target=what)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_death_at_any_line_of_the_journal_loses_and_repeats_nothing(
    study: Study, tmp_path: Path
) -> None:
    """The journal cut after each of its lines, or within one, is what a death there leaves."""
    toy = {**TOY, "call": {"x": 0.0}, "space": {"x": {"low": -1.0, "high": 1.0}}}
    study = replace(study, cells=(replace(study.cell, method=toy),), fresh=())

    def plain(settings: Settings, cell: Cell) -> Outcome:
        return Outcome(cell.seed, (0.0, 0.0, 0.0, abs(settings["x"])), abs(settings["x"]), 0.0)

    whole = searched(tmp_path / "whole", study, range(3), plain)
    journal = (search.folder_of(tmp_path / "whole", study) / "journal").read_bytes()
    ends = [place + 1 for place, byte in enumerate(journal) if byte == ord("\n")]
    assert len(ends) > 15
    for number, place in enumerate([*ends, *(end - 9 for end in ends)]):
        results = tmp_path / str(number)
        folder = search.folder_of(results, study)
        folder.mkdir(parents=True)
        (folder / "journal").write_bytes(journal[:place])
        known = journal[: journal[:place].rfind(b"\n") + 1].count(b'"told"')
        asked: list[int] = []

        def evaluate(settings: Settings, cell: Cell, asked: list[int] = asked) -> Outcome:
            asked.append(cell.seed)
            return plain(settings, cell)

        there = searched(results, study, range(3), evaluate)
        assert tried(there) == tried(whole), place
        assert len(asked) == 3 - known, place


def _count(folder: Path, study: Study, log: Path, fresh: bool) -> None:
    def evaluate(settings: Settings, cell: Cell) -> Outcome:
        with log.open("a") as file:
            file.write(json.dumps([cell.seed, settings], sort_keys=True) + "\n")
        time.sleep(0.005)
        return bowl(settings, cell)

    for number in range(12):
        search.run(folder, Slot(study, number), evaluate)
    for place in range(4 if fresh else 0):
        search.run(folder, Slot(study, place, fresh=True, best=2), evaluate)


def test_workers_on_one_study_lose_and_repeat_nothing(study: Study, tmp_path: Path) -> None:
    study = replace(study, prune=False)
    log = tmp_path / "log"
    workers = [fork.Process(target=_count, args=(tmp_path, study, log, True)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    told = search.told(tmp_path, study)
    assert list(told) == list(range(12))
    lines = log.read_text().splitlines()
    again = search.candidates(told, 2)
    assert len(lines) == len({*lines}) == 12 * 3 + 2 * len(again)
    assert all(len(one.fresh) == 2 for one in again)
    trials = search._open(tmp_path, study).get_trials()
    assert sorted(trial.user_attrs["slot"] for trial in trials) == list(range(12))


def test_one_that_kills_its_process_every_time_is_a_failed_trial(
    study: Study, tmp_path: Path
) -> None:
    def fatal(settings: Settings, cell: Cell) -> Outcome:
        if settings["x"] != -2.0:
            os.kill(os.getpid(), signal.SIGKILL)
        return bowl(settings, cell)

    for _ in range(search.ATTEMPTS):
        _in_a_process_that_dies(lambda: searched(tmp_path, study, range(2), fatal))
    told = searched(tmp_path, study, range(2), fatal)
    assert told[1].status == FAILED
    assert told[1].reason == f"its process was killed {search.ATTEMPTS} times"
    assert told[1].score == math.inf
    assert told[0].status == COMPLETE


@pytest.mark.parametrize("sampler", ["tpe", "nsga3", "random"])
def test_what_fails_is_a_trial_and_the_search_goes_on(
    study: Study, tmp_path: Path, sampler: str
) -> None:
    def fails(settings: Settings, cell: Cell) -> Outcome:
        if settings["k"] % 2:
            return Outcome(cell.seed, (), math.inf, 0.01, FAILED, "diverged")
        return bowl(settings, cell)

    told = searched(tmp_path, replace(study, sampler=sampler), range(20), fails)
    assert len(told) == 20
    for one in told.values():
        assert (one.status == FAILED) == bool(one.settings["k"] % 2)
        if one.status == FAILED:
            assert (one.reason, len(one.outcomes), one.score) == ("diverged", 1, math.inf)
    assert {one.status for one in told.values()} > {FAILED}


def test_what_cannot_be_tried_is_skipped(study: Study, tmp_path: Path) -> None:
    def skips(settings: Settings, cell: Cell) -> Outcome:
        return Outcome(cell.seed, (), math.inf, 0.0, SKIPPED, "on principle")

    told = searched(tmp_path, study, range(3), skips)
    assert [one.status for one in told.values()] == [SKIPPED] * 3
    assert search.candidates(told, 5) == []


def test_hopeless_trials_are_left_half_way_and_others_are_not(study: Study, tmp_path: Path) -> None:
    told = searched(tmp_path, replace(study, sampler="random"), range(40))
    pruned = [one for one in told.values() if one.status == PRUNED]
    whole = [one for one in told.values() if one.status == COMPLETE]
    assert 5 < len(pruned) < 30
    assert all(slot >= search.BEFORE_PRUNING for slot in (one.slot for one in pruned))
    assert all(len(one.outcomes) < 3 and one.score == math.inf for one in pruned)
    # The score is the same on every seed here, so that the best is never pruned.
    scores = {one.slot: one.outcomes[0].score for one in told.values()}
    assert min(scores, key=lambda slot: scores[slot]) in {one.slot for one in whole}
    assert all(len(one.outcomes) == 3 for one in whole)
    kept = searched(tmp_path, replace(study, sampler="random", prune=False), range(20))
    assert all(one.status == COMPLETE for one in kept.values())


def told_of(slot: int, *scores: float, status: str = COMPLETE) -> search.Told:
    outcomes = tuple(Outcome(100 + n, (score,), score, 2.0) for n, score in enumerate(scores))
    return search.Told(slot, {"x": slot}, status, "", outcomes)


def test_the_best_the_luckiest_and_who_is_looked_at_again() -> None:
    trials = {
        0: told_of(0, 0.9, 0.9),
        1: told_of(1, 0.3, 0.3),
        2: told_of(2, 0.01, 0.7),
        3: told_of(3, 0.2, 0.3),
        4: told_of(4, 0.05, status=PRUNED),
        5: told_of(5, math.inf, status=FAILED),
        6: told_of(6, 0.3, 0.3),
    }
    assert [one.slot for one in search.best(trials, 3)] == [3, 1, 6]
    assert trials[2].score == pytest.approx(0.355)
    luckiest = search.luckiest(trials)
    assert luckiest is not None
    assert luckiest.slot == 2
    assert [one.slot for one in search.candidates(trials, 2)] == [3, 1, 2, 0]
    assert [one.slot for one in search.candidates(trials, 9)] == [3, 1, 6, 2, 0]
    assert search.luckiest({5: trials[5]}) is None
    assert trials[3].seconds == 4.0


def test_the_best_are_run_again_on_fresh_seeds_once(study: Study, tmp_path: Path) -> None:
    searched(tmp_path, study, range(12))
    asked: list[tuple[int, float]] = []

    def evaluate(settings: Settings, cell: Cell) -> Outcome:
        asked.append((cell.seed, settings["x"]))
        return bowl(settings, cell)

    for _ in range(2):
        for place in range(5):
            search.run(tmp_path, Slot(study, place, fresh=True, best=3), evaluate)
    told = search.told(tmp_path, study)
    again = search.candidates(told, 3)
    assert asked == [(seed, one.settings["x"]) for one in again for seed in (103, 104)]
    assert [one.seed for one in again[0].fresh] == [103, 104]
    assert sum(bool(one.fresh) for one in told.values()) == len(again)
    # Other fresh seeds are other ones.
    others = tuple(replace(cell, seed=cell.seed + 10) for cell in study.fresh)
    moved = search.told(tmp_path, replace(study, fresh=others))
    assert not any(one.fresh for one in moved.values())


def _with_a_line(line: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes() + line)


def _of_another_form(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"outcomes":[{', b'"outcomes":[{"tone":1,'))


DAMAGE = {
    "random bytes": lambda path: path.write_bytes(b"\xff\x00\n\x01" * 50),
    "random bytes without an end of a line": lambda path: path.write_bytes(b"\xff\x00" * 50),
    "no record at the end": _with_a_line(b"\xff\x00"),
    "an unknown record": _with_a_line(b'{"op_code":99,"worker_id":"w"}\n'),
    "a record without its fields": _with_a_line(b'{"op_code":0}\n'),
    "JSON of another kind": _with_a_line(b"[]\n"),
    "a trial of another form": _of_another_form,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.tried(
    "the journal of a study is overwritten, of another form, or a folder",
    "it is named with its repair, and nothing of it is deleted",
)
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_journal_is_named(study: Study, tmp_path: Path, name: str) -> None:
    assert len(searched(tmp_path, study, range(2))) == 2
    path = search.folder_of(tmp_path, study) / "journal"
    DAMAGE[name](path)
    content = path.read_bytes() if path.is_file() else None
    search._storage.cache_clear()
    with pytest.warns(damage.DamagedFile, match=r"journal is passed over: .*; delete .* again"):
        assert search.told(tmp_path, study) == {}
    assert content is None or path.read_bytes().startswith(content)
    with pytest.raises((search.Damaged, IsADirectoryError), match="journal"):
        search.run(tmp_path, Slot(study, 2), bowl)
