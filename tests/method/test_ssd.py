"""SSD against importances taken row by row, and the two limits in which it does nothing."""

from dataclasses import replace

import pytest
import torch
from method.bench import TOLERANCE, Bench, close, same, weights
from torch import Tensor

from unlearnbench.core.task import Task
from unlearnbench.method.ssd import ssd


def small(bench: Bench) -> Task:
    """Few enough rows for one backward pass each."""
    task, few = bench.task, torch.arange(40)
    return replace(task, forget=task.forget.chosen(few[:20]), retain=task.retain.chosen(few))


def importances(bench: Bench, task: Task) -> tuple[list[Tensor], list[Tensor]]:
    """I_F and I_D: means of squared gradients of single rows in eval mode."""
    net = bench.original.eval()

    def sums(rows: Tensor) -> list[Tensor]:
        total = [torch.zeros_like(p) for p in net.parameters()]
        for row in rows:
            loss = task.loss(net, bench.data.inputs(row[None]), bench.data.y[row[None]])
            for t, g in zip(total, torch.autograd.grad(loss, list(net.parameters())), strict=True):
                t += g**2
        return total

    F, R = (sums(part.rows) for part in (task.forget, task.retain))
    n_F, n = len(task.forget.rows), len(task.forget.rows) + len(task.retain.rows)
    return [f / n_F for f in F], [(f + r) / n for f, r in zip(F, R, strict=True)]


@pytest.mark.parametrize(("alpha", "lambda_"), [(1.5, 1.0), (1.0, 0.3)])
def test_dampens_by_the_formula_and_leaves_the_rest_to_the_bit(
    bench: Bench, alpha: float, lambda_: float
) -> None:
    task = small(bench)
    net = bench.run(ssd, task, alpha=alpha, lambda_=lambda_)
    changed, every = 0, 0
    pairs = zip(*importances(bench, task), weights(bench.original).items(), strict=True)
    for I_F, I_D, (name, theta) in pairs:
        chosen, after = alpha * I_D < I_F, weights(net)[name]
        near = ((I_F / (alpha * I_D)) - 1).abs() < TOLERANCE  # rounding may decide otherwise
        expected = torch.where(chosen, (lambda_ * I_D / I_F).clamp(max=1) * theta, theta)
        close(after[~near], expected[~near])
        assert torch.equal(after[~chosen & ~near], theta[~chosen & ~near])
        changed += int((after != theta).sum())
        every += theta.numel()
    assert 0.01 < changed / every < 0.9
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))


def test_a_large_alpha_is_the_identity(bench: Bench) -> None:
    """I_F / I_D is never above n / n_F: at 4 for three rows in four to retain nothing is left."""
    task = small(bench)
    n_F, n = len(task.forget.rows), len(task.forget.rows) + len(task.retain.rows)
    net = bench.run(ssd, task, alpha=1.01 * n / n_F, lambda_=0.1)
    assert same(net.state_dict(), bench.original.state_dict())


def test_a_lambda_of_the_largest_ratio_is_the_identity(bench: Bench) -> None:
    task = small(bench)
    ratios = [f / d for f, d in zip(*importances(bench, task), strict=True)]
    largest = max(float(r.nan_to_num(0).max()) for r in ratios)
    net = bench.run(ssd, task, alpha=0.0, lambda_=1.01 * largest)
    assert same(net.state_dict(), bench.original.state_dict())
    less = bench.run(ssd, task, alpha=0.0, lambda_=0.9 * largest)
    assert not same(less.state_dict(), bench.original.state_dict())
