"""KDE resets the two ends of the net, and never looks at a validation row."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from method.bench import SGD, TOLERANCE, Bench, close, same
from torch import nn

from unlearnbench.core.data import Batches, Loss
from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import kde as module
from unlearnbench.method.kde import kde
from unlearnbench.train import loop

SETTINGS: dict[str, Any] = {"sgd": SGD, "retain_sgd": SGD, "batch_size": 64, "temperature": 5.0}
ENDS = {"stem.0.weight", "head.2.weight", "head.2.bias"}


def poisoned(task: Task) -> Task:
    """The same task, but what looks at its validation rows gets NaN."""
    data = replace(task.val.data, mean=torch.tensor([float("nan")]))
    return replace(task, val=replace(task.val, data=data))


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Batches, Loss, dict[str, Any]]]:
    """What is walked over, down which loss and how."""
    seen: list[tuple[Batches, Loss, dict[str, Any]]] = []

    def watched(model: nn.Module, batches: Batches, loss: Loss, **how: Any) -> nn.Module:
        seen.append((batches, loss, how))
        return loop.descend(model, batches, loss, **how)

    monkeypatch.setattr(module, "descend", watched)
    return seen


def test_without_epochs_it_resets_the_two_ends_and_nothing_else(bench: Bench) -> None:
    net = bench.run(kde, bench.task, **SETTINGS, epochs=0, retain_epochs=0)
    before = bench.original.state_dict()
    assert {name for name, t in net.state_dict().items() if not t.equal(before[name])} == ENDS


def test_a_validation_row_has_no_say(bench: Bench) -> None:
    one, other = (
        bench.run(kde, task, **SETTINGS, epochs=1, retain_epochs=1)
        for task in (bench.task, poisoned(bench.task))
    )
    assert same(one.state_dict(), other.state_dict())


def test_warms_up_on_as_many_retain_rows_as_there_are_validation_rows(
    bench: Bench, walks: list[tuple[Batches, Loss, dict[str, Any]]]
) -> None:
    bench.run(kde, bench.task, **SETTINGS, epochs=1, retain_epochs=2)
    (warm_up, _, first), (retain, _, second) = walks
    assert len(warm_up.rows.unique()) == len(warm_up.rows) == len(bench.parts.val)
    assert torch.isin(warm_up.rows, bench.parts.retain).all()
    assert torch.equal(retain.rows, bench.parts.retain)
    assert (first["epochs"], first.get("schedule", loop.constant)) == (1, loop.constant)
    assert (second["epochs"], second["schedule"]) == (2, loop.cosine)


def test_losses_by_hand_with_a_teacher_that_stays(
    bench: Bench, walks: list[tuple[Batches, Loss, dict[str, Any]]]
) -> None:
    """The teacher is θ_O to the end: nothing is left to distil to a copy of it."""
    task = bench.task
    s = bench.run(kde, task, **SETTINGS, epochs=1, retain_epochs=1)
    (_, distil, _), (_, learn, _) = walks
    x, y = next(iter(task.retain.batched(64)))
    with torch.no_grad():
        t_x, s_x = bench.original(x), s(x)
        p, log_q = (t_x / 5).softmax(1), (s_x / 5).log_softmax(1)
        H, KL = -(p * log_q).sum() / 64, (p * (p.log() - log_q)).sum() / 64
        close(distil(s, x, y), KL)
        close(learn(s, x, y), H + F.cross_entropy(s_x, y) + KL)
        assert float(distil(bench.original, x, y)) == pytest.approx(0, abs=TOLERANCE)
        assert KL > 1e-3


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="regression"):
        bench.run(kde, replace(bench.task, n_classes=0), **SETTINGS, epochs=1, retain_epochs=1)
