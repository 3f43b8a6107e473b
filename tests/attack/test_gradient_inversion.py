"""The inversion of gradients: it must find the record of a gradient that is known, and no other.

What a real deletion leaves of that gradient in a net that SGD trained is another matter.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unlearnbench.attack import _gradient_inversion, _judged, _rank_one, hrec
from unlearnbench.convex import deletion
from unlearnbench.convex.objective import Objective
from unlearnbench.model.cnn import cnn
from unlearnbench.model.mlp import mlp
from unlearnbench.protocol._audit import NetAudit
from unlearnbench.train import gradient
from unlearnbench.train.loop import cross_entropy

K, N, M = 12, 600, 300
CALL = {"label": "auto", "space": "probabilities", "restarts": 2, "steps": 120}


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return x[order] / 16, y[order]


@cache
def trained(name: str = "mlp") -> nn.Module:
    x, y = (torch.from_numpy(one[:N]) for one in digits())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = mlp((64,), 10, hidden=[32], norm="none")
        if name == "cnn":
            net, x = cnn((1, 8, 8), 10, norm="batch"), x.reshape(-1, 1, 8, 8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
    for _ in range(40 if name == "mlp" else 5):
        optimizer.zero_grad()
        cross_entropy(net, x.float(), y).backward()
        optimizer.step()
    return net.eval()


def audit(net: nn.Module, theta_KP: Tensor, **changed: object) -> NetAudit:
    x, y = digits()
    about = NetAudit(
        net=net,
        theta_KP=theta_KP,
        buffers_KS=gradient.buffers(net).expand(len(theta_KP), -1),
        loss=cross_entropy,
        decay=0.0,
        n=N,
        residual=0.0,
        public_MF=x[N : N + M],
        public_y_M=y[N : N + M],
        x_KF=x[: len(theta_KP)],
        y_K=y[: len(theta_KP)],
        row_K=np.arange(len(theta_KP)),
        n_classes=10,
        shape=(64,),
        low_F=np.zeros(64),
        high_F=np.ones(64),
    )
    return replace(about, **changed)  # type: ignore[arg-type]


def moved(net: nn.Module, k: int = K, size: float = 1e-2) -> Tensor:
    random = torch.Generator().manual_seed(0)
    theta = gradient.theta(net)
    return theta + size * torch.randn(k, len(theta), generator=random, dtype=theta.dtype)


def true_gradients(net: nn.Module, about: NetAudit) -> Tensor:
    """One backward pass for each deleted record."""
    rows = []
    for x, y in zip(about.x_KF, about.y_K, strict=True):
        x_1 = torch.from_numpy(x).float().reshape(1, *about.shape)
        value = cross_entropy(net, x_1, torch.tensor([y]))
        found = torch.autograd.grad(value, list(net.parameters()))
        rows.append(torch.cat([one.reshape(-1) for one in found]))
    return torch.stack(rows).double()


def test_the_record_of_a_known_gradient_is_found() -> None:
    net = trained()
    about = audit(net, moved(net))
    g_KP = true_gradients(net, about)
    y_K, quality_K = _gradient_inversion.read_label(net, g_KP, label="auto")
    assert (y_K == about.y_K).all()
    assert quality_K.max() < 1e-5, "the last layer's gradient has rank one"
    x_KF = _gradient_inversion.inverted(about, g_KP, y_K, restarts=2, steps=120)
    found = _judged.figures(x_KF, about.x_KF, about.public_MF)
    assert found["cos"].mean() > 0.98
    assert found["cos"].min() > 0.9
    assert found["cos_centered"].mean() > 0.95
    assert np.median(found["rank"]) == 1
    assert x_KF.min() >= 0
    assert x_KF.max() <= 1
    # The length of a gradient has no say, its sign has.
    scaled = _gradient_inversion.inverted(about, 1e-4 * g_KP[:3], y_K[:3], restarts=2, steps=120)
    assert_allclose(scaled, x_KF[:3], atol=1e-3)
    wrong = _gradient_inversion.inverted(about, -g_KP, y_K, restarts=2, steps=50)
    assert _judged.cosine(wrong, about.x_KF).mean() < found["cos"].mean() - 0.1


def test_of_images_too() -> None:
    """Convolutions, pooling and the running statistics of batch norm."""
    net = trained("cnn")
    about = audit(net, moved(net, 2), shape=(1, 8, 8))
    g_KP = true_gradients(net, about)
    y_K, _ = _gradient_inversion.read_label(net, g_KP, label="auto")
    assert (y_K == about.y_K).all()
    x_KF = _gradient_inversion.inverted(about, g_KP, y_K, restarts=1, steps=60)
    assert _judged.cosine(x_KF, about.x_KF).min() > 0.9


def test_a_wrong_label_costs_the_record() -> None:
    net = trained()
    about = audit(net, moved(net))
    g_KP = true_gradients(net, about)
    right, wrong = (
        _gradient_inversion.inverted(about, g_KP, y_K, restarts=1, steps=60)
        for y_K in (about.y_K, (about.y_K + 1) % 10)
    )
    near = [_judged.cosine(x_KF, about.x_KF).mean() for x_KF in (right, wrong)]
    assert near[0] > near[1] + 0.02


@pytest.mark.parametrize("rule", ["auto", "largest", "least", "intercept"])
def test_label_rules_on_a_gradient_with_noise_in_the_weights(rule: str) -> None:
    net = trained()
    about = audit(net, moved(net))
    g_KP = true_gradients(net, about)
    y_K, _ = _gradient_inversion.read_label(net, g_KP, label=rule)
    assert (y_K == about.y_K).all()
    flipped, _ = _gradient_inversion.read_label(net, -g_KP, label=rule)
    if rule == "largest":
        assert (flipped == about.y_K).all(), "which knows no sign"
    if rule in ("auto", "intercept"):
        assert (flipped != about.y_K).all()
        last = gradient.head(net)
        assert last is not None
        g_KP[:, : -last.out_features] = 0  # only the bias of the last layer is read
        again, _ = _gradient_inversion.read_label(net, g_KP, label=rule)
        assert (again == about.y_K).all()


@pytest.mark.parametrize("n_public", [100, M])
def test_of_one_layer_at_its_optimum_the_gradient_is_that_of_the_linear_attack(
    n_public: int,
) -> None:
    """Sign, (n − 1)/m, Λ and −λ'θ₊: all of the formula."""
    x, y = digits()
    goal = Objective("softmax", 1 / N, "penalised", "mean")
    t_NC = goal.targets(y, 10)
    found = deletion.delete(goal, goal.features(x[:N]), t_NC[:N], np.arange(K))
    net = nn.Linear(64, 10, dtype=torch.float64)

    def flat(theta_PC: np.ndarray) -> Tensor:
        theta = torch.from_numpy(theta_PC)
        return torch.cat([theta[:-1].T.reshape(-1), theta[-1]])

    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(found.theta_PC[:-1].T))
        net.bias.copy_(torch.from_numpy(found.theta_PC[-1]))
    theta_KP = torch.stack([flat(found.theta_PC + delta) for delta in found.delta_KPC])
    shown = slice(N, N + n_public)
    about = audit(net, theta_KP, decay=1 / N, public_MF=x[shown], public_y_M=y[shown])
    g_KP = _gradient_inversion.estimate(about, theta_KP - gradient.theta(net))
    expected = _rank_one.gradient(goal, found, goal.features(x[shown]), t_NC[shown])
    assert_allclose(g_KP, torch.stack([flat(one) for one in expected]), atol=1e-12)
    linear = _rank_one.reconstruct(
        goal, found, goal.features(x[shown]), t_NC[shown], label="intercept"
    )
    guess = _gradient_inversion.guess(about, **CALL)
    assert (guess.y_K == linear.y_K).all()
    assert_allclose(guess.quality_K, linear.quality_K, atol=1e-9)
    ours, theirs = (_judged.cosine(one.x_KF, about.x_KF).mean() for one in (guess, linear))
    assert ours > theirs - 0.05
    truth = cosine_similarity(g_KP, flat_gradients(about), dim=1)
    assert truth.mean() > 0.8
    wrong = _gradient_inversion.estimate(about, gradient.theta(net) - theta_KP)
    assert cosine_similarity(wrong, flat_gradients(about), dim=1).mean() < -0.8


