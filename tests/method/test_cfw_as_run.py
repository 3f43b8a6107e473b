"""CFW as run: it weighs whole batches, and shakes convolutions of the net itself alone."""

import math
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cells import compose
from method.bench import SGD, TOLERANCE, Bench, all_close, same, weights
from torch import nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method.cfw import cfw
from unlearnbench.method.cfw_as_run import cfw_as_run
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.tiny_vit import tiny_vit

SETTINGS: dict[str, Any] = {"sgd": SGD, "batch_size": 64}
QUIET: dict[str, Any] = {"start_confuser_std": 0.0, "final_confuser_std": 0.0}
LOUD: dict[str, Any] = {"start_confuser_std": 0.3, "final_confuser_std": 0.6}
STILL = {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0}


def small() -> nn.Module:
    """One convolution with "conv" in its name at the top, one below, one by another name."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = nn.Sequential(OrderedDict(conv=nn.Conv2d(32, 32, 3), norm=nn.BatchNorm2d(32)))
        layers = {"conv1": nn.Conv2d(1, 32, 3), "inner": inner, "last": nn.Conv2d(32, 16, 3)}
        ends = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        return nn.Sequential(OrderedDict(layers, **ends, head=nn.Linear(16, 10))).double()


def some(task: Task, *, even: bool) -> Task:
    """Few rows, the same number of each class, or far more of the last ones."""
    counts = [30] * 10 if even else [5, 5, 5, 5, 5, 40, 40, 40, 40, 40]
    places = [(task.retain.y == label).nonzero().flatten()[:n] for label, n in enumerate(counts)]
    return replace(task, retain=task.retain.chosen(torch.cat(places)))


def test_it_shakes_top_level_convolutions_twice(bench: Bench) -> None:
    """Their weights, by N(0, σ₁² + σ₂²) in all where nothing else moves; no bias."""
    arguments = {**SETTINGS, **LOUD, "sgd": STILL}
    for epochs, std in ((0, 0.3), (1, 0.3), (3, (0.3**2 + 0.6**2) ** 0.5)):
        after = weights(cfw_as_run(small(), bench.task, **arguments, epochs=epochs))
        before = weights(small())
        by = after.pop("conv1.weight") - before.pop("conv1.weight")
        assert by.std() == pytest.approx(std, rel=4 / (2 * by.numel()) ** 0.5)
        assert same(after, before)


def test_against_a_loop_by_hand(bench: Bench) -> None:
    """CE(B) times the mean of n/(C n_y) over the batch, at the rate of a cosine."""
    task, net = some(bench.task, even=False), small().train()
    c = torch.tensor([225 / (10 * n) for n in [5] * 5 + [40] * 5]).double()
    assert len(task.retain.rows) == 225
    optimizer = torch.optim.SGD(net.parameters(), **SETTINGS["sgd"])
    for e in range(2):
        optimizer.param_groups[0]["lr"] = SGD["lr"] * (1 + math.cos(math.pi * e / 2)) / 2
        for x, y in task.retain.batched(64):
            optimizer.zero_grad()
            (F.cross_entropy(net(x), y) * c[y].mean()).backward()
            optimizer.step()
    task = some(bench.task, even=False)
    found = weights(cfw_as_run(small(), task, **SETTINGS, **QUIET, epochs=2))
    all_close(found, weights(net))


@pytest.mark.parametrize("even", [True, False])
def test_without_noise_it_is_cfw_where_classes_are_balanced(bench: Bench, even: bool) -> None:
    one, two = (
        weights(method(small(), some(bench.task, even=even), **SETTINGS, **QUIET, epochs=2))
        for method in (cfw, cfw_as_run)
    )
    close = [torch.allclose(one[name], two[name], rtol=0, atol=TOLERANCE) for name in one]
    assert all(close) is even


def test_of_a_resnet18_it_shakes_the_stem(bench: Bench) -> None:
    noted: dict[str, float] = {}
    task, net = replace(bench.task, note=noted.__setitem__), resnet18((3, 32, 32), 10, norm="batch")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    after = cfw_as_run(net, task, **SETTINGS, **LOUD, epochs=0).state_dict()
    assert not torch.equal(after.pop("conv1.weight"), before.pop("conv1.weight"))
    assert same(after, before)
    total = sum(p.numel() for p in net.parameters())
    assert noted == {"acted_on": pytest.approx(64 * 3 * 49 / total)}


@pytest.mark.tried(
    "a skipped row of cfw_as_run where the published code finetunes with weighted classes",
    "it finetunes, and the row has acted_on = 0",
)
@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_without_a_top_level_convolution_it_is_weighted_finetuning(
    bench: Bench, model: str
) -> None:
    noted: dict[str, float] = {}
    bench = Bench(bench.workspace, compose(f"model={model}"))
    task = replace(some(bench.task, even=False), note=noted.__setitem__)
    found = bench.run(cfw_as_run, task, **SETTINGS, **LOUD, epochs=1)
    assert noted == {"acted_on": 0}
    c = torch.tensor([225 / (10 * n) for n in [5] * 5 + [40] * 5]).double()
    net = bench.original.train()
    optimizer = torch.optim.SGD(net.parameters(), **SETTINGS["sgd"])
    for x, y in some(bench.task, even=False).retain.batched(64):
        optimizer.zero_grad()
        (F.cross_entropy(net(x), y) * c[y].mean()).backward()
        optimizer.step()
    all_close(weights(found), weights(net))


def test_of_a_tiny_vit_it_shakes_nothing(bench: Bench) -> None:
    net = tiny_vit((3, 32, 32), 10, norm="batch")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert same(cfw_as_run(net, bench.task, **SETTINGS, **LOUD, epochs=0).state_dict(), before)


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        cfw_as_run(small(), replace(bench.task, n_classes=0), **SETTINGS, **LOUD, epochs=1)
