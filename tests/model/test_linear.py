"""Linear models: outputs as NumPy gives them, losses as the objective has them, one embedding."""

from copy import deepcopy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from safetensors.torch import load, save
from torch import Tensor

from unlearnbench.convex.objective import Objective
from unlearnbench.core.errors import Skip
from unlearnbench.model.linear import LOSSES, Linear, linear


def built(shape: tuple[int, ...] = (5,), n_classes: int = 3, **changed: Any) -> Linear:
    call = {"loss": "squared", "intercept": "penalised", "features": 0, "gamma": None, "seed": 0}
    net = linear(shape, n_classes, **{**call, **changed})
    assert isinstance(net, Linear)
    return net


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("intercept", ["penalised", "none"])
@pytest.mark.parametrize("features", [0, 7])
def test_outputs_are_theta_times_features(intercept: str, features: int) -> None:
    net, x = built((1, 2, 3), intercept=intercept, features=features), drawn(4, 1, 2, 3)
    assert (net(x) == 0).all()
    goal = Objective("squared", 1.0, intercept, "sum")
    x_NP = goal.features(net.features(x).numpy())
    theta_PC = np.random.default_rng(0).normal(size=(x_NP.shape[1], 3))
    net.put(theta_PC)
    assert (net.theta_PC == theta_PC).all()
    assert net(x).dtype == torch.float64
    assert_allclose(net(x).detach().numpy(), x_NP @ theta_PC, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "n_classes"),
    [("squared", 0), *product(["squared", "softmax", "squared_hinge"], [2, 4])],
)
def test_losses_are_the_objectives(loss: str, n_classes: int) -> None:
    goal, f = Objective(loss, 0.0, "none", "sum"), drawn(20, n_classes or 1).double()
    y = drawn(20, seed=1) if not n_classes else torch.arange(20) % n_classes
    f.requires_grad_()
    value = LOSSES[loss](lambda x: x, f, y)  # type: ignore[arg-type]
    value.backward()
    t_NC = goal.targets(y.numpy(), n_classes)
    assert float(value.detach()) == pytest.approx(goal.value(f.detach().numpy(), t_NC) / 20)
    assert f.grad is not None
    assert_allclose(f.grad.numpy(), goal.slope(f.detach().numpy(), t_NC) / 20, atol=1e-12)


def test_hinge_and_softmax() -> None:
    f, y = drawn(20, 4).double(), torch.arange(20) % 4
    t = 2 * F.one_hot(y, 4) - 1
    model: Any = torch.nn.Identity()
    assert float(LOSSES["hinge"](model, f, y)) == pytest.approx(
        float((1 - t * f).clamp(min=0).sum() / 20)
    )
    assert float(LOSSES["softmax"](model, f, y)) == float(F.cross_entropy(f, y))


def test_losses_row_by_row_under_vmap() -> None:
    f, y = drawn(6, 4).double(), torch.arange(6) % 4
    for loss in LOSSES.values():
        rows = torch.func.vmap(lambda a, b, loss=loss: loss(torch.nn.Identity(), a[None], b[None]))
        assert float(rows(f, y).mean()) == pytest.approx(float(loss(torch.nn.Identity(), f, y)))


def test_the_embedding_is_drawn_by_its_own_seed() -> None:
    x = drawn(4, 5)
    torch.manual_seed(1)
    one = built(features=6)
    torch.manual_seed(2)
    assert torch.equal(built(features=6).features(x), one.features(x))
    assert not torch.equal(built(features=6, seed=1).features(x), one.features(x))
    assert torch.equal(built(features=6, gamma=1 / 20).features(x), one.features(x))
    assert torch.equal(deepcopy(one).features(x), one.features(x))


def test_only_parameters_are_stored() -> None:
    one, other = built(features=6), built(features=6)
    one.put(np.random.default_rng(0).normal(size=(7, 3)))
    other.load_state_dict(load(save(one.state_dict())))
    assert sorted(one.state_dict()) == ["head.bias", "head.weight"]
    assert torch.equal(one(drawn(4, 5)), other(drawn(4, 5)))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"loss": "mean"}, "loss=mean: must be one of squared, softmax, squared_hinge, hinge"),
        ({"intercept": "yes"}, "intercept=yes: must be one of penalised, free, none"),
        ({"features": -1}, "features=-1: must not be negative"),
        ({"gamma": 0.0}, "gamma=0.0: must be above 0"),
    ],
)
def test_mistakes_are_told(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=rf"^model\.call\.{told}$"):
        built(**changed)


def test_a_regression_is_for_the_squared_loss_alone() -> None:
    assert built(n_classes=1)(drawn(2, 5)).shape == (2, 1)
    with pytest.raises(Skip, match="loss=softmax tells classes apart"):
        built(n_classes=1, loss="softmax")
