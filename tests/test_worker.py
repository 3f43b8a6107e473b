"""The host and its workers: order, losses, what one bad cell takes along."""

import io
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from sweeps import TINY, Preloaded, Sweep

from unlearnbench.config import compose
from unlearnbench.results.load import load_results
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import journal, scheduler, worker
from unlearnbench.sweep.plan import Event, Job, Orders, plan

pytest_plugins = ["sweep_fixtures"]

METHOD = """
name: {0}
label: {0}
version: 1
call: {{_target_: unruly.{0}, strength: 1.0}}
space: {{}}
"""

ATTACK = """
name: dying
label: dying
version: 1
call: {_target_: unruly.dying_attack}
"""


@pytest.fixture(scope="module")
def faults(preloaded: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep]:
    """A sweep in which one method works and three do not, under two attacks, run once."""
    folder = tmp_path_factory.mktemp("faults")
    for axis in ("method", "attack"):
        (folder / "options" / axis).mkdir(parents=True)
    for name in REASONS:
        (folder / "options" / "method" / f"{name}.yaml").write_text(METHOD.format(name))
    (folder / "options" / "attack" / "dying.yaml").write_text(ATTACK)
    code, sweep = preloaded.run(words(folder), folder)
    assert code == 1
    return folder, sweep


def words(folder: Path) -> list[str]:
    axes = [f"method=finetune,{','.join(REASONS)}", "attack=umia,dying"]
    return ["-m", *TINY, *axes, "workers=2", "--config-dir", str(folder / "options")]


def status(wide: pd.DataFrame) -> dict[tuple[str, str], str]:
    return dict(zip(zip(wide["method"], wide["attack"], strict=True), wide["status"], strict=True))


REASONS = {
    "raising": "KeyError: 'on\\npurpose'",
    "not_finite": "weights are not finite: ",
    "dying": "the worker process was killed (SIGKILL)",
    "exiting": "SystemExit: on purpose",
    "mute": "Mute: no reason was given (in unruly.py, line ",
}


@pytest.mark.tried(
    "a method raises an error, exits, is killed, or raises what has no text and writes no UTF-8",
    "each is a failed row with a reason, and the sweep goes on",
)
def test_what_fails_is_a_row_with_its_reason(faults: tuple[Path, Sweep]) -> None:
    wide = load_results(faults[0], wide=True)
    assert len(wide) == (4 + len(REASONS)) * 2
    for method, reason in REASONS.items():
        cells = wide[wide["method"] == method]
        assert len(cells) == 2
        assert set(cells["status"]) == {"failed"}
        assert all(told.startswith(reason) for told in cells["reason"])


def test_the_rest_completes(faults: tuple[Path, Sweep]) -> None:
    wide = load_results(faults[0], wide=True)
    fine = wide[(wide["attack"] == "umia") & ~wide["method"].isin(REASONS)]
    assert sorted(fine["method"]) == ["finetune", "original", "retrain", "second_retrain"]
    assert set(fine["status"]) == {"ok"}


def test_an_attack_that_kills_takes_no_other_cell_along(faults: tuple[Path, Sweep]) -> None:
    """All these cells write one file of rows."""
    told = status(load_results(faults[0], wide=True))
    killed = {method for (method, attack), one in told.items() if attack == "dying" and one != "ok"}
    assert killed == {"retrain", "second_retrain", *REASONS}
    wide = load_results(faults[0], wide=True).set_index(["method", "attack"])
    assert wide.loc[("retrain", "dying"), "reason"] == REASONS["dying"]
    assert wide.loc[("retrain", "dying"), "test_acc"] > 0  # its model is not at fault


def test_failures_are_told_and_their_tracebacks_kept(faults: tuple[Path, Sweep]) -> None:
    folder, sweep = faults
    assert "failed: raising seed 0: KeyError: 'on\\npurpose'" in sweep.out
    assert f"tracebacks in {folder / 'failures'}" in sweep.out
    kept = [path.read_text() for path in (folder / "failures").iterdir()]
    assert sum("def raising" in text or "in raising" in text for text in kept) == 1
    assert sweep.err == ""


