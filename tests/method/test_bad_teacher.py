"""BT: a student between two teachers, neither of which moves."""

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from method.bench import Bench, close, same, weights
from torch import Tensor, nn

from unlearnbench.core.data import Batches, Loss
from unlearnbench.core.errors import Skip
from unlearnbench.method import _ops as ops
from unlearnbench.method import bad_teacher as module
from unlearnbench.method.bad_teacher import bad_teacher

ADAM = {"lr": 1e-3, "weight_decay": 0.01}
SETTINGS: dict[str, Any] = {"adam": ADAM, "batch_size": 64, "temperature": 2.0}


def posterior(logits_BC: Tensor, temperature: float) -> Tensor:
    p_BC = (logits_BC / temperature).exp()
    return p_BC / p_BC.sum(1, keepdim=True)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The teachers a method will make, in order."""
    teachers: list[nn.Module] = []
    frozen = ops.frozen

    def watch(model: nn.Module) -> nn.Module:
        teachers.append(frozen(model))
        return teachers[-1]

    monkeypatch.setattr(ops, "frozen", watch)
    return teachers


def losses(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Loss]:
    """What a method would descend on; it does not."""
    given: list[Loss] = []

    def watch(model: nn.Module, batches: Batches, loss: Loss, **_: Any) -> nn.Module:
        given.append(loss)
        return model

    monkeypatch.setattr(module, "descend", watch)
    return given


def divergences(teachers: Sequence[nn.Module], net: nn.Module, x: Tensor, bad_B: Tensor) -> Tensor:
    """q(y) ln( q(y) / p(y) ) for each row and class (B, C), at T = 2."""
    with torch.no_grad():
        q, q_bad = (posterior(teacher(x), 2.0) for teacher in teachers)
    q[bad_B] = q_bad[bad_B]
    return q * (q / posterior(net(x), 2.0)).log()


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    net = bench.run(bad_teacher, bench.task, **SETTINGS, epochs=0)
    assert same(net.state_dict(), bench.original.state_dict())


def test_the_loss_by_hand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers, given = watched(monkeypatch), losses(monkeypatch, module)
    bench.run(bad_teacher, bench.task, **SETTINGS, epochs=1)
    x, net = bench.data.inputs(bench.task.retain.rows[:20]), bench.fresh().eval()
    is_forget = torch.arange(20) % 3 == 0
    expected = divergences(teachers, net, x, is_forget).sum(1).mean()
    close(given[0](net, x, is_forget), expected)


def test_a_step_by_hand(bench: Bench) -> None:
    """Adam's first, on all rows at once; where g is no rounding error, for its size has no say.

    A rounding of g of 1e-15 changes g / (|g| + 1e-8) by 1e-9 at most where |g| is above 1e-7.
    """
    net = bench.run(bad_teacher, bench.task, **{**SETTINGS, "batch_size": 2000}, epochs=1)
    task, other = bench.task, bench.original.train()
    teachers = bench.original.eval(), task.fresh("teacher").eval()
    rows = torch.cat([task.retain.rows, task.forget.rows])
    is_forget = torch.arange(len(rows)) >= len(task.retain.rows)
    loss = divergences(teachers, other, bench.data.inputs(rows), is_forget).sum(1).mean()
    slopes = torch.autograd.grad(loss, list(other.parameters()))
    for p, before, slope in zip(net.parameters(), other.parameters(), slopes, strict=True):
        g = slope + ADAM["weight_decay"] * before
        expected = before - ADAM["lr"] * g / (g.abs() + 1e-8)
        clear = g.abs() > 1e-7
        assert clear.float().mean() > 0.98
        close(p[clear], expected[clear])


def test_teachers_are_the_original_and_another_draw_and_stay_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = watched(monkeypatch)
    net = bench.run(bad_teacher, bench.task, **SETTINGS, epochs=1)
    t, t_bad = teachers
    assert same(t.state_dict(), bench.original.state_dict())
    assert same(t_bad.state_dict(), bench.task.fresh("teacher").state_dict())
    assert not same(weights(t_bad), weights(bench.fresh()))
    places = {tensor.data_ptr() for tensor in net.state_dict().values()}
    for teacher in teachers:
        assert not places & {tensor.data_ptr() for tensor in teacher.state_dict().values()}


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        bench.run(bad_teacher, replace(bench.task, n_classes=0), **SETTINGS, epochs=1)
