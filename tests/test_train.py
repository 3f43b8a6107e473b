"""The loop: its knobs, one by one, against loops by hand."""

import math
import os
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cells import compose, composed
from method.bench import SGD, Bench, same
from torch import nn

from unlearnbench.core.data import Compute
from unlearnbench.pipeline import inputs
from unlearnbench.pipeline.inputs import dataset
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train import loop


@pytest.fixture(scope="module")
def bench(workspace: Workspace) -> Bench:
    return Bench(workspace, compose())


def test_is_bit_equal_to_the_plain_loop(bench: Bench) -> None:
    net = loop.descend(
        bench.original, bench.task.retain.batched(64), bench.task.loss, sgd=SGD, epochs=2
    )
    other = bench.original.train()
    optimizer = torch.optim.SGD(other.parameters(), **SGD, fused=True)
    batches = bench.task.retain.batched(64)
    for _ in range(2):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(other(x), y).backward()
            optimizer.step()
    assert same(net.state_dict(), other.state_dict())
    assert not net.training


def test_cosine_never_reaches_zero() -> None:
    factors = [loop.cosine(e, 4) for e in range(4)]
    assert factors == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_step_decay_counts_the_thresholds_that_are_over() -> None:
    """Of ten epochs from 0: once after the fifth, again after the eighth and the ninth."""
    schedule = loop.step_decay(0.1)
    powers = [round(-math.log10(schedule(e, 10))) for e in range(11)]
    assert powers == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3]
    assert [loop.step_decay(0.5)(e, 3) for e in range(4)] == [1.0, 1.0, 0.5, 0.125]


def test_one_epoch_of_a_longer_schedule() -> None:
    assert loop.at(loop.cosine, 2, 4)(0, 1) == pytest.approx(0.5)


def test_a_live_walk_epoch_by_epoch_is_the_whole_schedule(bench: Bench) -> None:
    task = bench.task
    once = loop.descend(
        bench.original, task.retain.batched(64), task.loss, sgd=SGD, epochs=3, schedule=loop.cosine
    )
    net, retain = bench.original, bench.task.retain.batched(64)
    optimizer = loop.make_optimizer(net, SGD)
    for e in range(3):
        rate = loop.at(loop.cosine, e, 3)
        loop.descend(net, retain, task.loss, sgd=optimizer, epochs=1, schedule=rate)
    assert same(once.state_dict(), net.state_dict())


def test_a_step_schedule_counts_the_steps_of_all_epochs(bench: Bench) -> None:
    net, asked, seen = bench.original, list[tuple[int, int]](), list[float]()
    optimizer = loop.make_optimizer(net, SGD)

    def falling(step: int, steps: int) -> float:
        asked.append((step, steps))
        return 1 - step / steps

    loop.descend(
        net,
        bench.task.forget.batched(50),
        bench.task.loss,
        sgd=optimizer,
        epochs=2,
        schedule=loop.cosine,
        step_schedule=falling,
        grad_hook=lambda _: seen.append(optimizer.param_groups[0]["lr"]),
    )
    assert asked == [(step, 6) for step in range(6)]
    epochs = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert seen == pytest.approx([SGD["lr"] * e * (1 - s / 6) for s, e in enumerate(epochs)])
    assert optimizer.param_groups[0]["lr"] == SGD["lr"]


def test_schedule_sets_the_rate_of_each_epoch_and_puts_it_back(bench: Bench) -> None:
    net = bench.original
    optimizer = loop.make_optimizer(net, SGD)
    seen = []
    loop.descend(
        net,
        bench.task.forget.batched(1000),
        bench.task.loss,
        sgd=optimizer,
        epochs=3,
        schedule=loop.cosine,
        grad_hook=lambda _: seen.append(optimizer.param_groups[0]["lr"]),
    )
    assert seen == pytest.approx([SGD["lr"] * f for f in (1.0, 0.75, 0.25)])
    assert optimizer.param_groups[0]["lr"] == SGD["lr"]


