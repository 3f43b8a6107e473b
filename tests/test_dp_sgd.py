"""DP-SGD: against gradients taken row by row, its noise, its sampling, and its ε; in float64."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import Cells, compose
from method.bench import close, same
from opacus import PrivacyEngine
from torch import Tensor, nn

from unlearnbench.core.data import Batches, Compute, Dataset
from unlearnbench.core.seeding import generator
from unlearnbench.model.cnn import cnn
from unlearnbench.model.logreg import logreg
from unlearnbench.model.mlp import mlp
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.pipeline import inputs, models
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train import loop
from unlearnbench.train.dp_sgd import dp_sgd, epsilon

PLAIN = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
ONE = {"sgd": PLAIN, "epochs": 1, "max_grad_norm": 1.0}

PRECISE = Compute("cpu", "64-true")
BUILD: dict[str, Callable[[], nn.Module]] = {
    "logreg": lambda: logreg((3, 8, 8), 4),
    "mlp": lambda: mlp((3, 8, 8), 4, hidden=(6, 5), norm="group"),
    "cnn": lambda: cnn((3, 8, 8), 4, norm="group"),
    "resnet18": lambda: resnet18((3, 8, 8), 4, norm="group"),
}


def batches(n: int, **changes: Any) -> Batches:
    draw = generator(0, "data")
    x = torch.randint(256, (n, 8, 8, 3), dtype=torch.uint8, generator=draw)
    y = torch.randint(4, (n,), generator=draw)
    rows = torch.arange(n)
    data = Dataset(
        x, y, 4, "image", rows, rows[:0], torch.full((3,), 128.0), torch.full((3,), 64.0)
    )
    data = replace(data, augment=changes.pop("augment", None)).computed_in(torch.float64)
    order, noise = generator(0, "order"), generator(0, "noise")
    return replace(Batches(data, rows, y, 1000, order, noise, PRECISE), **changes)


def net(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(3)
        built = BUILD[name]().double()
    return built.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def moved(before: nn.Module, after: nn.Module) -> list[Tensor]:
    """Change over the learning rate, the gradient that was stepped along."""
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    return [((a - b) / PLAIN["lr"]).detach() for a, b in pairs]


def clipped_sum(model: nn.Module, part: Batches, bound: float) -> list[Tensor]:
    """Σ g_i · min(1, C / (‖g_i‖ + 1e-6)), Opacus' clipping, one row after the other."""
    sums = [torch.zeros_like(p) for p in model.parameters()]
    for row, label in zip(part.rows, part.y, strict=True):
        loss = loop.cross_entropy(model.train(), part.data.inputs(row[None]), label[None])
        found = torch.autograd.grad(loss, list(model.parameters()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in found))
        for total, g in zip(sums, found, strict=True):
            total.add_(g, alpha=min(1.0, bound / (norm + 1e-6)))
    return sums


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("bound", [0.5, 1e6])
def test_without_noise_it_is_the_sum_of_clipped_gradients(name: str, bound: float) -> None:
    start, part = net(name), batches(5)
    ended = dp_sgd(
        deepcopy(start),
        part,
        loop.cross_entropy,
        **{**ONE, "max_grad_norm": bound},
        batch_size=5,
        noise_multiplier=0.0,
    )
    for found, total in zip(moved(start, ended), clipped_sum(start, part, bound), strict=True):
        close(found, total / 5)


def test_gradients_of_a_step_do_not_depend_on_how_many_are_held(monkeypatch: Any) -> None:
    nets = []
    for held in (2**28, 1):
        monkeypatch.setattr("unlearnbench.train.dp_sgd.NUMBERS_AT_ONCE", held)
        settings = {**ONE, "epochs": 3, "batch_size": 4, "noise_multiplier": 0.1}
        nets.append(dp_sgd(net("cnn"), batches(9), loop.cross_entropy, **settings))
    for one, other in zip(*(n.parameters() for n in nets), strict=True):
        close(one, other)


