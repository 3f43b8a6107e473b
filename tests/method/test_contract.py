"""What every method keeps to, whatever it computes."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import Bench, same
from torch import nn

from unlearnbench import config, pipeline
from unlearnbench.cell import Cell
from unlearnbench.seeding import seeded

METHODS = [name for name in config.options("method") if name != "original"]  # it calls nothing
OTHER_MODELS = [
    "logreg",
    "mlp",
    "resnet18",
    "resnet18_cifar",
    pytest.param("tiny_vit", marks=pytest.mark.slow),
]


def cell_of(*words: str) -> Cell:
    (cell,) = config.cells([["train.call.epochs=2", "attack=none", *words]])
    return cell


def call(bench: Bench, cell: Cell) -> tuple[nn.Module, nn.Module]:
    """The method's start and its result."""
    method, arguments = pipeline.target(cell.method["call"])
    start = bench.fresh() if cell.from_scratch else bench.original
    task = pipeline.task(cell, bench.data, bench.parts)
    with seeded(cell.model_seed, "global"):
        return start, method(deepcopy(start), task, **arguments)


@pytest.mark.parametrize("name", METHODS)
def test_contract(bench: Bench, name: str) -> None:
    cell = cell_of(f"method={name}")
    x_before, y_before = bench.data.x.clone(), bench.data.y.clone()
    state = torch.random.get_rng_state()
    start, once = call(bench, cell)
    _, twice = call(bench, cell)
    assert torch.equal(torch.random.get_rng_state(), state), "global generator moved"
    assert same(once.state_dict(), twice.state_dict()), "not deterministic"
    assert all(t.isfinite().all() for t in once.state_dict().values() if t.is_floating_point())
    assert not any(module.training for module in once.modules()), "not in eval mode"
    assert all(p.requires_grad for p in once.parameters()), "gradients are off"
    assert not same(once.state_dict(), start.state_dict()), "nothing changed"
    shapes = {key: tensor.shape for key, tensor in once.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in start.state_dict().items()}
    assert torch.equal(bench.data.x, x_before)
    assert torch.equal(bench.data.y, y_before)


@pytest.mark.parametrize("name", METHODS)
def test_seed_changes_the_result(bench: Bench, name: str) -> None:
    _, once = call(bench, cell_of(f"method={name}"))
    cell = replace(cell_of(f"method={name}"), seed=1)
    _, other = call(bench, cell)
    assert not same(once.state_dict(), other.state_dict())


def hyper_parameters() -> list[Any]:
    return [
        (name, path)
        for name in METHODS
        for path, _ in config._leaves(cell_of(f"method={name}").method["call"], "")
        if path != "_target_"
    ]


@pytest.mark.parametrize(("name", "path"), hyper_parameters())
def test_every_hyper_parameter_changes_the_result(bench: Bench, name: str, path: str) -> None:
    cell = cell_of(f"method={name}", f"method.call.{path}={OTHER[path.split('.')[-1]]}")
    _, once = call(bench, cell_of(f"method={name}"))
    _, other = call(bench, cell)
    assert not same(once.state_dict(), other.state_dict())


OTHER = {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.01, "epochs": 2, "batch_size": 50}
OTHER |= {"alpha": 0.5}


@pytest.mark.parametrize("model", OTHER_MODELS)
@pytest.mark.parametrize("name", METHODS)
def test_runs_on_every_model(name: str, model: str) -> None:
    """Two small batches through each net: finite, and something changed."""
    small = [] if name in ("retrain", "second_retrain") else ["method.call.epochs=1"]
    if small:
        small.append("method.call.batch_size=16")
    words = [f"method={name}", f"model={model}", "train.call.batch_size=16", *small]
    cell = replace(cell_of(*words, "train.call.epochs=1"), attack={"call": None})
    data = pipeline.dataset(cell)
    parts = pipeline._split_of(cell, data)
    kept, gone = parts.retain[:32], parts.forget[:17]  # the last batch of 17 by 16 is one row
    few = replace(parts, train=torch.cat([kept, gone]), forget=gone)
    method, arguments = pipeline.target(cell.method["call"])
    start = pipeline.fresh(cell, data)
    with seeded(0, "global"):
        net = method(deepcopy(start), pipeline.task(cell, data, few), **arguments)
    assert all(t.isfinite().all() for t in net.state_dict().values() if t.is_floating_point())
    assert not same(net.state_dict(), start.state_dict())
