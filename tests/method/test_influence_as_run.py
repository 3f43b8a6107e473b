"""Influence as run: a recursion that moves the start along the first row's gradient only."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from cells import compose
from method.bench import TOLERANCE, Bench, same
from torch import Tensor, nn

from unlearnbench.core.data import Batches
from unlearnbench.core.task import Task
from unlearnbench.method.influence_as_run import influence_as_run

LARGE = 1e4  # the step has to drown the rounding of the weights it is added to


@pytest.fixture(scope="module")
def linear(bench: Bench) -> Bench:
    return Bench(bench.workspace, compose("model=logreg"))


def vector(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()]).double()


def gradients(net: nn.Module, task: Task, part: Batches) -> Iterator[Tensor]:
    """Of one row after the other, in their order, in eval mode."""
    net.eval()
    for x, y in part.batched(1).ordered():
        g = torch.autograd.grad(task.loss(net, x, y), list(net.parameters()))
        yield torch.cat([one.flatten() for one in g]).double()


def start(net: nn.Module, task: Task) -> Tensor:
    """Σ_F g/n − n_F/(n·n_R) Σ_R g."""
    n_F, n_R = len(task.forget.rows), len(task.retain.rows)
    g_F = torch.stack(list(gradients(net, task, task.forget))).sum(0)
    g_R = torch.stack(list(gradients(net, task, task.retain))).sum(0)
    return g_F / (n_F + n_R) - n_F / ((n_F + n_R) * n_R) * g_R


def step(bench: Bench, task: Task) -> Tensor:
    net = bench.run(influence_as_run, task, alpha=LARGE)
    assert same(dict(net.named_buffers()), dict(bench.original.named_buffers()))
    return (vector(net) - vector(bench.original)) / LARGE


def few(task: Task) -> Task:
    """Forty rows, for nets whose gradients take their time."""
    kept, gone = torch.arange(30), torch.arange(10)
    return replace(task, retain=task.retain.chosen(kept), forget=task.forget.chosen(gone))


def test_no_step_is_the_identity(bench: Bench) -> None:
    net = bench.run(influence_as_run, few(bench.task), alpha=0.0)
    assert same(net.state_dict(), bench.original.state_dict())


@pytest.mark.parametrize("model", ["cnn", "logreg"])
def test_against_the_recursion_by_hand(bench: Bench, linear: Bench, model: str) -> None:
    """Over 1,002 rows of more, in the order of the data set."""
    used = bench if model == "cnn" else linear
    task = few(used.task) if model == "cnn" else used.task
    net, seen = used.original, 0
    v = k = start(net, task)
    for g in gradients(net, task, task.retain):
        seen += 1
        if seen == 1:
            o = g
            continue
        d = o.dot(g)
        k = k - k.dot(g) / (1000 + d) * o
        o = o - d / (1000 + d) * o
        if seen == 1002:
            break
    assert seen == 30 if model == "cnn" else seen < len(task.retain.rows)
    found = step(used, task)
    assert (found - k).norm() < TOLERANCE * (k - v).norm()


def test_the_start_moves_along_the_first_gradient(linear: Bench) -> None:
    task, net = linear.task, linear.original
    first = next(gradients(net, task, task.retain))
    moved = step(linear, task) - start(net, task)
    assert abs(torch.cosine_similarity(moved, first, dim=0)) > 0.9999
