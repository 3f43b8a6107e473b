"""Identities of the optima, against dense solves written out here."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import Tensor

from unlearnbench.convex import deletion, newton
from unlearnbench.convex.features import median_gamma, rff
from unlearnbench.convex.objective import Array, Objective

N, WIDTH, CLASSES = 60, 6, 3
LOSSES = {
    "squared": lambda f, t: ((f - t) ** 2).sum() / 2,
    "softmax": lambda f, t: F.cross_entropy(f, t, reduction="sum"),
    "squared_hinge": lambda f, t: ((1 - t * f).clamp_min(0) ** 2).sum(),
}


def data(n: int = N, seed: int = 0) -> tuple[Array, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.integers(CLASSES, size=n)
    return random.normal(size=(n, WIDTH)) + 0.8 * np.eye(CLASSES, WIDTH)[y], y


def dense_optimum(loss: str, x: Array, t: Array, lam: Array) -> tuple[Array, Array]:
    """Full Newton steps with a Hessian by automatic differentiation; θ and that Hessian."""
    inputs, targets, penalty = (torch.from_numpy(np.ascontiguousarray(a)) for a in (x, t, lam))

    def height(theta: Tensor) -> Tensor:
        theta = theta.reshape(x.shape[1], t.shape[1])
        return LOSSES[loss](inputs @ theta, targets) + (penalty * theta**2).sum() / 2

    theta = torch.zeros(x.shape[1] * t.shape[1], dtype=torch.float64)
    for _ in range(60):
        slope = torch.func.grad(height)(theta)
        hessian = torch.func.hessian(height)(theta)
        # Least norm: with a free intercept, adding a number to all classes changes no loss.
        step = torch.from_numpy(np.linalg.lstsq(hessian.numpy(), slope.numpy(), rcond=1e-10)[0])
        size = 1.0
        while height(theta - size * step) > height(theta) + 1e-12 and size > 1e-6:
            size /= 2
        theta = theta - size * step
        if abs(step).max() < 1e-12:
            break
    return theta.reshape(x.shape[1], -1).numpy(), hessian.numpy()


@pytest.mark.parametrize("lam", [1e-3, 1.0, 100.0])
def test_the_three_identities_of_ridge_regression(lam: float) -> None:
    x, y = data()
    objective = Objective("squared", lam, "penalised", "sum")
    x, t = objective.features(x), objective.targets(y, CLASSES)
    found = deletion.delete(objective, x, t, np.arange(N))
    before = found.theta_PC
    c = x.T @ x + lam * np.eye(WIDTH + 1)
    for row, delta in zip(found.rows_K, found.delta_KPC, strict=True):
        with_it, without = t[row] - x[row] @ before, t[row] - x[row] @ (before + delta)
        assert_allclose(c @ -delta, np.outer(x[row], without), atol=1e-9)
        less = c - np.outer(x[row], x[row])
        assert_allclose(less @ -delta, np.outer(x[row], with_it), atol=1e-9)
        leverage = x[row] @ np.linalg.solve(c, x[row])
        assert_allclose(without, with_it / (1 - leverage), atol=1e-9)
        s = np.linalg.svd(delta, compute_uv=False)
        assert s[1] < 1e-12 * s[0], "rank one"


@pytest.mark.parametrize("form", ["sum", "mean"])
@pytest.mark.parametrize("intercept", ["penalised", "free", "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_deletions_are_full_retrainings(loss: str, intercept: str, form: str) -> None:
    x, y = data()
    lam = 0.5 / N if form == "mean" else 0.5
    objective = Objective(loss, lam, intercept, form)
    x, t = objective.features(x), objective.targets(y, CLASSES)
    found = deletion.delete(objective, x, t, np.array([0, 7, 31]))
    assert found.n == N
    assert found.residual <= 1e-8
    assert (found.residual_K <= 1e-8).all()
    penalty = np.full((x.shape[1], 1), 0.5)
    if intercept == "free":
        penalty[-1] = 0
    expected, _ = dense_optimum(loss, x, t, penalty)
    assert_allclose(found.theta_PC, expected, atol=1e-8)
    assert_allclose(deletion.fit(objective, x, t), expected, atol=1e-8)
    for row, delta in zip(found.rows_K, found.delta_KPC, strict=True):
        rest = np.arange(N) != row
        share = (N - 1) / N if form == "mean" else 1
        expected, _ = dense_optimum(loss, x[rest], t[rest], penalty * share)
        assert_allclose(found.theta_PC + delta, expected, atol=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_hessian_products_are_those_of_the_dense_hessian(loss: str) -> None:
    x, y = data(30)
    objective = Objective(loss, 0.3, "penalised", "sum")
    x, t = objective.features(x), objective.targets(y, CLASSES)
    theta, hessian = dense_optimum(loss, x, t, np.full((WIDTH + 1, 1), 0.3))
    v = np.random.default_rng(1).normal(size=(4, WIDTH + 1, CLASSES))
    dense = (hessian @ v.reshape(4, -1).T).T.reshape(v.shape)
    assert_allclose(objective.hessian_product(theta, x, t, v) + 0.3 * v, dense, atol=1e-9)
    one_by_one = [objective.hessian_product(theta, x, t, one[None])[0] for one in v]
    assert_allclose(objective.hessian_product(theta, x, t, v), one_by_one, atol=1e-12)
    solve = newton.hessian_inverse(objective, x, t, np.full((WIDTH + 1, 1), 0.3), theta)
    assert_allclose(np.moveaxis(solve(np.moveaxis(dense, 0, 2)), 2, 0), v, atol=1e-9)


def test_deletions_do_not_depend_on_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data()
    objective = Objective("softmax", 0.5, "penalised", "sum")
    x, t = objective.features(x), objective.targets(y, CLASSES)
    together = deletion.delete(objective, x, t, np.arange(10))
    monkeypatch.setattr("unlearnbench.convex.objective.AT_ONCE", 3 * t.size)
    in_parts = deletion.delete(objective, x, t, np.arange(10))
    assert_allclose(together.delta_KPC, in_parts.delta_KPC, atol=1e-12)


@pytest.mark.parametrize("form", ["sum", "mean"])
@pytest.mark.parametrize("intercept", ["penalised", "free", "none"])
def test_deletions_without_the_hessian_are_those_with_it(
    monkeypatch: pytest.MonkeyPatch, intercept: str, form: str
) -> None:
    x, y = data()
    objective = Objective("softmax", 0.5 / N if form == "mean" else 0.5, intercept, form)
    x, t = objective.features(x), objective.targets(y, CLASSES)
    monkeypatch.setattr(newton, "PRECISION", 1e-12)
    with_it = deletion.delete(objective, x, t, np.arange(10))
    monkeypatch.setattr(deletion, "LARGEST", 10)
    monkeypatch.setattr(newton, "hessian_inverse", None)
    without = deletion.delete(objective, x, t, np.arange(10))
    assert max(without.residual, without.residual_K.max()) <= 1e-11
    for one, other in (
        (without.theta_PC, with_it.theta_PC),
        *zip(without.delta_KPC, with_it.delta_KPC, strict=True),
    ):
        assert np.linalg.norm(one - other) < 1e-9 * np.linalg.norm(other)


def test_conjugate_gradients_solve_each_system_as_if_alone() -> None:
    """As precisely as asked for, whatever stands beside it; a side of 0 has the solution 0."""
    x, y = data()
    objective = Objective("softmax", 0.5, "penalised", "sum")
    x, t = objective.features(x), objective.targets(y, CLASSES)
    lam = objective.penalty(*x.shape)
    theta, hessian = dense_optimum("softmax", x, t, lam)
    asked = []

    def product(v_PKC: Array) -> Array:
        asked.append(v_PKC.shape[1])
        v = v_PKC.transpose(0, 2, 1).reshape(len(hessian), -1)
        return (hessian @ v).reshape(len(theta), CLASSES, -1).transpose(0, 2, 1)

    b = np.random.default_rng(1).normal(size=(len(theta), 5, CLASSES))
    b[:, 2], b[:, 3] = 0, 1e9 * b[:, 3]
    found = newton.conjugate_gradients(product, lambda r: r, b, 1e-11)
    sides = b.transpose(0, 2, 1).reshape(len(hessian), -1)
    expected = np.linalg.solve(hessian, sides).reshape(len(theta), CLASSES, 5).transpose(0, 2, 1)
    for k in range(5):
        assert_allclose(
            found[:, k], expected[:, k], rtol=1e-9, atol=1e-9 * abs(expected[:, k]).max()
        )
    assert asked[0] == 4, "nothing is asked of what is solved"
    rough = newton.conjugate_gradients(product, lambda r: r, b, 0.1)
    left = b - product(rough)
    share = np.linalg.norm(left, axis=(0, 2)) / np.where(
        b.any((0, 2)), np.linalg.norm(b, axis=(0, 2)), 1
    )
    assert share.max() <= 0.1
    assert share[[0, 1, 3, 4]].min() > 1e-9


@pytest.mark.parametrize("intercept", ["penalised", "free", "none"])
def test_solutions_by_products_are_those_of_the_factor(
    monkeypatch: pytest.MonkeyPatch, intercept: str
) -> None:
    x, y = data()
    objective = Objective("softmax", 0.5, intercept, "sum")
    x, t = objective.features(x), objective.targets(y, CLASSES)
    about = objective, x, t, objective.penalty(*x.shape)
    theta = np.random.default_rng(1).normal(size=(x.shape[1], CLASSES))
    b = np.random.default_rng(2).normal(size=(x.shape[1], CLASSES, 4))
    b -= b.mean(axis=1, keepdims=True)  # as gradients are: their classes add up to 0
    monkeypatch.setattr(newton, "SHARE", 1e-13)
    expected = newton.hessian_inverse(*about, theta)(b)
    found = newton.hessian_inverse_by_products(*about, theta)(b)
    assert np.linalg.norm(found - expected) < 1e-9 * np.linalg.norm(expected)


@pytest.mark.parametrize(("loss", "lam"), [("squared", 1e-9), ("softmax", 1e-2)])
def test_a_row_of_leverage_near_one_is_retrained_alone(loss: str, lam: float) -> None:
    x, y = data()
    x[3, 0], x[np.arange(N) != 3, 0] = 40.0, 0.0  # nobody else has this feature
    objective = Objective(loss, lam, "penalised", "sum")
    x, t = objective.features(x), objective.targets(y, CLASSES)
    found = deletion.delete(objective, x, t, np.array([3]))
    assert found.residual_K[0] <= 1e-7
    assert abs((found.theta_PC + found.delta_KPC[0])[0]).max() <= 1e-5, "no row left that uses it"


def test_least_squares_without_penalty_is_that_of_least_norm() -> None:
    x, y = data()
    x = np.concatenate([x, x[:, :2]], axis=1)
    objective = Objective("squared", 0.0, "none", "sum")
    t = objective.targets(y, CLASSES)
    found = deletion.delete(objective, x, t, np.array([5]))
    rest = np.arange(N) != 5
    assert_allclose(found.theta_PC, np.linalg.lstsq(x, t, rcond=None)[0], atol=1e-9)
    without = np.linalg.lstsq(x[rest], t[rest], rcond=None)[0]
    assert_allclose(found.theta_PC + found.delta_KPC[0], without, atol=1e-9)


def test_nothing_but_the_deletion_changes_with_n_in_sum_form() -> None:
    objective = Objective("squared", 2.0, "free", "sum")
    assert_allclose(objective.penalty(10, 3), objective.penalty(9, 3))
    mean = replace(objective, form="mean")
    assert_allclose(mean.penalty(10, 3)[:, 0], [20, 20, 0])


def test_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="no curvature"):
        Objective("hinge", 1.0, "penalised", "sum")
    with pytest.raises(ValueError, match="loss=cubic: must be one of squared, softmax"):
        Objective("cubic", 1.0, "penalised", "sum")
    with pytest.raises(ValueError, match="intercept=yes"):
        Objective("squared", 1.0, "yes", "sum")
    with pytest.raises(ValueError, match="form=median"):
        Objective("squared", 1.0, "none", "median")
    with pytest.raises(ValueError, match="lam=-1"):
        Objective("squared", -1.0, "none", "sum")
    with pytest.raises(ValueError, match="needs classes"):
        Objective("softmax", 1.0, "none", "sum").targets(np.zeros(3), 0)


def test_fourier_features_make_the_gaussian_kernel() -> None:
    x = torch.from_numpy(data()[0])
    embedding = rff(WIDTH, dimension=20_000, gamma=0.1, generator=torch.Generator().manual_seed(0))
    kernel = torch.exp(-0.1 * torch.cdist(x, x).square())
    torch.testing.assert_close(embedding(x) @ embedding(x).T, kernel, atol=0.05, rtol=0)
    again = rff(WIDTH, dimension=20_000, gamma=0.1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(embedding.w_DF, again.w_DF)
    half = embedding.to(torch.float32)
    torch.testing.assert_close(half(x.float()).double(), embedding(x), atol=1e-5, rtol=0)


def test_median_heuristic() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4, 9
    assert median_gamma(x) == pytest.approx(1 / 8)
    with pytest.raises(ValueError, match="median distance"):
        median_gamma(torch.zeros(5, 2))