def test_squared_error_is_that_of_each_row() -> None:
    x, rows = torch.randn(6, 3, generator=generator(0, "x")), torch.arange(6)
    data = Dataset(x, torch.arange(6.0), 0, "tabular", rows, rows[:0]).computed_in(torch.float64)
    x, y = x.double(), data.y
    part = Batches(data, rows, y, 1000, generator(0, "order"), generator(0, "noise"), PRECISE)
    start = logreg((3,), 1).double()
    ended = dp_sgd(
        deepcopy(start), part, loop.squared_error, **ONE, batch_size=6, noise_multiplier=0.0
    )
    sums = [torch.zeros_like(p) for p in start.parameters()]
    for i in range(6):
        error = 2 * float(start(x[i : i + 1]).detach() - y[i])
        g = [error * x[i], torch.tensor(error, dtype=torch.float64)]
        norm = math.sqrt(sum(float(part.square().sum()) for part in g))
        for total, part in zip(sums, g, strict=True):
            total.add_(part * min(1.0, 1 / (norm + 1e-6)))
    for found, total in zip(moved(start, ended), sums, strict=True):
        close(found, total / 6)


def test_a_full_batch_without_noise_or_bound_is_plain_sgd() -> None:
    start, sgd = net("cnn"), {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    whole = {"sgd": sgd, "epochs": 3, "batch_size": 12}
    ended = dp_sgd(
        deepcopy(start),
        batches(12),
        loop.cross_entropy,
        **whole,
        noise_multiplier=0.0,
        max_grad_norm=1e9,
    )
    plain = loop.descend(
        deepcopy(start), batches(12).batched(12), loop.cross_entropy, sgd=sgd, epochs=3
    )
    for one, other in zip(ended.parameters(), plain.parameters(), strict=True):
        close(one, other)


def nothing(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return 0 * loop.cross_entropy(net, x, y)


def test_the_noise_is_sigma_times_the_bound_over_the_expected_batch_size() -> None:
    """One step an epoch, in which each of ten rows is drawn with probability 1/2: sizes differ."""
    start = net("resnet18")
    settings = {**ONE, "max_grad_norm": 3.0, "batch_size": 10, "noise_multiplier": 1.2}
    ended = dp_sgd(deepcopy(start), batches(10), nothing, **settings)
    noise = torch.cat([g.flatten() for g in moved(start, ended)])
    # Of 11 million numbers: the standard deviation is off by 2·10⁻⁴ of itself.
    assert float(noise.std()) == pytest.approx(1.2 * 3.0 / 10, rel=2e-3)
    assert abs(float(noise.mean())) < 1e-3


def test_rows_are_drawn_on_their_own() -> None:
    """200 steps at q = 5/20: sizes 20·q on average, with the variance 20·q·(1 − q)."""
    sizes = []

    def counted(rows_B: Tensor) -> Any:
        sizes.append(len(rows_B))
        return pytest.MonkeyPatch.context()

    part = batches(20).watched(counted)
    settings = {**ONE, "epochs": 50, "batch_size": 5, "noise_multiplier": 0.0}
    dp_sgd(net("logreg"), part, loop.cross_entropy, **settings)
    found = torch.tensor(sizes).double()
    assert len(found) == 200
    assert float(found.mean()) == pytest.approx(5, abs=4 * math.sqrt(3.75 / 200))
    assert float(found.var()) == pytest.approx(3.75, rel=4 * math.sqrt(2 / 200))


@pytest.mark.parametrize("name", BUILD)
def test_a_step_on_no_row_is_a_step_of_noise(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("unlearnbench.train.dp_sgd._rate", lambda n, batch_size: 1e-9)
    seen = []
    part = batches(8).watched(lambda rows: seen.append(len(rows)) or pytest.MonkeyPatch.context())
    start = net(name)
    settings = {**ONE, "sgd": {**PLAIN, "lr": 1e-10}, "batch_size": 4, "noise_multiplier": 1.0}
    ended = dp_sgd(deepcopy(start), part, loop.cross_entropy, **settings)
    assert seen == [0, 0]
    assert not same(start.state_dict(), ended.state_dict())


def test_it_is_the_same_again_and_leaves_global_draws_alone() -> None:
    settings = {**ONE, "epochs": 2, "batch_size": 4, "noise_multiplier": 1.0}
    state = torch.random.get_rng_state()
    nets = [dp_sgd(net("cnn"), batches(10), loop.cross_entropy, **settings) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(nets[0].state_dict(), nets[1].state_dict())
    other = batches(10, order=generator(1, "order"))
    third = dp_sgd(net("cnn"), other, loop.cross_entropy, **settings)
    assert not same(nets[0].state_dict(), third.state_dict())


@pytest.mark.parametrize("name", BUILD)
def test_what_comes_back_is_the_plain_model(name: str) -> None:
    start = net(name)
    attributes = [set(vars(module)) for module in start.modules()]
    before = deepcopy(start.state_dict())
    settings = {**ONE, "batch_size": 3, "noise_multiplier": 1.0}
    ended = dp_sgd(start, batches(6), loop.cross_entropy, **settings)
    assert ended is start
    assert not any(module.training for module in ended.modules())
    assert [set(vars(module)) for module in ended.modules()] == attributes
    assert not any(m._forward_hooks or m._backward_hooks for m in ended.modules())
    assert all(not vars(p) and p.requires_grad and p.grad is None for p in ended.parameters())
    assert all(tensor.isfinite().all() for tensor in ended.state_dict().values())
    assert not same(before, ended.state_dict())
    assert same(deepcopy(ended).state_dict(), ended.state_dict())


def test_what_is_frozen_stays_and_has_no_part_in_the_norm() -> None:
    start, part = net("mlp"), batches(5)
    for parameter in list(start.parameters())[:-2]:
        parameter.requires_grad_(False)
    settings = {**ONE, "batch_size": 5, "noise_multiplier": 0.0, "max_grad_norm": 1e6}
    ended = dp_sgd(deepcopy(start), part, loop.cross_entropy, **settings)
    found = moved(start, ended)
    assert all(not g.any() for g in found[:-2])
    assert all(g.any() for g in found[-2:])


def test_rows_are_augmented_as_in_other_training() -> None:
    seen = []

    def recorded(x: Tensor, draw: torch.Generator) -> Tensor:
        seen.append((len(x), draw.initial_seed()))
        return x

    part = batches(6, augment=recorded)
    dp_sgd(net("logreg"), part, loop.cross_entropy, **ONE, batch_size=6, noise_multiplier=0.0)
    assert seen == [(6, part.noise.initial_seed())]


def test_a_net_that_mixes_rows_or_keeps_statistics_is_refused() -> None:
    def tried(model: nn.Module, part: Batches) -> None:
        dp_sgd(model, part, loop.cross_entropy, **ONE, batch_size=3, noise_multiplier=1.0)

    with pytest.raises(ValueError, match=r"^train=dp_sgd: .*model\.call\.norm=group$"):
        tried(cnn((3, 8, 8), 4, norm="batch"), batches(6))
    with pytest.raises(ValueError, match="InstanceNorm2d keeps statistics"):
        tried(nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)), batches(6))
    with pytest.raises(ValueError, match="precision=32-true or 64-true, not bf16-mixed"):
        tried(net("cnn"), batches(6, compute=Compute("cpu", "bf16-mixed")))


def test_it_trains_originals_and_retrained_models(workspace: Workspace, cell: Cells) -> None:
    words = ["train=dp_sgd", "model.call.norm=group", "train.call.epochs=3"]
    one = cell(*words, "method=retrain")
    data = inputs.dataset(one)
    rows = split_of(one, data).retain
    for model in models.original(workspace, one), models.unlearned(workspace, one):
        with torch.no_grad():
            right = (model(data.inputs(rows)).argmax(1) == data.y[rows]).float().mean()
        assert right > 0.5


# ---------------------------------------------------------------------------------------------
# ε.


def rdp(q: float, sigma: float, order: int) -> float:
    """Of the subsampled Gaussian, at a whole order: a binomial sum (arXiv 1908.10530, §3.3)."""
    terms = [
        math.log(math.comb(order, k))
        + (order - k) * math.log1p(-q)
        + k * math.log(q)
        + (k * k - k) / 2 / sigma**2
        for k in range(order + 1)
    ]
    return float(torch.tensor(terms, dtype=torch.float64).logsumexp(0)) / (order - 1)


def of_orders(rows: int, epochs: int, batch_size: int, sigma: float, delta: float) -> float:
    q, steps = batch_size / rows, epochs * math.ceil(rows / batch_size)
    return min(
        steps * rdp(q, sigma, a) + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1)
        for a in [*range(2, 11), *range(12, 64)]
    )


ASKED = {"epochs": 10, "batch_size": 10, "noise_multiplier": 2.0, "delta": 1e-5}


def test_epsilon_is_that_of_the_binomial_sum() -> None:
    """Where the best order is one of the whole ones, to the digits; elsewhere a little below."""
    found = epsilon(10_000, **{**ASKED, "epochs": 1, "noise_multiplier": 1.2})
    assert found == pytest.approx(of_orders(10_000, 1, 10, 1.2, 1e-5), rel=1e-9)
    found, whole = epsilon(1222, **ASKED), of_orders(1222, 10, 10, 2.0, 1e-5)
    assert whole - 0.05 < found <= whole + 1e-9


@pytest.mark.filterwarnings("ignore:Secure RNG", "ignore:Full backward hook")
def test_epsilon_is_what_opacus_says_of_a_training_of_its_own() -> None:
    model = nn.Linear(2, 2)
    data = torch.utils.data.TensorDataset(torch.randn(40, 2), torch.randint(2, (40,)))
    engine = PrivacyEngine(accountant="rdp")
    model, optimizer, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=torch.utils.data.DataLoader(data, batch_size=8),
        noise_multiplier=1.2,
        max_grad_norm=1.0,
    )
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    settings = {"epochs": 3, "batch_size": 8, "noise_multiplier": 1.2, "delta": 1e-5}
    assert epsilon(40, **settings) == pytest.approx(engine.get_epsilon(1e-5), rel=1e-12)


