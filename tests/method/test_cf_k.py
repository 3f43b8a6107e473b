"""CF-k moves the head and the last k stages, and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from method.bench import Bench, all_close, same, weights
from torch import Tensor, nn

from unlearnbench.method import cf_k as module
from unlearnbench.method.cf_k import cf_k
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.tiny_vit import tiny_vit

SETTINGS: dict[str, Any] = {"lr": 0.2, "decay": 0.5, "proximity": 0.5, "batch_size": 1000, "k": 1}
TAIL = ("stage2.", "head.")


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    net = bench.run(cf_k, bench.task, **SETTINGS, epochs=0)
    assert same(net.state_dict(), bench.original.state_dict())


def test_frozen_tensors_and_all_buffers_stay_to_the_bit(bench: Bench) -> None:
    net = bench.run(cf_k, bench.task, **SETTINGS, epochs=2)
    before, after = weights(bench.original), weights(net)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith(TAIL)}
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))


def test_against_a_loop_by_hand(bench: Bench) -> None:
    """θ ← θ − lr ρ^s ( ∇CE + λ (θ − θ_O) ); of 10 epochs 6 to 8 are past one threshold, 9 two."""
    net = bench.run(cf_k, bench.task, **SETTINGS, epochs=10)
    other, start = bench.original.eval(), weights(bench.original)
    batches = bench.task.retain.batched(1000)
    for factor in [1.0] * 6 + [0.5] * 3 + [0.25]:
        for x, y in batches:
            other.zero_grad()
            F.cross_entropy(other(x), y).backward()
            with torch.no_grad():
                for name, p in other.named_parameters():
                    if name.startswith(TAIL):
                        p -= SETTINGS["lr"] * factor * (p.grad + 0.5 * (p - start[name]))
    all_close(weights(net), weights(other))


@pytest.mark.parametrize(
    ("k", "percent"), [(1, 75.1), (2, 93.9), (3, 98.6), (4, 99.9), (5, 100.0), (10, 100.0)]
)
def test_its_share_of_resnet18(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, k: int, percent: float
) -> None:
    trainable = list[int]()

    def watch(model: nn.Module, *_: Any, **__: Any) -> nn.Module:
        trainable.extend(p.numel() for p in model.parameters() if p.requires_grad)
        return model

    monkeypatch.setattr(module, "descend", watch)
    net = resnet18((3, 32, 32), 10, norm="batch")
    cf_k(net, bench.task, **{**SETTINGS, "k": k}, epochs=1)
    total = sum(p.numel() for p in net.parameters())
    assert round(100 * sum(trainable) / total, 1) == percent
    assert (sum(trainable) == total) == (k > 4)


@pytest.mark.tried(
    "the last layer norm of a TinyViT among its last stages",
    "cf_k leaves it frozen for every k up to the three stages of the published code",
)
@pytest.mark.parametrize(("k", "percent"), [(0, 0.0), (1, 45.9), (2, 94.1), (3, 98.9)])
def test_what_moves_in_a_tiny_vit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, k: int, percent: float
) -> None:
    """45.9, 94.1 and 98.9 % of its parameters follow from the published code."""
    names = set[str]()

    def watch(model: nn.Module, *_: Any, **__: Any) -> nn.Module:
        names.update(name for name, p in model.named_parameters() if p.requires_grad)
        return model

    monkeypatch.setattr(module, "descend", watch)
    net = tiny_vit((3, 32, 32), 10, norm="batch")
    cf_k(net, bench.task, **{**SETTINGS, "k": k}, epochs=1)
    assert not {name for name in names if name.startswith("head.norm")}
    share = sum(net.get_parameter(name).numel() for name in names) / 10_552_462
    assert round(100 * share, 1) == percent
    assert k > 0 or names == {"head.fc.weight", "head.fc.bias"}


def test_the_pull_to_the_start_keeps_it_near(bench: Bench) -> None:
    def away(proximity: float) -> Tensor:
        net = bench.run(cf_k, bench.task, **{**SETTINGS, "proximity": proximity}, epochs=5)
        pairs = zip(net.parameters(), bench.original.parameters(), strict=True)
        return torch.stack([(p - before).norm() for p, before in pairs]).norm()

    assert away(1.0) < 0.9 * away(0.0)


def test_forget_rows_have_no_say(bench: Bench) -> None:
    task = bench.task
    spoiled = replace(task, forget=task.forget.relabelled((task.forget.y + 1) % 10))
    net = bench.run(cf_k, spoiled, **SETTINGS, epochs=2)
    assert same(net.state_dict(), bench.run(cf_k, bench.task, **SETTINGS, epochs=2).state_dict())
