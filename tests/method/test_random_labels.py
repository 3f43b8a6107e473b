"""Random labels: with nothing to relabel it is plain training; labels are drawn anew each epoch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, same

from unlearnbench.core.data import Batches
from unlearnbench.core.errors import Skip
from unlearnbench.method import random_labels as module
from unlearnbench.method.random_labels import random_labels
from unlearnbench.train.loop import descend

SETTINGS: dict[str, Any] = {"sgd": SGD, "epochs": 3, "batch_size": 64}


def empty(part: Batches) -> Batches:
    return replace(part, rows=part.rows[:0], y=part.y[:0])


def test_with_nothing_to_forget_it_is_training_on_the_retain_rows(bench: Bench) -> None:
    """Bit-equal to one loop: momentum lives on between its epochs."""
    task = bench.task
    net = bench.run(random_labels, replace(task, forget=empty(task.forget)), **SETTINGS)
    task = bench.task
    other = descend(bench.original, task.retain.batched(64), task.loss, sgd=SGD, epochs=3)
    assert same(net.state_dict(), other.state_dict())


def test_labels_are_uniform_and_new_each_epoch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def watch(model: Any, batches: Batches, *_: Any, **__: Any) -> Any:
        drawn.append(batches.y[-len(bench.parts.forget) :].clone())
        assert torch.equal(batches.y[: -len(drawn[-1])], bench.task.retain.y)
        return model

    monkeypatch.setattr(module, "descend", watch)
    bench.run(random_labels, bench.task, **{**SETTINGS, "epochs": 40})
    assert len({tuple(labels.tolist()) for labels in drawn}) == 40
    counts = torch.cat(drawn).bincount(minlength=10)
    expected = 40 * len(bench.parts.forget) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # χ²₉ at p = 0.001


def test_lowers_the_true_labels_confidence(bench: Bench) -> None:
    task = bench.task
    net = bench.run(random_labels, task, **SETTINGS)
    x, y = next(iter(task.forget.batched(1000)))
    with torch.no_grad():
        before, after = (
            model(x).softmax(1).gather(1, y[:, None]).mean() for model in (bench.original, net)
        )
    assert after < before - 0.05


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        bench.run(random_labels, replace(bench.task, n_classes=0), **SETTINGS)