def test_once_they_work_they_replace_the_failed_rows(
    faults: tuple[Path, Sweep], preloaded: Preloaded
) -> None:
    folder, _ = faults
    code, sweep = preloaded.run(words(folder), folder, UNRULY="calm")
    assert code == 0, sweep.out
    assert "18 cells (6 there) → 1 original, 2 retrains, 5 unlearned; 3 in store" in sweep.out
    assert set(load_results(folder)["status"]) == {"ok"}


# ---------------------------------------------------------------------------------------------
# The host alone: its workers are ends of pipes.


class Standing:
    """A process that is where it should be."""

    exitcode = 1
    alive = True

    def is_alive(self) -> bool:
        return self.alive

    def join(self) -> None:
        pass


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, ...]:
    grid = compose.expand(["attack=none", "method=finetune,original", "seed=0,1"])
    store = Store(tmp_path_factory.mktemp("empty"))
    return plan(compose.cells(grid, ["retrain"]), store, set()).jobs


@pytest.fixture
def host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jobs: tuple[Job, ...]
) -> scheduler.Scheduler:
    def start(host: scheduler.Scheduler, device: str) -> scheduler.WorkerHandle:
        here, there = multiprocessing.Pipe()
        ends[id(here)] = there
        return scheduler.WorkerHandle(Standing(), here, device)

    ends: dict[int, Any] = {}
    monkeypatch.setattr(scheduler.Scheduler, "_start", start)
    monkeypatch.setattr(
        scheduler.Scheduler, "end", lambda _, one: ends[id(one.pipe)], raising=False
    )
    return scheduler.Scheduler(
        Orders(jobs, tmp_path, tmp_path / "store", tmp_path, "t", "cpu", 4), os.pipe()[0]
    )


def given(
    host: scheduler.Scheduler,
) -> Iterator[tuple[scheduler.WorkerHandle, Job, dict[str, str]]]:
    """What the host hands out now, to whom, with which known failures."""
    host._hand_out()
    for one in host.workers:
        end = host.end(one)  # type: ignore[attr-defined]
        if end.poll():
            yield one, *end.recv()


def settle(
    host: scheduler.Scheduler, one: scheduler.WorkerHandle, told: Event | str
) -> Event | None:
    host.end(one).send(told)  # type: ignore[attr-defined]
    return host._settle(one)


def done(job: Job, status: str = "done", reason: str = "") -> Event:
    return Event(job.key, job.kind, status, reason)


def test_a_job_is_handed_out_after_all_it_needs(host: scheduler.Scheduler) -> None:
    settled: set[str] = set()
    order = []
    while handed := list(given(host)):
        for _, job, _ in handed:
            assert settled >= {*job.needs}
            order.append(job.key)
        for one, job, _ in handed:
            settle(host, one, done(job))
            settled.add(job.key)
    assert sorted(order) == sorted(job.key for job in host.orders.jobs)


def test_jobs_are_handed_out_in_the_plans_order(host: scheduler.Scheduler) -> None:
    first = [job for _, job, _ in given(host)]
    assert first == list(host.orders.jobs[:4])
    assert list(given(host)) == []  # everybody is at work


def test_what_needs_a_failed_job_is_told_of_it(host: scheduler.Scheduler) -> None:
    known = {}
    failed = ""
    while handed := list(given(host)):
        for one, job, failures in handed:
            known[job.key] = failures
            fails = job.kind == "original" and not failed
            failed = job.key if fails else failed
            settle(host, one, done(job, "failed", "why") if fails else done(job, "skipped"))
    for job in host.orders.jobs:
        assert known[job.key] == ({failed: "why"} if failed in job.needs else {})


def test_a_worker_lost_at_a_model_fails_it_and_is_replaced(host: scheduler.Scheduler) -> None:
    one, job, _ = next(given(host))
    host.end(one).close()  # type: ignore[attr-defined]
    event = host._settle(one)
    assert event == done(job, "failed", "the worker process ended with 1")
    assert one not in host.workers
    assert len(host.workers) == 4


