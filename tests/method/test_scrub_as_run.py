"""SCRUB as run never returns to the start, and walks over forget rows in one order."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import Bench, same
from method.test_scrub import SETTINGS, calling, shifted, walking

from unlearnbench.core.data import Batches
from unlearnbench.method import scrub_as_run as module
from unlearnbench.method.scrub import scrub
from unlearnbench.method.scrub_as_run import scrub_as_run


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    net = bench.run(scrub_as_run, bench.task, **SETTINGS, epochs=0, msteps=3)
    assert same(net.state_dict(), bench.original.state_dict())


def test_gives_the_last_epoch_where_the_start_is_nearest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    theta_O = bench.original
    last = shifted(theta_O)
    monkeypatch.setattr(module, "scrub_no_rewind", walking(calling(theta_O, 0), last))
    net = bench.run(scrub_as_run, bench.task, **SETTINGS, epochs=2, msteps=2)
    assert same(net.state_dict(), last)


def test_returns_to_an_epoch_between(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs that call all rows one class err alike, a start that is trained does not."""
    between, last = calling(bench.original, 0), calling(bench.original, 0)
    last["stem.0.weight"] += 1  # told apart by what a constant head does not see
    monkeypatch.setattr(module, "scrub_no_rewind", walking(between, last))
    net = bench.run(scrub_as_run, bench.task, **SETTINGS, epochs=2, msteps=2)
    assert same(net.state_dict(), between)


def test_but_for_the_start_it_is_scrub_on_ordered_forget_rows(bench: Bench) -> None:
    """From an untrained start, which is never the nearest."""
    settings = {**SETTINGS, "epochs": 5, "msteps": 2}
    ordered = replace(bench.task, forget=bench.task.forget.ordered())
    net = scrub_as_run(bench.fresh(), bench.task, **settings)
    assert same(net.state_dict(), scrub(bench.fresh(), ordered, **settings).state_dict())
    shuffled = scrub(bench.fresh(), bench.task, **settings)
    assert not same(net.state_dict(), shuffled.state_dict())


def test_forget_rows_are_not_shuffled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    walked, plain = [], Batches.epoch

    def watch(batches: Batches, first: int = 0) -> Iterator[Any]:
        for x, y in plain(batches, first):
            if batches.size == SETTINGS["batch_size"]["forget"]:
                walked.append(y)
            yield x, y

    monkeypatch.setattr(Batches, "epoch", watch)
    bench.run(scrub_as_run, bench.task, **SETTINGS, epochs=2, msteps=2)
    assert torch.equal(torch.cat(walked), bench.task.forget.y.repeat(2))