def flat_gradients(about: NetAudit) -> Tensor:
    """x̃ (p − e_y)ᵀ of a net of one layer, as its parameters lie."""
    x = torch.from_numpy(about.x_KF)
    r_KC = about.net(x).softmax(dim=1).detach()
    r_KC[torch.arange(len(x)), torch.from_numpy(about.y_K)] -= 1
    return torch.cat([(r_KC[:, :, None] * x[:, None]).flatten(1), r_KC], dim=1)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_max_diff_is_that_of_the_changed_nets(name: str) -> None:
    net = trained(name)
    kept = gradient.buffers(net)
    random = torch.Generator().manual_seed(1)
    statistics = kept * (1 + 0.2 * torch.rand(K, len(kept), generator=random))
    shape = (64,) if name == "mlp" else (1, 8, 8)
    about = audit(net, moved(net, size=0.05), buffers_KS=statistics, shape=shape)
    x = torch.from_numpy(about.public_MF).float().reshape(-1, *shape)
    found = {}
    for bounded in (True, False):
        found[bounded] = _gradient_inversion.max_diff(about, bounded=bounded)
        for k in range(K):
            pair = [net(x), gradient.outputs(net, about.theta_KP[k], statistics[k], x)]
            if bounded:
                pair = [one.softmax(dim=1) for one in pair]
            assert found[bounded][k] == (pair[1] - pair[0]).norm(dim=1).argmax()
    assert (found[True] != found[False]).any()


def test_the_attack_says_nothing_of_what_has_not_changed() -> None:
    net = trained()
    theta_KP = moved(net, 3)
    theta_KP[1] = gradient.theta(net)
    guess = _gradient_inversion.guess(audit(net, theta_KP), **{**CALL, "steps": 5})
    assert (guess.x_KF[1] == 0).all()
    assert guess.quality_K[1] == 1
    assert guess.moved_K.tolist() == [True, False, True]
    assert guess.x_KF[[0, 2]].any(axis=1).all()


def test_figures_are_those_of_the_linear_attack() -> None:
    """Of one step up the record's loss, where the change is the gradient."""
    net = trained()
    about = audit(net, moved(net))
    stepped = (gradient.theta(net) + 1e-3 * true_gradients(net, about)).float()
    scores = hrec.hrec(replace(about, theta_KP=stepped), **{**CALL, "steps": 120})
    told = {name: value for name, (value, _) in scores.metrics.items()}
    assert told["change_cos"] > 0.95, "who reads the change for the gradient is right here"
    assert told["deletion_trace"] == 1
    pool = np.array(scores.pool)
    assert set(pool) == {"hrec", "avg", "max_diff"}
    for who in set(pool):
        assert told[f"{who}_cos"] == pytest.approx(scores.score[pool == who].mean())
    assert np.isfinite(list(told.values())).all()
    with pytest.raises(ValueError, match="finite"):
        hrec.hrec(replace(about, theta_KP=stepped * torch.nan), **CALL)
    alone = replace(about, public_MF=np.zeros((0, 64)), public_y_M=np.zeros(0, int))
    with pytest.raises(ValueError, match="no public record"):
        hrec.hrec(alone, **CALL)
