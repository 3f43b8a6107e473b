"""RNI: in its limit finetuning from a new head; noise for tensors drawn for the first time."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, same, weights
from torch import Tensor, nn

from unlearnbench.core.seeding import generator
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.method import rni as module
from unlearnbench.method.rni import CHOSEN, rni
from unlearnbench.model.mlp import mlp
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.train.loop import descend

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
    assert len(noisy) == 1
    bench.run(rni, bench.task, **loud, epochs=3, quiet=0.0, fine=0.34)
    assert [len(tensors) for tensors in noisy[1:2]] == [3], "half of the net's 5 without a norm"


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """No epoch is walked: what is drawn and what gets noise does not depend on it."""
    monkeypatch.setattr(module, "descend", lambda model, *_, **__: model)


@pytest.mark.tried(
    "noise for a tensor that was drawn in an earlier epoch without getting noise",
    "a tensor gets noise in the epoch in which it is drawn for the first time, or never",
)
@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("quiet", [0.0, 0.25])
def test_noise_is_for_tensors_that_no_earlier_epoch_has_drawn(
    bench: Bench, noisy: list[list[Tensor]], quiet: float
) -> None:
    """Drawn with noise or without, in the quiet epochs too."""
    task = bench.task
    net = rni(deep(task), task, **SETTINGS, epochs=8, quiet=quiet, fine=0.0)
    norms = {id(p) for p in ops.norms(net)}
    others = [p for p in net.parameters() if id(p) not in norms]
    draw, seen, expected = task.generator("tensors"), set[int](), []
    for e in range(8):
        S = torch.randperm(len(others), generator=draw)[:CHOSEN].tolist()
        expected.append({id(others[i]) for i in S[:6] if i not in seen})  # ⌊0.7 · 9⌋
        seen |= set(S)
        if e < 8 * quiet:
            del expected[-1]
    assert [{id(p) for p in tensors} for tensors in noisy] == expected


@pytest.mark.usefixtures("untrained")
def test_a_small_net_gets_noise_after_a_quiet_epoch(
    bench: Bench, noisy: list[list[Tensor]]
) -> None:
    """Of no more than 9 tensors half are drawn: were it all, the first epoch would leave none."""
    for seed in range(20):
        task = replace(bench.task, generator=lambda purpose, seed=seed: generator(seed, purpose))
        bench.run(rni, task, **SETTINGS, epochs=9, quiet=1 / 9, fine=4 / 9)
    assert sum(len(tensors) for tensors in noisy) > 10


@pytest.mark.usefixtures("untrained")
def test_how_many_tensors_of_a_resnet18_get_noise(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """⌊9ρ⌋ in each of the epochs 1 to 4, less those of them that were drawn: (1 − 9/22)^e are new.

    22 are the tensors of no norm. 7.6 in all; 15.8 where only those with noise are passed over.
    """
    net, counts = resnet18((3, 32, 32), 10, norm="batch"), []
    monkeypatch.setattr(ops, "shake", lambda tensors, *_: counts.append(len(tensors)))
    for seed in range(300):
        task = replace(bench.task, generator=lambda purpose, seed=seed: generator(seed, purpose))
        rni(net, task, **SETTINGS, epochs=9, quiet=1 / 9, fine=4 / 9)
    per_run = torch.tensor(counts).view(300, 4).sum(1).double()
    expected = sum(6 * (1 - 9 / 22) ** e for e in range(1, 5))
    assert per_run.mean() == pytest.approx(expected, abs=4 * float(per_run.std()) / 300**0.5)
    assert per_run.std() < 2


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
