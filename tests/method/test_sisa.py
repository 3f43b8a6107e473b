"""SISA's unlearned shards are those of a training that never saw the forget rows, to the bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cells import compose
from method.bench import same
from torch import nn

from unlearnbench.core.cell import Cell
from unlearnbench.core.data import Batches
from unlearnbench.core.seeding import seeded
from unlearnbench.core.task import Task
from unlearnbench.method import sisa as module
from unlearnbench.method.sisa import prepare, sisa
from unlearnbench.method.sisa_retrain import sisa_retrain
from unlearnbench.model.ensemble import Ensemble
from unlearnbench.pipeline import inputs, models, outputs, rows
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace

WORDS = ["model=mlp", "train.call.epochs=1"]
Forgetting = Callable[..., Cell]


@pytest.fixture
def forgetting(tmp_path: Path) -> Forgetting:
    """A cell that forgets some of the training rows, by their places."""
    data = inputs.dataset(compose(*WORDS))
    train_rows = split_of(compose(*WORDS), data).train

    def make(*words: str, places: list[int]) -> Cell:
        path = tmp_path / f"{len(places)} from {places[0]}.txt"
        path.write_text(" ".join(str(int(train_rows[place])) for place in places))
        return compose(*WORDS, "forget=rows", f"forget.path='{path}'", *words)

    return make


def task_of(cell: Cell, **changes: Any) -> Task:
    data = inputs.dataset(cell)
    return replace(inputs.task(cell, data, split_of(cell, data)), **changes)


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("places", [[3], list(range(40))])
def test_bit_equal_to_training_without_the_forget_rows(
    new_workspace: Workspace, forgetting: Forgetting, places: list[int], slices: int
) -> None:
    one = forgetting("method=sisa", f"method.prepare.slices={slices}", places=places)
    other = forgetting("method=sisa_retrain", f"method.call.slices={slices}", places=places)
    nets = [models.unlearned(new_workspace, cell).state_dict() for cell in (one, other)]
    assert same(*nets)


def test_bit_equal_where_a_net_draws_of_its_own(forgetting: Forgetting) -> None:
    """Dropout draws from the global generator, which other shards must not move."""

    def fresh(purpose: str = "weights") -> nn.Module:
        with seeded(0, purpose):
            return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))

    task = task_of(forgetting(places=[3]), fresh=fresh)
    blind = replace(task, forget=task.forget.chosen(torch.arange(0)))
    other_task = task_of(forgetting(places=[3]), fresh=fresh)
    with seeded(0, "global"):
        held = prepare(fresh(), blind, shards=3, slices=1)
    with seeded(0, "global"):
        net = sisa(fresh(), replace(task, prepared=held))
    with seeded(0, "global"):
        other = sisa_retrain(fresh(), other_task, shards=3, slices=1)
    assert same(net.state_dict(), other.state_dict())


def test_untouched_shards_are_as_prepared(new_workspace: Workspace, forgetting: Forgetting) -> None:
    one = forgetting("method=sisa", places=[3])
    net = models.unlearned(new_workspace, one)
    assert isinstance(net, Ensemble)
    held = models.prepared(new_workspace, one)
    kept = []
    for s, member in enumerate(net.members):
        own = {f"{s}.0.{name}": tensor for name, tensor in member.state_dict().items()}
        kept.append(same(own, {name: held[name] for name in own}))
    assert sorted(kept) == [False, True, True, True, True]


def test_only_the_slices_from_the_first_touched_one_are_trained_again(
    new_workspace: Workspace, forgetting: Forgetting
) -> None:
    one = forgetting("method=sisa", "method.prepare.slices=3", places=[3])
    task, trained = task_of(one, prepared=models.prepared(new_workspace, one)), list[int]()
    (r,) = [
        r
        for parts in module._slices(task, 5, 3)
        for r, places in enumerate(parts)
        if 3 in places.tolist()
    ]

    def fit(net: nn.Module, batches: Batches) -> nn.Module:
        trained.append(len(batches.rows))
        return net

    sisa(inputs.fresh(one, inputs.dataset(one)), replace(task, fit=fit))
    assert len(trained) == 3 - r
    assert trained[-1] in (len(task.train.rows) // 5 - 1, len(task.train.rows) // 5)


def test_shards_and_slices_share_the_training_rows_out(forgetting: Forgetting) -> None:
    task = task_of(forgetting(places=[3]))
    parts = module._slices(task, 5, 2)
    assert [len(shard) for shard in parts] == [2] * 5
    every = torch.cat([places for shard in parts for places in shard])
    assert torch.equal(every.sort().values, torch.arange(len(task.train.rows)))
    sizes = [len(places) for shard in parts for places in shard]
    assert max(sizes) - min(sizes) <= 1


def test_prepared_once_and_blind_to_the_forget_rows(
    workspace: Workspace, new_workspace: Workspace, forgetting: Forgetting
) -> None:
    one, other = (forgetting("method=sisa", places=places) for places in ([3], [7, 8, 9]))
    assert one.prepared_key == other.prepared_key
    assert one.model_key != other.model_key
    held = models.prepared(workspace, one)
    assert same(held, models.prepared(new_workspace, other))


def test_reloaded_from_the_store_it_answers_with_the_mean_posterior(
    new_workspace: Workspace, forgetting: Forgetting
) -> None:
    one = forgetting("method=sisa", places=[3])
    data = inputs.dataset(one)
    net = sisa(
        models.original(new_workspace, one),
        task_of(one, prepared=models.prepared(new_workspace, one)),
    )
    assert isinstance(net, Ensemble)
    found = outputs.predictions(new_workspace, one).logits_MQNC[0, 0]
    with torch.no_grad():
        x = data.inputs(data.rows)
        mean = torch.stack([member(x).softmax(1) for member in net.members]).mean(0)
    torch.testing.assert_close(torch.from_numpy(found).softmax(1), mean, rtol=1e-4, atol=1e-6)
    assert same(models.unlearned(new_workspace, one).state_dict(), net.state_dict())


@pytest.mark.parametrize("method", ["sisa", "sisa_retrain"])
def test_regression_is_skipped(new_workspace: Workspace, method: str) -> None:
    found = rows.rows_of(new_workspace, compose(*WORDS, "dataset=diabetes", f"method={method}"))
    assert {row["status"] for row in found.rows} == {"skipped"}
    assert "posteriors" in found.rows[0]["reason"]
