"""SCRUB without rewinding between its limits: finetuning, and steps by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cells import compose
from method.bench import SGD, Bench, all_close, same
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.method import _ops as ops
from unlearnbench.method.scrub_no_rewind import scrub_no_rewind
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train.loop import descend

SIZES = {"retain": 64, "forget": 32}
SETTINGS: dict[str, Any] = {"sgd": SGD, "decay": 0.5, "temperature": 2.0, "batch_size": SIZES}
FACTORS = (1.0, 1.0, 0.5, 0.5, 0.125)  # of five epochs, counted from 1; the last passes two at once


def distance(s_BC: Tensor, t_BC: Tensor) -> Tensor:
    """T² Σ_y q(y) ln( q(y) / p(y) ) at T = 2, mean over rows."""
    p_BC, q_BC = (s_BC / 2).softmax(1), (t_BC / 2).softmax(1)
    return 4 * (q_BC * (q_BC / p_BC).log()).sum(1).mean()


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    settings = {**SETTINGS, "epochs": 0, "msteps": 3, "alpha": 0.5, "gamma": 1.0}
    net = bench.run(scrub_no_rewind, bench.task, **settings)
    assert same(net.state_dict(), bench.original.state_dict())


def test_without_teacher_and_max_steps_it_is_finetuning_with_step_decay(bench: Bench) -> None:
    """Bit-equal to one loop, batch-norm statistics too: momentum lives on between epochs."""
    settings = {**SETTINGS, "epochs": 5, "msteps": 0, "alpha": 0.0, "gamma": 1.0}
    net = bench.run(scrub_no_rewind, bench.task, **settings)
    retain, loss = bench.task.retain.batched(64), bench.task.loss
    other = bench.original
    descend(other, retain, loss, sgd=SGD, epochs=5, schedule=lambda e, _: FACTORS[e])
    assert same(net.state_dict(), other.state_dict())


def test_against_a_loop_by_hand(bench: Bench) -> None:
    settings = {**SETTINGS, "epochs": 5, "msteps": 2, "alpha": 0.5, "gamma": 0.7}
    net = bench.run(scrub_no_rewind, bench.task, **settings)
    other, t = bench.original.train(), bench.original.eval()
    optimizer = torch.optim.SGD(other.parameters(), **SGD)
    retain, forget = bench.task.retain.batched(64), bench.task.forget.batched(32)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for e, factor in enumerate(FACTORS, start=1):
        optimizer.param_groups[0]["lr"] = SGD["lr"] * factor
        for x, _ in forget if e <= 2 else ():
            step(-distance(other(x), t(x).detach()))
        for x, y in retain:
            s = other(x)
            step(0.7 * F.cross_entropy(s, y) + 0.5 * distance(s, t(x).detach()))
    all_close(net.state_dict(), other.state_dict())


def test_the_teacher_is_the_original_and_stays_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[nn.Module] = []
    frozen = ops.frozen

    def watch(model: nn.Module) -> nn.Module:
        teachers.append(frozen(model))
        return teachers[-1]

    monkeypatch.setattr(ops, "frozen", watch)
    settings = {**SETTINGS, "epochs": 2, "msteps": 1, "alpha": 0.5, "gamma": 1.0}
    net = bench.run(scrub_no_rewind, bench.task, **settings)
    (t,) = teachers
    assert same(t.state_dict(), bench.original.state_dict())
    places = [{tensor.data_ptr() for tensor in m.state_dict().values()} for m in (net, t)]
    assert not places[0] & places[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_max_steps_drive_the_student_away_on_forget_rows(workspace: Workspace, seed: int) -> None:
    """3.3, 3.8 and 3.9 times as far for these seeds."""
    bench = Bench(workspace, compose(f"seed={seed}"))
    fast = {**SETTINGS, "sgd": {**SGD, "lr": 0.03}}
    x, _ = next(iter(bench.task.forget.batched(1000)))
    away = []
    for msteps in (0, 3):
        settings = {**fast, "epochs": 3, "msteps": msteps, "alpha": 0.5, "gamma": 1.0}
        net = bench.run(scrub_no_rewind, bench.task, **settings)
        with torch.no_grad():
            away.append(float(distance(net(x), bench.original(x))))
    assert away[1] > 2 * away[0]


def test_regression_is_skipped(bench: Bench) -> None:
    """A posterior over one output is always 1: no student could differ from its teacher."""
    settings = {**SETTINGS, "epochs": 1, "msteps": 1, "alpha": 0.5, "gamma": 1.0}
    with pytest.raises(Skip, match="classes"):
        bench.run(scrub_no_rewind, replace(bench.task, n_classes=0), **settings)