def test_epsilon_goes_the_right_way() -> None:
    def of(**changes: float) -> float:
        return epsilon(1000, **{**ASKED, **changes})  # type: ignore[arg-type]

    assert of(noise_multiplier=4.0) < of() < of(noise_multiplier=1.0)
    assert of(epochs=1) < of() < of(epochs=100)
    assert of(batch_size=5) < of() < of(batch_size=50)
    assert of(delta=1e-3) < of() < of(delta=1e-7)
    assert epsilon(2000, **ASKED) < of()
    assert of(noise_multiplier=0.0) == math.inf
    assert of(epochs=0) == 0.0
    assert of(noise_multiplier=100.0) < 0.2  # at the last of the orders, without a warning
    with pytest.raises(ValueError, match=r"train\.privacy\.delta=0"):
        of(delta=0)


def test_a_batch_larger_than_the_part_is_the_part() -> None:
    settings = {**ONE, "noise_multiplier": 0.5}
    nets = [
        dp_sgd(net("mlp"), batches(6), loop.cross_entropy, **settings, batch_size=size)
        for size in (6, 60)
    ]
    assert same(nets[0].state_dict(), nets[1].state_dict())
    assert epsilon(6, **{**ASKED, "batch_size": 6}) == epsilon(6, **{**ASKED, "batch_size": 60})


def test_settings_of_epsilon_are_those_of_the_option() -> None:
    one = compose("train=dp_sgd")
    asked = {key: one.train["call"][key] for key in ("epochs", "batch_size", "noise_multiplier")}
    assert epsilon(1222, **{**asked, "epochs": 30}, delta=one.train["privacy"]["delta"]) == (
        pytest.approx(6.87, abs=0.01)
    )
