"""Influence: the step solves the damped system of the Fisher matrix over the retain rows."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import compose
from method.bench import TOLERANCE, Bench, same, weights
from torch import Tensor, nn

from unlearnbench.core.data import Batches
from unlearnbench.method.influence import influence

SETTINGS: dict[str, Any] = {"damping": 0.1, "iterations": 500, "residual": 1e-12, "rows": 10**6}


@pytest.fixture(scope="module")
def linear(bench: Bench) -> Bench:
    """Logistic regression: its gradients and its Fisher matrix are written down in a line."""
    return Bench(bench.workspace, compose("model=logreg"))


def matrix(net: nn.Module) -> Tensor:
    """Weights and biases (C, F + 1)."""
    W, b = weights(net).values()
    return torch.cat([W, b[:, None]], 1).double()


def terms(net: nn.Module, part: Batches) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs with a one (n, F + 1), posteriors (n, C), mean gradient (C, F + 1)."""
    ((x, y),) = part.batched(len(part.rows))
    x = torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1).double()
    p = (x @ matrix(net).T).softmax(1)
    return x, p, (p - torch.eye(10)[y]).T @ x / len(x)


def pull(bench: Bench) -> Tensor:
    """n_F/n · (g_F − g_R)."""
    task = bench.task
    (_, _, g_F), (_, _, g_R) = (terms(bench.original, part) for part in (task.forget, task.retain))
    n_F, n_R = len(task.forget.rows), len(task.retain.rows)
    return n_F / (n_F + n_R) * (g_F - g_R)


def test_no_step_is_the_identity(bench: Bench) -> None:
    few = {**SETTINGS, "iterations": 2, "rows": 50}
    net = bench.run(influence, bench.task, **few, alpha=0.0)
    assert same(net.state_dict(), bench.original.state_dict())
    net = bench.run(influence, bench.task, **few, alpha=1.0)
    assert not same(weights(net), weights(bench.original))
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_against_a_dense_solve(linear: Bench, alpha: float) -> None:
    """F = mean_i (diag p − p pᵀ) ⊗ x xᵀ."""
    x, p, _ = terms(linear.original, linear.task.retain)
    H = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    F = torch.einsum("ncd,nij->cidj", H, x[:, :, None] * x[:, None]).reshape(650, 650) / len(x)
    system = F + SETTINGS["damping"] * torch.eye(650).double()
    k = torch.linalg.solve(system, pull(linear).flatten()).reshape(10, 65)
    net = linear.run(influence, linear.task, **SETTINGS, alpha=alpha)
    step = matrix(net) - matrix(linear.original)
    assert (step - alpha * k).norm() < TOLERANCE * alpha * k.norm()


def test_so_many_rows_enter_the_matrix(linear: Bench) -> None:
    """Fk = v − δk is a sum over the rows of matrices u xᵀ: its rank counts them."""
    damping, rows = SETTINGS["damping"], 3
    net = linear.run(influence, linear.task, **{**SETTINGS, "rows": rows}, alpha=1000.0)
    F_k = pull(linear) - damping * (matrix(net) - matrix(linear.original)) / 1000
    s, directions = torch.linalg.svd(F_k)[1:]
    assert s[rows - 1] > 1e-2 * s[0]
    assert s[rows] < TOLERANCE * s[0]
    x, _, _ = terms(linear.original, linear.task.retain)
    inside = (x @ directions[:rows].T).norm(dim=1) / x.norm(dim=1)
    assert (inside > 0.9999).sum() == rows  # and they are retain rows


def test_regression_against_a_dense_solve(bench: Bench) -> None:
    """Squared error: F = mean_i 2 x xᵀ, ∇ = mean_i 2 (z − y) x."""
    linear = Bench(bench.workspace, compose("dataset=diabetes", "model=logreg"))
    task, theta, sides = linear.task, matrix(linear.original), []
    for part in (task.forget, task.retain):
        ((x, y),) = part.batched(len(part.rows))
        x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        sides.append((x, 2 * (x @ theta.T - y[:, None]).T @ x / len(x)))
    (x_F, g_F), (x_R, g_R) = sides
    v = len(x_F) / (len(x_F) + len(x_R)) * (g_F - g_R)
    F = 2 * x_R.T @ x_R / len(x_R)
    k = torch.linalg.solve(F + SETTINGS["damping"] * torch.eye(len(F)).double(), v[0])
    net = linear.run(influence, task, **SETTINGS, alpha=1.0)
    assert (matrix(net) - theta - k).norm() < TOLERANCE * k.norm()


@pytest.mark.tried(
    "an influence step whose solver stops at its limit of iterations, with no word of it",
    "the row has converged = 0",
)
@pytest.mark.parametrize(("iterations", "converged"), [(1, 0.0), (500, 1.0)])
def test_whether_the_solver_converged_is_noted(
    linear: Bench, iterations: int, converged: float
) -> None:
    noted: dict[str, float] = {}
    task = replace(linear.task, note=noted.__setitem__)
    linear.run(influence, task, **{**SETTINGS, "iterations": iterations, "residual": 1e-3}, alpha=1)
    assert noted == {"converged": converged}
