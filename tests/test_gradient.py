"""Gradients, products with the Fisher matrix and masks against brute force on a tiny net."""

from collections import OrderedDict

import pytest
import torch
from torch import Generator, Tensor, nn

from unlearnbench.core.data import Batches, Dataset, Loss
from unlearnbench.train import gradient
from unlearnbench.train.loop import cross_entropy, squared_error

N = 11  # not a multiple of the batch sizes below


class Net(nn.Module):
    """Layers whose names are not in alphabetical order, and a parameter no loss reaches."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.ones(2, 2))
        layers = {"z": nn.Linear(4, 3), "b": nn.BatchNorm1d(3), "t": nn.Tanh()}
        self.body = nn.Sequential(OrderedDict(layers, a=nn.Linear(3, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


def net(outputs: int = 3) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Net(outputs)
        made(torch.randn(50, 4) * 2 + 1)  # running statistics that are not those of any batch
        return made


def part(size: int, *, classes: int = 3) -> Batches:
    drawn = Generator().manual_seed(1)
    x = torch.randn(N, 4, generator=drawn)
    y = torch.randint(classes, (N,), generator=drawn) if classes else x @ torch.ones(4)
    data = Dataset(x, y, classes, "tabular", torch.arange(N), torch.arange(0))
    return Batches(data, torch.arange(N), y, size, Generator().manual_seed(2), Generator())


def by_hand(model: nn.Module, batches: Batches, loss: Loss, rows: slice) -> list[Tensor]:
    value = loss(model.eval(), batches.data.x[rows], batches.y[rows])
    found = torch.autograd.grad(value, list(model.parameters()), materialize_grads=True)
    return list(found)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_gradient_is_that_of_the_mean_loss_in_eval_mode(size: int) -> None:
    model = net()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = gradient.gradient(model, part(size), cross_entropy)
    torch.testing.assert_close(found, by_hand(net(), part(size), cross_entropy, slice(N)))
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_of_rows_are_those_of_each_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "ROWS_AT_ONCE", 4)
    batches = part(100).ordered()
    found = list(gradient.gradients_of_rows(net(), batches, cross_entropy))
    assert [len(rows[0]) for rows in found] == [4, 4, 3]
    rows = [torch.cat(parts) for parts in zip(*found, strict=True)]
    for i in range(N):
        expected = by_hand(net(), batches, cross_entropy, slice(i, i + 1))
        torch.testing.assert_close([one[i] for one in rows], expected)
    mean = gradient.gradient(net(), batches, cross_entropy)
    torch.testing.assert_close([one.mean(0) for one in rows], mean)


def test_influence_gradient_is_a_weighted_sum_over_rows() -> None:
    """Σ_F g/n − n_F/(n·n_R) Σ_R g."""
    forget, retain = (part(2).chosen(torch.arange(*ends)) for ends in ((0, 3), (3, N)))
    found = gradient.influence_gradient(net(), retain, forget, cross_entropy)
    expected = [torch.zeros_like(one) for one in found]
    for i in range(N):
        weight = 1 / N if i < 3 else -3 / (N * (N - 3))
        for total, g in zip(
            expected, by_hand(net(), part(2), cross_entropy, slice(i, i + 1)), strict=True
        ):
            total += weight * g
    torch.testing.assert_close(found, expected)


def fisher(model: nn.Module, batches: Batches) -> Tensor:
    """Mean over rows of Σ_c p_c ∇ log p_c ∇ log p_cᵀ; for one output 2 ∇z ∇zᵀ."""
    theta, total = list(model.eval().parameters()), torch.zeros(())
    for x in batches.data.x:
        z = model(x[None])[0]
        log_p = z.log_softmax(0) if len(z) > 1 else z
        for one, p in zip(log_p, z.softmax(0) if len(z) > 1 else [2.0], strict=True):
            g = torch.autograd.grad(one, theta, retain_graph=True, materialize_grads=True)
            flat = torch.cat([part.flatten() for part in g])
            total = total + p * torch.outer(flat, flat) / N
    return total.detach()


@pytest.mark.parametrize(("loss", "outputs"), [(cross_entropy, 3), (squared_error, 1)])
@pytest.mark.parametrize("size", [4, 100])
def test_curvature_is_the_fisher_matrix(loss: Loss, outputs: int, size: int) -> None:
    batches = part(size, classes=outputs if outputs > 1 else 0)
    F = fisher(net(outputs), batches)
    product = gradient.curvature(net(outputs), batches, loss)
    columns = torch.stack([product(k) for k in torch.eye(len(F))], 1)
    torch.testing.assert_close(columns, F, rtol=1e-4, atol=1e-6)


def test_a_vector_keeps_the_order_of_indices_in_any_memory() -> None:
    tensors = [torch.arange(24.0).reshape(2, 3, 2, 2), torch.arange(24.0, 29.0)]
    tensors[0] = tensors[0].to(memory_format=torch.channels_last)
    assert not tensors[0].is_contiguous()
    assert torch.equal(gradient.flat(tensors), torch.arange(29.0))
    for back, tensor in zip(gradient.unflat(torch.arange(29.0), tensors), tensors, strict=True):
        assert torch.equal(back, tensor)


def test_shift_adds_a_vector() -> None:
    model, by = net(), torch.arange(float(sum(p.numel() for p in net().parameters())))
    gradient.shift(model, by)
    moved = gradient.flat(model.parameters()) - gradient.flat(net().parameters())
    torch.testing.assert_close(moved.detach(), by)


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (0.45, 3), (0.55, 3), (1.0, 7)])
def test_largest_takes_the_floor_over_all_tensors(share: float, n: int) -> None:
    tensors = [torch.tensor([[5.0, -6.0], [0.1, 0.2]]), torch.tensor([-7.0, 0.3, 4.0])]
    masks = gradient.largest(tensors, share)
    assert [mask.shape for mask in masks] == [tensor.shape for tensor in tensors]
    kept = torch.cat([t[mask] for t, mask in zip(tensors, masks, strict=True)]).abs()
    top = torch.tensor([7.0, 6.0, 5.0, 4.0, 0.3, 0.2, 0.1])
    assert torch.equal(kept.sort(descending=True).values, top[:n])


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (0.35, 2), (0.37, 3), (1.0, 7)])
def test_smallest_rounds(share: float, n: int) -> None:
    scores = torch.tensor([3.0, 6.0, 0.0, 5.0, 2.0, 1.0, 4.0]).reshape(7, 1)
    mask = gradient.smallest(scores, share)
    assert mask.shape == scores.shape
    assert torch.equal(scores[mask].sort().values, torch.arange(float(n)))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_hessian_products_are_those_of_the_dense_hessian(size: int) -> None:
    """Of the sum of the rows' losses, in eval mode, however the rows are cut."""
    model, batches = net().double(), part(100)
    x, y = batches.data.x.double(), batches.y
    v_KP = torch.randn(3, len(gradient.flat(model.parameters())), generator=Generator()).double()
    parts = zip(x.split(size), y.split(size), strict=True)
    found = gradient.hessian_products(model, parts, cross_entropy, v_KP)
    theta = gradient.flat(parameter.detach() for parameter in model.parameters())
    names = [name for name, _ in model.named_parameters()]

    def total(theta: Tensor) -> Tensor:
        given = dict(zip(names, gradient.unflat(theta, model.parameters()), strict=True))
        logits = torch.func.functional_call(model.eval(), given, (x,))
        return torch.nn.functional.cross_entropy(logits, y, reduction="sum")

    hessian = torch.func.hessian(total)(theta)
    assert hessian.abs().max() > 0.1
    torch.testing.assert_close(found, v_KP @ hessian, atol=1e-9, rtol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
