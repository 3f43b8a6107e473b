"""EU-k as run: weights drawn anew by a rule of its own, then CF-k on augmented rows."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch
from method.bench import Bench, same, weights
from torch import Generator, Tensor

from unlearnbench import pipeline
from unlearnbench.method.cf_k import cf_k
from unlearnbench.method.eu_k_as_run import eu_k_as_run

SETTINGS: dict[str, Any] = {"lr": 0.1, "decay": 0.1, "proximity": 0.1, "batch_size": 64}
CONVOLUTIONS = {
    "stage1.0": 64 * 9,
    "stage2.0": 64 * 9,
}  # fan out; the fan in of the first is 32 · 9


def flicker(x: Tensor, generator: Generator) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def test_what_is_drawn(bench: Bench) -> None:
    """Uniform within √(6 / fan out) for convolutions and √(6 / (in + out)) for the head."""
    net = bench.run(eu_k_as_run, bench.task, **SETTINGS, epochs=0, k=2)
    bounds = {f"{path}.weight": sqrt(6 / fan) for path, fan in CONVOLUTIONS.items()}
    bounds["head.2.weight"] = sqrt(6 / (64 + 10))
    for name, p in weights(net).items():
        if name in bounds:
            assert 0.99 * bounds[name] < p.abs().max() <= bounds[name]
            assert float(p.std()) == pytest.approx(bounds[name] / sqrt(3), rel=0.05)
        elif name.startswith("stem."):
            assert torch.equal(p, weights(bench.original)[name])
        else:  # batch norms, and the head's bias
            assert bool((p == (1.0 if name.endswith("weight") else 0.0)).all())


def test_draws_differ_from_layer_to_layer(bench: Bench) -> None:
    state = bench.run(eu_k_as_run, bench.task, **SETTINGS, epochs=0, k=2).state_dict()
    one, other = state["stage1.0.weight"].flatten(), state["stage2.0.weight"].flatten()
    assert not torch.equal(one[:100], other[:100])


def test_frozen_tensors_and_all_buffers_stay_to_the_bit(bench: Bench) -> None:
    net = bench.run(eu_k_as_run, bench.task, **SETTINGS, epochs=2, k=1)
    before, after = weights(bench.original), weights(net)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith(("stage2.", "head."))}
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))


def test_the_stem_is_never_drawn_anew_nor_trained(bench: Bench) -> None:
    net = bench.run(eu_k_as_run, bench.task, **SETTINGS, epochs=1, k=10)
    all_stages = bench.run(eu_k_as_run, bench.task, **SETTINGS, epochs=1, k=2)
    assert same(net.state_dict(), all_stages.state_dict())


def test_the_training_is_cf_ks_on_augmented_rows(bench: Bench) -> None:
    data = replace(bench.data, augment=flicker)
    drawn = bench.run(eu_k_as_run, bench.task, **SETTINGS, epochs=0, k=1)
    task = pipeline.task(bench.cell, data, bench.parts)
    augmented = replace(task, retain=task.retain.augmented())
    other = cf_k(drawn, augmented, **SETTINGS, epochs=2, k=1)
    task = pipeline.task(bench.cell, data, bench.parts)
    net = bench.run(eu_k_as_run, task, **SETTINGS, epochs=2, k=1)
    assert same(net.state_dict(), other.state_dict())
