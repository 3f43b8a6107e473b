"""SISA from scratch: one net a shard of the retain rows, whatever the forget rows say."""

from dataclasses import replace

import torch
from cells import compose
from method.bench import Bench, same
from torch import nn

from unlearnbench.core.data import Batches
from unlearnbench.method.sisa_retrain import sisa_retrain
from unlearnbench.pipeline.workspace import Workspace


def test_one_shard_is_a_training_on_the_retain_rows(workspace: Workspace) -> None:
    """In the order of its own generators, from its own initial weights."""
    bench = Bench(workspace, compose("model=mlp", "train.call.epochs=1"))
    net = bench.run(sisa_retrain, bench.task, shards=1, slices=1)
    task = bench.task
    order = torch.randperm(len(task.train.rows), generator=task.generator("shards"))
    kept = task.train.chosen(order[~torch.isin(task.train.rows[order], task.forget.rows)])
    draws = {what: task.generator(f"shard 0 slice 0 {what}") for what in ("order", "noise")}
    other = task.fit(task.fresh("shard 0"), replace(kept, **draws))
    assert same(net.get_submodule("members.0").state_dict(), other.state_dict())


def test_a_slice_is_trained_on_with_those_before_it_and_no_forget_row(workspace: Workspace) -> None:
    bench = Bench(workspace, compose("model=mlp", "train.call.epochs=1"))
    task, walked = bench.task, list[Batches]()

    def fit(net: nn.Module, batches: Batches) -> nn.Module:
        walked.append(batches)
        return net

    bench.run(sisa_retrain, replace(task, fit=fit), shards=2, slices=3)
    assert len(walked) == 6
    rows = [set(batches.rows.tolist()) for batches in walked]
    assert rows[0] < rows[1] < rows[2]
    assert rows[3] < rows[4] < rows[5]
    assert not rows[2] & rows[5]
    assert rows[2] | rows[5] == set(task.retain.rows.tolist())
    assert all(torch.equal(one.y, bench.data.y[one.rows]) for one in walked)


def test_forget_rows_have_no_say(workspace: Workspace) -> None:
    bench = Bench(workspace, compose("model=mlp", "train.call.epochs=1"))
    task = bench.task
    wrong = torch.where(torch.isin(task.train.rows, task.forget.rows), 0, task.train.y)
    nets = [
        bench.run(sisa_retrain, one, shards=2, slices=1)
        for one in (bench.task, replace(task, train=task.train.relabelled(wrong)))
    ]
    assert same(nets[0].state_dict(), nets[1].state_dict())
