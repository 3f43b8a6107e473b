"""CT: kernels are turned about their diagonal, and the rest is finetuning."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cells import compose
from method.bench import SGD, Bench, same, weights
from torch import nn

from unlearnbench.core.errors import Skip
from unlearnbench.method.ct import ct
from unlearnbench.method.finetune import finetune
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.tiny_vit import tiny_vit

SETTINGS: dict[str, Any] = {"sgd": SGD, "batch_size": 64}


def test_twice_is_the_identity(bench: Bench) -> None:
    once = bench.run(ct, bench.task, **SETTINGS, epochs=0)
    assert not same(once.state_dict(), bench.original.state_dict())
    twice = ct(once, bench.task, **SETTINGS, epochs=0)
    assert same(twice.state_dict(), bench.original.state_dict())


def test_kernels_are_transposed_in_space(bench: Bench) -> None:
    """Those of 1×1 have nothing to turn; nothing but convolutions changes."""
    net = resnet18((3, 32, 32), 10, norm="batch")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    ct(net, bench.task, **SETTINGS, epochs=0)
    sides = set()
    for name, tensor in net.state_dict().items():
        if tensor.ndim == 4:
            sides.add(tensor.shape[2])
            for h in range(tensor.shape[2]):
                for w in range(tensor.shape[3]):
                    assert torch.equal(tensor[:, :, h, w], before[name][:, :, w, h]), name
        else:
            assert torch.equal(tensor, before[name]), name
    assert sides == {1, 3, 7}


def test_the_rest_is_finetuning(bench: Bench) -> None:
    net = bench.run(ct, bench.task, **SETTINGS, epochs=2)
    turned = bench.run(ct, bench.task, **SETTINGS, epochs=0)
    other = finetune(turned, bench.task, **SETTINGS, epochs=2)
    assert same(net.state_dict(), other.state_dict())


@pytest.mark.parametrize(("make", "share"), [(resnet18, 0.983), (tiny_vit, 0.0053)])
def test_notes_the_share_it_acts_on(
    bench: Bench, make: Callable[..., nn.Module], share: float
) -> None:
    noted: dict[str, float] = {}
    task = replace(bench.task, note=noted.__setitem__)
    ct(make((3, 32, 32), 10, norm="batch"), task, **SETTINGS, epochs=0)
    assert noted == {"acted_on": pytest.approx(share, rel=0.01)}


def test_kernels_that_are_not_square_stay(bench: Bench) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, (1, 3)), nn.Conv2d(2, 2, 3))
    (flat, _, square, _) = (p.clone() for p in weights(net).values())
    ct(net, bench.task, **SETTINGS, epochs=0)
    assert torch.equal(weights(net)["0.weight"], flat)
    assert torch.equal(weights(net)["1.weight"], square.mT)


@pytest.mark.parametrize("model", ["logreg", "mlp"])
def test_a_net_without_kernels_is_skipped(bench: Bench, model: str) -> None:
    net = Bench(bench.workspace, compose(f"model={model}")).fresh()
    with pytest.raises(Skip, match="kernels"):
        ct(net, bench.task, **SETTINGS, epochs=1)
