"""EU-k as run: weights drawn anew by a rule of its own, then CF-k on augmented rows."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch
from method.bench import Bench, same, weights
from torch import Generator, Tensor, nn

from unlearnbench.method import eu_k_as_run as module
from unlearnbench.method.cf_k import cf_k
from unlearnbench.method.eu_k_as_run import eu_k_as_run
from unlearnbench.model.tiny_vit import tiny_vit
from unlearnbench.pipeline import inputs

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


@pytest.mark.tried(
    "eu_k_as_run with k of 4 and more on a TinyViT: its stage of convolutions drawn anew",
    "three stages at most are drawn anew, those with attention, as in the published code",
)
@pytest.mark.parametrize("k", [1, 3, 4, 10])
def test_what_is_drawn_of_a_tiny_vit(bench: Bench, monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    """Of the stages with attention and the head; layer norms and attention biases are not drawn."""
    trained = list[int]()

    def watch(model: nn.Module, *_: Any, k: int, **__: Any) -> nn.Module:
        trained.append(k)
        return model

    monkeypatch.setattr(module, "cf_k", watch)
    net = tiny_vit((3, 32, 32), 10, norm="batch")
    before = {name: p.clone() for name, p in net.named_parameters()}
    eu_k_as_run(net, bench.task, **SETTINGS, epochs=0, k=k)
    drawn = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    tops = {"3": "stages.3.blocks", "2": "stages.2.blocks", "1": "stages.1.blocks"}
    halving = {"2": "stages.3.downsample", "1": "stages.2.downsample"}
    stages = [str(4 - n) for n in range(1, min(k, 3) + 1)]
    places = ["head.fc", *(p[s] for p in (tops, halving) for s in stages if s in p)]
    assert {next(p for p in places if name.startswith(f"{p}.")) for name in drawn} == set(places)
    assert trained == [min(k, 3)]


def test_the_training_is_cf_ks_on_augmented_rows(bench: Bench) -> None:
    data = replace(bench.data, augment=flicker)
    drawn = bench.run(eu_k_as_run, bench.task, **SETTINGS, epochs=0, k=1)
    task = inputs.task(bench.cell, data, bench.parts)
    augmented = replace(task, retain=task.retain.augmented())
    other = cf_k(drawn, augmented, **SETTINGS, epochs=2, k=1)
    task = inputs.task(bench.cell, data, bench.parts)
    net = bench.run(eu_k_as_run, task, **SETTINGS, epochs=2, k=1)
    assert same(net.state_dict(), other.state_dict())
