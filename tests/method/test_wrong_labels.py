"""Wrong labels: each forget row keeps one label that is not its own."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, same
from torch import Tensor

from unlearnbench.core.data import Batches
from unlearnbench.core.errors import Skip
from unlearnbench.method import wrong_labels as module
from unlearnbench.method.wrong_labels import wrong_labels
from unlearnbench.train.loop import descend

SETTINGS: dict[str, Any] = {"sgd": SGD, "epochs": 3, "batch_size": 64}


def taught(bench: Bench, monkeypatch: pytest.MonkeyPatch, rows: Tensor) -> Tensor:
    """The labels under which some training rows are taught."""
    seen: list[Tensor] = []

    def watch(model: Any, batches: Batches, *_: Any, **__: Any) -> Any:
        seen.append(batches.y[-len(rows) :].clone())
        assert torch.equal(batches.y[: -len(rows)], bench.task.retain.y)
        return model

    monkeypatch.setattr(module, "descend", watch)
    task = bench.task
    bench.run(wrong_labels, replace(task, forget=task.train.chosen(rows)), **SETTINGS)
    (labels,) = seen
    return labels


def test_no_label_is_the_true_one_and_all_others_are_as_likely(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = bench.task.train.y
    labels = taught(bench, monkeypatch, torch.arange(len(y)))
    off = (labels - y) % 10
    counts = off.bincount(minlength=10)
    assert counts[0] == 0
    expected = len(y) / 9
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 26.1  # χ²₈ at p = 0.001


def test_of_a_class_no_row_is_taught_as_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (bench.task.train.y == 3).nonzero().flatten()
    labels = taught(bench, monkeypatch, rows)
    assert set(labels.tolist()) == set(range(10)) - {3}


def test_with_nothing_to_forget_it_is_training_on_the_retain_rows(bench: Bench) -> None:
    task = bench.task
    none = replace(task.forget, rows=task.forget.rows[:0], y=task.forget.y[:0])
    net = bench.run(wrong_labels, replace(task, forget=none), **SETTINGS)
    other = descend(bench.original, bench.task.retain.batched(64), task.loss, sgd=SGD, epochs=3)
    assert same(net.state_dict(), other.state_dict())


def test_of_two_classes_it_is_the_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(module, "descend", lambda model, batches, *_, **__: seen.append(batches.y))
    task = replace(bench.task, n_classes=2)
    forget = task.forget.relabelled(task.forget.y % 2)
    bench.run(wrong_labels, replace(task, forget=forget), **SETTINGS)
    assert torch.equal(seen[0][-len(forget.y) :], 1 - forget.y)


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        bench.run(wrong_labels, replace(bench.task, n_classes=0), **SETTINGS)
