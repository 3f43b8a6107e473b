"""Amnesiac subtracts the sum of the logged steps, so that all of them give the start back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cells import Cells
from method.bench import SGD, Bench, all_close, close, same, weights
from torch import Tensor, nn

from unlearnbench.core.data import Batches
from unlearnbench.core.task import Task
from unlearnbench.method import amnesiac as module
from unlearnbench.method.amnesiac import amnesiac, prepare
from unlearnbench.pipeline import models
from unlearnbench.pipeline.rows import rows_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train import loop

SETTINGS: dict[str, Any] = {"sgd": SGD, "batch_size": 64, "reset_optimizer": False}
TRAINING: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


def forgetting(bench: Bench, rows: int) -> Task:
    """The task with only so many training rows to forget, or all of them."""
    task = bench.task
    return replace(task, forget=task.train.chosen(torch.arange(len(task.train.rows))[:rows]))


def watched(bench: Bench, task: Task) -> Task:
    return replace(task, prepared=prepare(bench.original, task))


def by_hand(bench: Bench, task: Task) -> tuple[dict[str, Tensor], nn.Module, torch.optim.SGD]:
    """Train as the original was, adding up the change of every batch with a forget row."""
    net, rows = bench.fresh().train(), list[Tensor]()

    @contextmanager
    def told(rows_B: Tensor) -> Iterator[None]:
        rows.append(rows_B)
        yield

    optimizer = torch.optim.SGD(net.parameters(), **TRAINING, fused=True)
    total = {name: torch.zeros_like(t) for name, t in net.state_dict().items()}
    for factor in (1.0, 0.5):
        optimizer.param_groups[0]["lr"] = 0.05 * factor
        for x, y in task.train.batched(64).watched(told):
            before = {name: t.clone() for name, t in net.state_dict().items()}
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            if set(rows[-1].tolist()) & set(task.forget.rows.tolist()):
                for name, t in net.state_dict().items():
                    total[name] += t - before[name]
    return total, net, optimizer


def test_all_steps_taken_back_give_the_initial_weights(bench: Bench) -> None:
    task = watched(bench, forgetting(bench, 10_000))
    net = bench.run(amnesiac, task, **SETTINGS, epochs=0, revert_buffers=True)
    start, end = bench.fresh().state_dict(), bench.original.state_dict()
    for name, tensor in net.state_dict().items():
        far = (tensor - start[name]).double().norm()
        assert far <= 1e-12 * end[name].double().norm()


def test_with_nothing_to_forget_it_is_the_identity(bench: Bench) -> None:
    told: dict[str, float] = {}
    task = replace(watched(bench, forgetting(bench, 0)), note=told.__setitem__)
    net = bench.run(amnesiac, task, **SETTINGS, epochs=0, revert_buffers=True)
    assert same(net.state_dict(), bench.original.state_dict())
    assert told == {"hit_share": 0.0}


def test_how_what_was_prepared_lies_in_memory_does_not_matter(bench: Bench) -> None:
    """The store gives it back contiguous, where image nets lie channels last."""
    held = watched(bench, forgetting(bench, 5)).prepared
    stored = {name: tensor.contiguous() for name, tensor in held.items()}
    assert any(held[name].stride() != stored[name].stride() for name in held)
    nets = [
        bench.run(
            amnesiac, replace(bench.task, prepared=one), **SETTINGS, epochs=1, revert_buffers=False
        )
        for one in (held, stored)
    ]
    assert same(nets[0].state_dict(), nets[1].state_dict())


def test_the_change_and_the_momentum_are_those_of_a_training_by_hand(bench: Bench) -> None:
    task = watched(bench, forgetting(bench, 5))
    total, net, optimizer = by_hand(bench, forgetting(bench, 5))
    assert same(net.state_dict(), bench.original.state_dict())
    for name, change in total.items():
        close(task.prepared[f"change.{name}"].double(), change.double())
    for name, p in net.named_parameters():
        momentum = optimizer.state[p]["momentum_buffer"]
        assert torch.equal(task.prepared[f"momentum.{name}"], momentum)
    assert 0 < task.prepared["hits"].sum() < len(task.prepared["hits"])
    after = bench.run(amnesiac, task, **SETTINGS, epochs=0, revert_buffers=False)
    assert same(dict(after.named_buffers()), dict(net.named_buffers()))
    all_close(weights(after), {name: p - total[name] for name, p in weights(net).items()})
    reverted = bench.run(amnesiac, task, **SETTINGS, epochs=0, revert_buffers=True)
    buffers = {name: b - total[name] for name, b in net.named_buffers()}
    all_close(dict(reverted.named_buffers()), buffers)


@pytest.mark.parametrize("dropped", [False, True])
def test_finetuning_goes_on_with_the_trainings_momentum_or_without(
    bench: Bench, dropped: bool
) -> None:
    task = watched(bench, forgetting(bench, 5))
    kept = {name: tensor.clone() for name, tensor in task.prepared.items()}
    settings = {**SETTINGS, "reset_optimizer": dropped, "revert_buffers": False}
    net = bench.run(amnesiac, task, **settings, epochs=1)
    assert same(dict(task.prepared), kept), "what was prepared is not the method's to change"
    task = forgetting(bench, 5)
    other = bench.run(
        amnesiac, replace(task, prepared=kept), **SETTINGS, epochs=0, revert_buffers=False
    )
    optimizer = loop.make_optimizer(other, SGD)
    if not dropped:
        for name, p in other.named_parameters():
            optimizer.state[p]["momentum_buffer"] = kept[f"momentum.{name}"]
    loop.descend(other, task.retain.batched(64), task.loss, sgd=optimizer, epochs=1)
    assert same(net.state_dict(), other.state_dict())


def test_the_share_of_batches_hit_is_that_of_draws_without_replacement(bench: Bench) -> None:
    """1 − Π_{k<b} (1 − m/(N−k)) for a batch of b, over a hundred walks that train nothing."""

    def walk(net: nn.Module, batches: Batches) -> nn.Module:
        for _ in range(100):
            for _ in batches.batched(64):
                pass
        return net

    m, told = 10, dict[str, float]()
    task = replace(forgetting(bench, m), fit=walk, note=told.__setitem__)
    task = replace(task, prepared=prepare(bench.fresh(), task))
    amnesiac(bench.fresh(), task, **SETTINGS, epochs=0, revert_buffers=False)
    N = len(task.train.rows)

    def hit(b: int) -> Tensor:
        return 1 - (1 - m / (N - torch.arange(b))).prod()

    sizes = task.train.batched(64).sizes
    assert told["hit_share"] == pytest.approx(float(sum(map(hit, sizes))) / len(sizes), abs=0.02)


def test_a_training_that_gives_another_net_is_refused(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="does not give the original"):
        prepare(bench.fresh(), bench.task)


def test_prepared_once_for_all_settings_and_told_in_the_rows(
    new_workspace: Workspace, cell: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[dict[str, Tensor]] = []

    def counted(model: nn.Module, task: Task) -> dict[str, Tensor]:
        left.append(prepare(model, task))
        return left[-1]

    monkeypatch.setattr(module, "prepare", counted)
    words = ["method=amnesiac", "model=mlp", "train.call.epochs=1"]
    cells = [cell(*words, f"method.call.epochs={epochs}") for epochs in (0, 1)]
    found = [rows_of(new_workspace, one) for one in cells]
    assert [one.error for one in found] == [None, None]
    assert len(left) == 1
    assert cells[0].model_key != cells[1].model_key
    told = {row["metric"]: row["value"] for row in found[1].rows}
    assert told["prepared_bytes"] == sum(t.nbytes for t in left[0].values())
    assert told["hit_share"] == pytest.approx(float(left[0]["hits"].float().mean()))
    assert same(models.prepared(new_workspace, cells[0]), left[0])
