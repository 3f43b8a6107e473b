"""What methods share keeps to its formulas, and touches no tensor but those it names."""

import math
from dataclasses import replace

import pytest
import torch
from cells import compose
from method.bench import Bench, same, weights
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.seeding import generator
from unlearnbench.method import _ops as ops
from unlearnbench.method import _rewind as rewind
from unlearnbench.model.cnn import cnn
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def bench(workspace: Workspace) -> Bench:
    return Bench(workspace, compose())


@pytest.fixture
def net() -> nn.Module:
    return cnn((1, 8, 8), 10, norm="batch")


def changed(net: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}


def copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "draws"))


def test_a_teacher_shares_no_storage(net: nn.Module) -> None:
    teacher = ops.frozen(net.train())
    mine, theirs = ({t.data_ptr() for t in m.state_dict().values()} for m in (net, teacher))
    assert not mine & theirs
    assert same(teacher.state_dict(), net.state_dict())
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert net.training
    assert all(p.requires_grad for p in net.parameters())


def test_kl_is_the_sum_by_hand_a_mean_over_rows() -> None:
    t, s = draws(5, 3), draws(5, 3, seed=1)
    p, q = (t / 2).softmax(1), (s / 2).softmax(1)
    torch.testing.assert_close(ops.kl(t, s, 2.0), (p * (p.log() - q.log())).sum() / 5)
    assert ops.kl(t, t + 7.0, 2.0) == pytest.approx(0, abs=1e-6)


def test_entropy_of_a_uniform_posterior_is_log_c() -> None:
    found = ops.entropy(torch.tensor([[3.0] * 4, [1000.0, 0.0, 0.0, 0.0]]))
    assert found.tolist() == pytest.approx([math.log(4), 0.0])


def test_class_counts_are_at_least_one(bench: Bench) -> None:
    part = bench.task.retain.chosen(torch.arange(5))
    found = ops.class_counts(part.relabelled(torch.tensor([0, 0, 3, 0, 3])), 5)
    assert found.tolist() == [3, 1, 1, 2, 1]


def test_rows_to_forget_are_marked(bench: Bench) -> None:
    both = ops.marked(bench.task)
    assert set(both.rows[both.y].tolist()) == set(bench.parts.forget.tolist())
    assert set(both.rows[~both.y].tolist()) == set(bench.parts.retain.tolist())


def test_error_is_the_share_of_wrong_rows(bench: Bench) -> None:
    task = bench.task
    with torch.no_grad():
        called = bench.original(bench.data.inputs(task.val.rows)).argmax(1)
    expected = float((called != task.val.y).float().mean())
    assert ops.error(bench.original.train(), task.val) == pytest.approx(expected)
    assert expected > 0


def test_a_record_returns_to_the_epoch_that_errs_most_alike(bench: Bench) -> None:
    record, net = rewind.Record(bench.original, bench.task), bench.original
    for epoch in (1, 2):
        with torch.no_grad():
            next(net.parameters()).zero_()
        record(net, epoch)
    assert len(record.states) == len(record.errors_F) == 3
    assert same(record.states[0], bench.original.state_dict())
    err_V = ops.error(net, bench.task.val)
    for errors, j in (([err_V + 0.3, err_V - 0.1, err_V + 0.2], 1), ([err_V, 1.0, err_V], 0)):
        record.errors_F = errors
        assert record.nearest(net) == j


def test_a_record_compares_with_validation_rows_of_the_forgotten_classes(bench: Bench) -> None:
    task = bench.task
    fives = task.forget.chosen((task.forget.y == 5).nonzero().flatten())
    record = rewind.Record(bench.original, replace(task, forget=fives))
    assert len(record.val.rows) == int((task.val.y == 5).sum())
    assert set(record.val.y.tolist()) == {5}
    nines = task.val.chosen((task.val.y == 9).nonzero().flatten())
    with pytest.raises(Skip, match="validation rows"):
        rewind.Record(bench.original, replace(task, forget=fives, val=nines))


def test_the_tail_counts_stages_from_the_head(net: nn.Module) -> None:
    def names(k: int) -> set[str]:
        return {name.split(".")[0] for name in ops.tail(net, k)}

    assert names(0) == {"head"}
    assert names(1) == {"head", "stage2"}
    assert set(ops.tail(net, 9)) == set(net.state_dict())


def test_the_ends_are_the_stems_convolutions_and_the_head(net: nn.Module) -> None:
    assert [type(module) for module in ops.ends(net)] == [nn.Conv2d, nn.Sequential]
    big = resnet18((3, 32, 32), 10, norm="batch")
    assert ops.ends(big) == [big.conv1, big.fc]
    assert ops.top_convolutions(big) == [big.conv1]
    assert ops.top_convolutions(net) == []


def test_norms_are_the_affine_tensors_of_every_kind() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4))
    assert [id(p) for p in ops.norms(net)] == [id(p) for m in net[1:] for p in m.parameters()]


def test_only_the_named_tensors_have_a_gradient_inside_the_block(net: nn.Module) -> None:
    chosen = ops.norms(net)
    with ops.only(net, chosen) as movable:
        assert [id(p) for p in movable] == [id(p) for p in chosen]
        assert sum(p.requires_grad for p in net.parameters()) == len(chosen)
    assert all(p.requires_grad for p in net.parameters())


def test_reset_draws_default_weights_for_the_named_layers_alone(net: nn.Module) -> None:
    before, state = copied(net), torch.random.get_rng_state()
    ops.reset(ops.ends(net), generator(0, "reset"))
    assert changed(net, before) == {"stem.0.weight", "head.2.weight", "head.2.bias"}
    assert net.state_dict()["head.2.weight"].abs().max() <= 1 / math.sqrt(64)
    assert torch.equal(torch.random.get_rng_state(), state)
    once = copied(net)
    ops.reset(ops.ends(net), generator(0, "reset"))
    assert not changed(net, once)
    with torch.no_grad():
        net(draws(4, 1, 8, 8))
    ops.reset([net], generator(1, "reset"))
    assert all(not t.any() for name, t in net.state_dict().items() if "running_mean" in name)


def test_shaking_adds_noise_of_the_asked_size(net: nn.Module) -> None:
    before, W = copied(net), net.get_parameter("stage1.0.weight")
    ops.shake([W], 0.5, generator(0, "noise"))
    assert changed(net, before) == {"stage1.0.weight"}
    added = W.detach() - before["stage1.0.weight"]
    assert float(added.std()) == pytest.approx(0.5, rel=0.02)
    assert float(added.mean()) == pytest.approx(0, abs=0.02)


def test_the_share_acted_on_is_noted(bench: Bench) -> None:
    told: dict[str, float] = {}
    net = bench.original
    W = net.get_parameter("stem.0.weight")
    ops.note_acted_on(replace(bench.task, note=told.__setitem__), net, [W])
    expected = W.numel() / sum(p.numel() for p in weights(net).values())
    assert told == {"acted_on": pytest.approx(expected)}
