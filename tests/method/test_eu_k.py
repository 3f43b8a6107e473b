"""EU-k is retraining of the last k stages alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import SGD, Bench, same, weights
from torch import Generator, Tensor

from unlearnbench.core.task import Task
from unlearnbench.method.eu_k import eu_k
from unlearnbench.method.retrain import retrain
from unlearnbench.pipeline import inputs

TAIL = ("stage2.", "head.")


def flicker(x: Tensor, generator: Generator) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def augmented(bench: Bench) -> Task:
    """A task whose training augments; that of the digits does not."""
    return inputs.task(bench.cell, replace(bench.data, augment=flicker), bench.parts)


@pytest.mark.parametrize("k", [3, 10])
def test_of_all_stages_with_trainings_settings_it_is_retraining(bench: Bench, k: int) -> None:
    settings: dict[str, Any] = dict(bench.cell.train["call"])
    del settings["_target_"]
    net = bench.run(eu_k, augmented(bench), **settings, k=k)
    retrained = retrain(bench.fresh(), augmented(bench))
    assert same(net.state_dict(), retrained.state_dict())


def test_no_epochs_leaves_initial_weights_and_statistics_in_the_tail(bench: Bench) -> None:
    net = bench.run(eu_k, bench.task, sgd=SGD, epochs=0, batch_size=64, k=1)
    initial, before = bench.fresh().state_dict(), bench.original.state_dict()
    expected = {name: (initial if name.startswith(TAIL) else before)[name] for name in before}
    assert same(net.state_dict(), expected)
    assert not same(before, expected)


def test_frozen_parameters_stay_and_their_batch_norms_count_on(bench: Bench) -> None:
    net = bench.run(eu_k, bench.task, sgd=SGD, epochs=1, batch_size=64, k=1)
    before, after = weights(bench.original), weights(net)
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    assert stayed == {name for name in before if not name.startswith(TAIL)}
    steps = len(bench.task.retain.batched(64))
    counts = {name: int(n) for name, n in net.named_buffers() if name.endswith("tracked")}
    old = {name: int(n) for name, n in bench.original.named_buffers() if name in counts}
    for name, count in counts.items():
        assert count == steps + (0 if name.startswith(TAIL) else old[name])