@pytest.mark.tried("a worker is ended by a signal without a name", "the signal's number is told")
def test_a_signal_without_a_name_is_told_by_its_number(
    host: scheduler.Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Standing, "exitcode", -(signal.SIGRTMIN + 1))
    one, job, _ = next(given(host))
    host.end(one).close()  # type: ignore[attr-defined]
    number = signal.SIGRTMIN + 1
    assert host._settle(one) == done(job, "failed", f"the worker process was killed ({number})")
    assert len(host.workers) == 4


def rows(host: scheduler.Scheduler) -> tuple[scheduler.WorkerHandle, Job]:
    """The worker that has the first job of rows, all else being done."""
    while True:
        for one, job, _ in given(host):
            if job.kind == "rows":
                return one, job
            settle(host, one, done(job))


def test_a_worker_lost_at_rows_costs_one_cell(host: scheduler.Scheduler) -> None:
    one, job = rows(host)
    assert settle(host, one, job.cells[0].key) is None
    assert settle(host, one, job.cells[1].key) is None
    host.end(one).close()  # type: ignore[attr-defined]
    assert host._settle(one) is None
    ((_, again, failures),) = [each for each in given(host) if each[1] == job]
    assert again == job
    assert failures == {job.cells[1].key: "the worker process ended with 1"}


def test_rows_that_kill_where_no_cell_is_at_fault_are_given_up(host: scheduler.Scheduler) -> None:
    one, job = rows(host)
    for _ in range(2):
        assert settle(host, one, job.cells[-1].key) is None
        host.end(one).close()  # type: ignore[attr-defined]
        event = host._settle(one)
        if event is None:
            ((one, _, _),) = [each for each in given(host) if each[1] == job]
    assert event == done(job, "failed", "the worker process ended with 1")


def test_a_worker_that_died_while_idle_is_replaced(host: scheduler.Scheduler) -> None:
    host.workers[0].process.alive = False
    gone = host.workers[0]
    handed = [one for one, _, _ in given(host)]
    assert len(handed) == 4
    assert gone not in handed


def test_no_more_workers_than_jobs(host: scheduler.Scheduler) -> None:
    few = replace(host.orders, jobs=host.orders.jobs[:2], workers=8)
    assert len(scheduler.Scheduler(replace(few, task="few"), host.stop).workers) == 2


