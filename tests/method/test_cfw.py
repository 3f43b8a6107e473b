"""CFW: what is shaken, when and how far, and finetuning on balanced classes between."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import compose
from method.bench import SGD, Bench, all_close, same, weights
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method.cfw import cfw
from unlearnbench.model.cnn import cnn
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.resnet18_cifar import resnet18_cifar
from unlearnbench.model.timm import timm
from unlearnbench.model.tiny_vit import tiny_vit

SETTINGS: dict[str, Any] = {"sgd": SGD, "batch_size": 64, "start_confuser_std": 0.6}
IMAGE = (3, 32, 32)
STILL = {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0}
STEM = "stem.0.weight"


def moved(net: nn.Module, bench: Bench) -> dict[str, Tensor]:
    before = weights(bench.original)
    return {name: p - before[name] for name, p in weights(net).items()}


def uneven(task: Task) -> Task:
    """Few rows of the first five classes."""
    y = task.retain.y
    kept = (y >= 5) | (torch.arange(len(y)) % 5 == 0)
    return replace(task, retain=task.retain.chosen(kept.nonzero().flatten()))


def test_the_first_shake_is_all_that_is_left_without_epochs(bench: Bench) -> None:
    net = bench.run(cfw, bench.task, **SETTINGS, epochs=0, final_confuser_std=0.5)
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))
    for name, by in moved(net, bench).items():
        if name != STEM:
            assert not by.any(), name
            continue
        error = 4 / (2 * by.numel()) ** 0.5  # four standard errors of a standard deviation
        assert by.std() == pytest.approx(0.6, rel=error)
        assert abs(by.mean()) < 4 * 0.6 / by.numel() ** 0.5


@pytest.mark.tried(
    "noise of .6, published for the stem, on every convolution of a net",
    "CFW shakes the convolutions of the stem alone, in every architecture",
)
@pytest.mark.parametrize(
    ("make", "shaken"),
    [
        pytest.param(lambda: cnn(IMAGE, 10, norm="batch"), {"stem.0.weight"}, id="cnn"),
        pytest.param(lambda: resnet18(IMAGE, 10, norm="batch"), {"conv1.weight"}, id="resnet18"),
        pytest.param(
            lambda: resnet18_cifar(IMAGE, 10, norm="batch"), {"conv1.weight"}, id="resnet18_cifar"
        ),
        pytest.param(
            lambda: tiny_vit(IMAGE, 10, norm="batch"),
            {"patch_embed.conv1.conv.weight", "patch_embed.conv2.conv.weight"},
            id="tiny_vit",
        ),
        pytest.param(
            lambda: timm(IMAGE, 10, architecture="resnet10t", norm="batch"),
            {f"conv1.{n}.weight" for n in (0, 3, 6)},
            id="resnet10t",
        ),
        pytest.param(
            lambda: timm(IMAGE, 10, architecture="poolformerv2_s12", norm="batch"),
            {"stem.conv.weight"},
            id="without a declared stem",
        ),
    ],
)
def test_it_shakes_the_stem_alone_in_every_architecture(
    bench: Bench, make: Any, shaken: set[str]
) -> None:
    noted: dict[str, float] = {}
    task, net = replace(bench.task, note=noted.__setitem__), make()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cfw(net, task, **SETTINGS, epochs=0, final_confuser_std=0.5)
    after = net.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == shaken
    share = sum(before[name].numel() for name in shaken) / sum(p.numel() for p in net.parameters())
    assert noted == {"acted_on": pytest.approx(share)}


def test_two_shakes_however_many_epochs(bench: Bench) -> None:
    """With a learning rate of 0 nothing else moves; variances add up."""
    arguments = {**SETTINGS, "sgd": STILL, "epochs": 3, "final_confuser_std": 0.5}
    by = moved(bench.run(cfw, bench.task, **arguments), bench)[STEM]
    error = 4 / (2 * by.numel()) ** 0.5
    assert by.std() == pytest.approx((0.6**2 + 0.5**2) ** 0.5, rel=error)


def test_one_epoch_has_no_second_shake(bench: Bench) -> None:
    net, other = (
        bench.run(cfw, bench.task, **SETTINGS, epochs=1, final_confuser_std=std)
        for std in (0.0, 0.9)
    )
    assert same(net.state_dict(), other.state_dict())


def test_against_a_loop_by_hand(bench: Bench) -> None:
    """mean_i n/(C n_y) CE_i on uneven classes; the second shake is before the last epoch."""
    arguments = {**SETTINGS, "epochs": 2, "start_confuser_std": 0.0, "final_confuser_std": 0.05}
    noise = moved(bench.run(cfw, uneven(bench.task), **{**arguments, "sgd": STILL}), bench)
    task, net = uneven(bench.task), bench.original.train()
    y_R = task.retain.y.tolist()
    c = {label: len(y_R) / (10 * y_R.count(label)) for label in set(y_R)}
    optimizer = torch.optim.SGD(net.parameters(), **SETTINGS["sgd"])
    for e in range(2):
        optimizer.param_groups[0]["lr"] = SGD["lr"] * (1 + math.cos(math.pi * e / 2)) / 2
        if e == 1:
            with torch.no_grad():
                for name, p in net.named_parameters():
                    p += noise[name]
        for x, y in task.retain.batched(64):
            log_p = net(x).log_softmax(1)
            losses = [-c[label] * log_p[i, label] for i, label in enumerate(y.tolist())]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
    found = bench.run(cfw, uneven(bench.task), **arguments)
    all_close(weights(found), weights(net))


@pytest.mark.parametrize("model", ["logreg", "mlp"])
def test_a_net_without_convolutions_is_skipped(bench: Bench, model: str) -> None:
    net = Bench(bench.workspace, compose(f"model={model}")).fresh()
    with pytest.raises(Skip, match="convolutions"):
        cfw(net, bench.task, **SETTINGS, epochs=1, final_confuser_std=0.0)


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        bench.run(
            cfw, replace(bench.task, n_classes=0), **SETTINGS, epochs=1, final_confuser_std=0.0
        )
