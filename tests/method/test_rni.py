"""RNI: in its limit finetuning from a new head; noise at most once a tensor, and never early."""

from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, same, weights
from torch import Tensor, nn

from unlearnbench import ops
from unlearnbench.method.rni import CHOSEN, rni
from unlearnbench.model.mlp import mlp
from unlearnbench.train import descend
from unlearnbench.values import Task

FINE = {**SGD, "lr": 0.02}
SETTINGS: dict[str, Any] = {
    "sgd": SGD,
    "fine_sgd": FINE,
    "batch_size": 64,
    "noise_ratio": 0.7,
    "origin_noise": 0.04,
}


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The tensors that get noise, a list for each epoch that may give some."""
    seen: list[list[Tensor]] = []
    real = ops.shake

    def watched(tensors: list[Tensor], std: float, draw: torch.Generator) -> None:
        seen.append(tensors)
        real(tensors, std, draw)

    monkeypatch.setattr(ops, "shake", watched)
    return seen


def deep(task: Task) -> nn.Module:
    """A net of 14 tensors beside those of norms: more than are chosen for an epoch."""
    net = mlp((1, 8, 8), 10, hidden=[8] * 6, norm="batch").double().eval()
    ops.reset([net], task.generator("deep"))
    return net


def test_all_fine_is_finetuning_from_a_new_head_with_new_momentum_each_epoch(bench: Bench) -> None:
    net = bench.run(rni, bench.task, **SETTINGS, epochs=3, quiet=0.0, fine=1.0)
    task = bench.task
    others = [bench.original, bench.original]
    for other, walks, epochs in zip(others, (3, 1), (1, 3), strict=True):
        ops.reset(ops.head(other), task.generator("reset"))
        retain = bench.task.retain.batched(64)
        for _ in range(walks):
            descend(other, retain, task.loss, sgd=FINE, epochs=epochs)
    assert same(net.state_dict(), others[0].state_dict())
    assert not same(net.state_dict(), others[1].state_dict())


def test_no_noise_before_its_phase_nor_after(bench: Bench, noisy: list[list[Tensor]]) -> None:
    loud = {**SETTINGS, "origin_noise": 50.0, "noise_ratio": 1.0}
    quiet = {**loud, "origin_noise": 0.0}
    one, other = (
        bench.run(rni, bench.task, **s, epochs=2, quiet=0.5, fine=0.5) for s in (loud, quiet)
    )
    assert not noisy
    assert same(one.state_dict(), other.state_dict())
    bench.run(rni, bench.task, **loud, epochs=3, quiet=0.34, fine=0.34)
    assert [len(tensors) for tensors in noisy] == [5], "all of the net's that are no norm's"


def test_a_tensor_gets_noise_at_most_once(bench: Bench, noisy: list[list[Tensor]]) -> None:
    still = {**SETTINGS, "sgd": {**SGD, "lr": 0.0}, "batch_size": 1000}
    task = bench.task
    net = rni(deep(task), task, **still, epochs=8, quiet=0.0, fine=0.0)
    given = [id(p) for tensors in noisy for p in tensors]
    assert len(noisy) == 8
    assert len(noisy[0]) == 6, "⌊0.7 · 9⌋"
    assert 6 < len(given) == len(set(given))
    assert not {id(p) for p in ops.norms(net)} & set(given)


def test_the_chosen_tensors_and_the_norms_move_and_no_other(bench: Bench) -> None:
    task = bench.task
    start, net = deep(task), rni(deep(task), bench.task, **SETTINGS, epochs=1, quiet=0.0, fine=0.0)
    ops.reset(ops.head(start), task.generator("reset"))
    norms = {id(p) for p in ops.norms(start)}
    others = [name for name, p in start.named_parameters() if id(p) not in norms]
    S = torch.randperm(len(others), generator=task.generator("tensors"))[:CHOSEN].tolist()
    still = {others[i] for i in range(len(others)) if i not in S}
    before, after = weights(start), weights(net)
    assert len(still) == 14 - 9
    assert {name for name in before if torch.equal(before[name], after[name])} == still
