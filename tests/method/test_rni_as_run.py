"""RNI as run: norms are what has "bn" in its name, phases are numbers of epochs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, same
from torch import Tensor, nn

from unlearnbench.core.seeding import generator
from unlearnbench.method import _ops as ops
from unlearnbench.method import rni_as_run as module
from unlearnbench.method.rni import rni
from unlearnbench.method.rni_as_run import rni_as_run
from unlearnbench.model.mlp import mlp
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.tiny_vit import tiny_vit

SETTINGS: dict[str, Any] = {
    "sgd": SGD,
    "fine_sgd": SGD,
    "batch_size": 64,
    "noise_ratio": 0.7,
    "origin_noise": 0.04,
}
PHASES: dict[str, Any] = {"epochs": 9, "quiet_epochs": 1, "fine_epochs": 4}


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From how many tensors each epoch draws; nothing is trained and nothing gets noise."""
    counts: list[int] = []
    draw = torch.randperm

    def watched(n: int, **how: Any) -> Tensor:
        counts.append(n)
        return draw(n, **how)

    monkeypatch.setattr(module, "descend", lambda model, *_, **__: model)
    monkeypatch.setattr(torch, "randperm", watched)
    return counts


@pytest.mark.tried(
    "a ResNet18's short-cut norms and a TinyViT's layer norms, which have no bn in their name",
    "rni_as_run draws them as the published code does: 28 and 161 tensors",
)
@pytest.mark.parametrize(("make", "count"), [(resnet18, 28), (tiny_vit, 161)])
def test_what_has_no_bn_in_its_name_is_a_candidate(
    bench: Bench, candidates: list[int], make: Any, count: int
) -> None:
    rni_as_run(make((3, 32, 32), 10, norm="batch"), bench.task, **SETTINGS, **PHASES)
    assert candidates == [count] * 5


@pytest.mark.usefixtures("candidates")
def test_how_many_tensors_of_a_resnet18_get_noise(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 candidates an epoch, of which (1 − 9/28)^e are drawn for the first time: 10.0 a run."""
    net, counts = resnet18((3, 32, 32), 10, norm="batch"), []
    monkeypatch.setattr(ops, "shake", lambda tensors, *_: counts.append(len(tensors)))
    for seed in range(300):
        task = replace(bench.task, generator=lambda purpose, seed=seed: generator(seed, purpose))
        rni_as_run(net, task, **SETTINGS, **PHASES)
    per_run = torch.tensor(counts).view(300, 4).sum(1).double()
    expected = sum(6 * (1 - 9 / 28) ** e for e in range(1, 5))
    assert per_run.mean() == pytest.approx(expected, abs=4 * float(per_run.std()) / 300**0.5)


def test_it_is_rni_where_every_norm_says_so(bench: Bench) -> None:
    def net() -> nn.Module:
        made = mlp((1, 8, 8), 10, hidden=[8] * 6, norm="batch").double().eval()
        ops.reset([made], generator(0, "net"))
        return made

    def renamed() -> nn.Module:
        other = net()
        for k in range(1, 7):
            block = other.get_submodule(f"hidden{k}")
            children = dict(block.named_children())
            for name in children:
                delattr(block, name)
            for name, child in children.items():
                norm = isinstance(child, nn.BatchNorm1d)
                block.add_module(f"bn{name}" if norm else name, child)
        return other

    one = rni(net(), bench.task, **SETTINGS, epochs=4, quiet=0.25, fine=0.25)
    numbers = {"epochs": 4, "quiet_epochs": 1, "fine_epochs": 1}
    two, three = (rni_as_run(n, bench.task, **SETTINGS, **numbers) for n in (renamed(), net()))
    states = [list(made.parameters()) for made in (one, two, three)]
    assert all(torch.equal(p, q) for p, q in zip(states[0], states[1], strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(states[0], states[2], strict=True))


def test_as_many_quiet_epochs_as_there_are_leave_no_noise(bench: Bench) -> None:
    loud, still = (
        bench.run(
            rni_as_run,
            bench.task,
            **{**SETTINGS, "origin_noise": std},
            epochs=2,
            quiet_epochs=1,
            fine_epochs=1,
        )
        for std in (50.0, 0.0)
    )
    assert same(loud.state_dict(), still.state_dict())