def test_a_live_optimizer_keeps_its_momentum(bench: Bench) -> None:
    once = loop.descend(
        bench.original, bench.task.retain.batched(64), bench.task.loss, sgd=SGD, epochs=2
    )
    nets = []
    for live in (True, False):
        net = bench.original
        batches, optimizer = bench.task.retain.batched(64), loop.make_optimizer(net, SGD)
        for _ in range(2):
            given = optimizer if live else SGD
            loop.descend(net, batches, bench.task.loss, sgd=given, epochs=1)
        nets.append(net)
    assert same(once.state_dict(), nets[0].state_dict())
    assert not same(once.state_dict(), nets[1].state_dict())


def test_edit_changes_gradients(bench: Bench) -> None:
    def none(net: nn.Module) -> None:
        for p in net.parameters():
            assert p.grad is not None
            p.grad.zero_()

    plain = {**SGD, "weight_decay": 0.0}
    start = bench.original
    net = loop.descend(
        deepcopy(start),
        bench.task.retain.batched(64),
        bench.task.loss,
        sgd=plain,
        epochs=1,
        grad_hook=none,
    )
    assert same(dict(net.named_parameters()), dict(start.named_parameters()))


def test_eval_mode_leaves_running_statistics(bench: Bench) -> None:
    start = bench.original
    for training in (True, False):
        net = loop.descend(
            deepcopy(start),
            bench.task.retain.batched(64),
            bench.task.loss,
            sgd=SGD,
            epochs=1,
            training=training,
        )
        assert same(dict(net.named_buffers()), dict(start.named_buffers())) != training


def test_bf16_trains_and_predicts_in_float32(workspace: Workspace) -> None:
    bench = Bench(workspace, compose(), precision="32-true")
    task = bench.task
    batches = replace(task.retain.batched(64), compute=Compute("cpu", "bf16-mixed"))
    net = loop.descend(bench.original, batches, task.loss, sgd=SGD, epochs=1)
    full = loop.descend(bench.original, task.retain.batched(64), task.loss, sgd=SGD, epochs=1)
    assert not same(net.state_dict(), full.state_dict())
    assert all(p.dtype == torch.float32 for p in net.parameters())
    rows = bench.parts.val
    found = loop.logits(net, bench.task.val)
    with torch.no_grad():
        torch.testing.assert_close(found, net(bench.data.inputs(rows)))


def test_logits_are_rows_in_their_order_whatever_the_batches(bench: Bench) -> None:
    rows = bench.parts.val.flip(0)
    batches = replace(bench.task.val, rows=rows, y=bench.data.y[rows])
    one, other = (loop.logits(bench.original, batches.batched(size)) for size in (7, 1000))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, loop.logits(bench.original, bench.task.val).flip(0))
    assert one.shape == (len(rows), 10)


def test_squared_error_is_of_one_output(bench: Bench) -> None:
    net = nn.Linear(3, 1)
    x, y = torch.randn(5, 3), torch.randn(5)
    with torch.no_grad():
        expected = ((net(x)[:, 0] - y) ** 2).mean()
        assert loop.squared_error(net, x, y) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    "told",
    [{}, {"SLURM_NTASKS": "2"}],
    ids=["no job", "a job of two tasks"],
)
def test_slurm_is_none_of_its_business(
    bench: Bench, told: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning asks for srun where there is one, and takes a job's tasks for processes of its."""
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    loop._fabric.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.descend(bench.original, bench.task.forget, bench.task.loss, sgd=SGD, epochs=1)


@pytest.mark.tried(
    "training on 5 · 64 + 1 rows, with batch norm", "as accurate as on 5 · 64: was 18 % of 97 %"
)
@pytest.mark.parametrize("rows", [320, 321])
def test_a_row_left_over_does_not_wreck_a_training(rows: int) -> None:
    """Measured without the merging: 0.18, 0.14 and 0.15 for seeds 0 to 2; with it .97 and more."""
    cell = composed("train.call.epochs=20", "attack=none")
    data = dataset(cell)
    parts = split_of(cell, data)
    few = replace(parts, train=parts.train[:rows], forget=parts.forget[:0])
    task = inputs.task(cell, data, few)
    net = task.fit(inputs.fresh(cell, data), task.train)
    logits_NC = loop.logits(net, inputs.batches(cell, data, parts.test, "test"))
    assert (logits_NC.argmax(1) == data.y[parts.test]).float().mean() > 0.9