def test_host_ends_when_nobody_listens(
    host: scheduler.Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = multiprocessing.Pipe()
    killed = []
    monkeypatch.setattr(Standing, "kill", lambda one: killed.append(one), raising=False)
    monkeypatch.setattr("sys.stdin", ours)
    theirs.close()
    said = io.StringIO()
    host.run(said)
    assert len(killed) == 4
    assert said.getvalue() == ""


def test_what_a_task_has_settled_before_it_was_queued_again_is_not_done_again(
    host: scheduler.Scheduler,
) -> None:
    handed = list(given(host))
    settle(host, handed[0][0], done(handed[0][1]))
    settle(host, handed[1][0], done(handed[1][1], "failed", "why"))
    again = scheduler.Scheduler(host.orders, host.stop)
    assert again.told == [done(handed[0][1]), done(handed[1][1], "failed", "why")]
    settled = {job.key for _, job, _ in handed[:2]}
    assert again.jobs.keys() == {job.key for job in host.orders.jobs} - settled
    after = {job.key: known for _, job, known in given(again)}
    assert not settled & after.keys()
    assert again.failures == {handed[1][1].key: "why"}


def test_what_failed_in_another_task_of_the_run_is_known(host: scheduler.Scheduler) -> None:
    original = next(job for job in host.orders.jobs if job.kind == "original")
    needy = tuple(job for job in host.orders.jobs if original.key in job.needs)
    journal.Journal(host.orders.run, "another").settle(original.key, "failed", "why")
    later = scheduler.Scheduler(replace(host.orders, jobs=needy, task="later"), host.stop)
    assert all(known == {original.key: "why"} for _, _, known in given(later))


def test_what_somebody_else_has_made_takes_no_worker(host: scheduler.Scheduler) -> None:
    made = [job.key for job in host.orders.jobs if job.wave == 1]
    for key in made:
        host.store.get(key, lambda folder: {})
    handed = [job for _, job, _ in given(host)]
    assert [event.key for event in host.told] == made
    assert {job.wave for job in handed} == {2}
    assert all("seconds" not in line for line in settled_lines(host))


def settled_lines(host: scheduler.Scheduler) -> list[dict[str, Any]]:
    path = host.orders.run / "journal" / f"{host.orders.task}.jsonl"
    return [line for line in journal.lines(path) if line["did"] in journal.SETTLED]


def test_the_journal_says_what_a_job_took_and_made(host: scheduler.Scheduler) -> None:
    one, job, _ = next(given(host))
    assert host.store.get(job.key, lambda folder: (folder / "x").write_bytes(b"1234") and {})
    settle(host, one, done(job))
    (line,) = settled_lines(host)
    made = sum(path.stat().st_size for path in host.store.path(job.key).iterdir())
    assert (line["key"], line["did"], line["bytes"]) == (job.key, "done", made)
    assert 0 <= line["seconds"] < 60


def test_asked_to_stop_it_hands_out_nothing_and_fails_nothing(
    host: scheduler.Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is at a short job may end it; the others lose theirs, which count as not begun."""
    told, ours = [], os.pipe()
    monkeypatch.setattr(Standing, "pid", 4711, raising=False)
    monkeypatch.setattr(Standing, "kill", lambda _: None, raising=False)
    monkeypatch.setattr("os.kill", lambda pid, signal: told.append((pid, signal)))
    monkeypatch.setattr(scheduler, "STOP_SECONDS", 0.5)
    monkeypatch.setattr("sys.stdin", os.fdopen(ours[0]))
    (first, job, _), (second, *_), (third, lost, _), *_ = given(host)
    asked, ask = os.pipe()
    host.stop = asked
    os.write(ask, b".")
    host.end(first).send(done(job))  # type: ignore[attr-defined]
    host.end(second).close()  # type: ignore[attr-defined]
    host.end(third).send(done(lost, "failed", "stopped"))  # type: ignore[attr-defined]
    said = io.StringIO()
    assert host.run(said)
    assert set(told) == {(4711, signal.SIGUSR2)}
    assert [line["key"] for line in settled_lines(host)] == [job.key]
    assert f'"{job.key}"' in said.getvalue()
    assert lost.key not in said.getvalue()
    again = scheduler.Scheduler(host.orders, asked)
    assert len(again.jobs) == len(host.orders.jobs) - 1


# ---------------------------------------------------------------------------------------------
# Devices.


@pytest.mark.parametrize(
    ("gpus", "wanted", "workers", "told"),
    [
        (0, "auto", None, ["cpu"] * 3),
        (0, "auto", 2, ["cpu"] * 2),
        (2, "cpu", None, ["cpu"] * 3),
        (1, "auto", None, ["cuda:0"] * 2),
        (2, "cuda", 3, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", None, ["cuda:1", "cuda:1"]),
    ],
)
def test_devices(
    gpus: int,
    wanted: str,
    workers: int | None,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert scheduler.devices(wanted, workers) == told


@pytest.mark.parametrize(("gpus", "wanted"), [(0, "cuda"), (0, "cuda:0"), (1, "cuda:1")])
def test_a_device_that_is_not_there(
    gpus: int, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(ValueError, match=f"device={wanted}: "):
        scheduler.devices(wanted, None)


@pytest.mark.parametrize(("device", "looks"), [("cpu", 0), ("cuda:0", 1)])
def test_on_the_cpu_no_step_looks_for_a_gpu(
    device: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As workers have it: CUDA was not used yet, and is asked about by way of NVML."""
    seen: list[None] = []
    monkeypatch.setattr("torch.cuda._initialized", False)
    monkeypatch.setattr("torch.cuda._cached_device_count", None)
    monkeypatch.setattr("torch.cuda._is_compiled", lambda: True)
    monkeypatch.setattr("torch.cuda._raw_device_count_nvml", lambda: seen.append(None) or 0)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    deterministic = torch.are_deterministic_algorithms_enabled()
    worker.configure(device)
    torch.use_deterministic_algorithms(deterministic)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("" if device == "cpu" else "0")
    weight = torch.ones(1, requires_grad=True)
    weight.grad = torch.ones(1)
    torch.optim.Adam([weight]).step()
    torch.cuda.is_available()
    assert min(len(seen), 1) == looks
