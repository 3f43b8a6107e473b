import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import resnet18

from unlearnbench.model.norm import groups, swap


def plain_mlp():
    return nn.Sequential(
        nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8)
    )


STOCK = {
    "mlp": (plain_mlp, (12,)),
    "resnet18": (lambda: resnet18(weights=None, num_classes=10), (3, 32, 32)),
    # Its batch norms carry an activation, and behind some of them there is dropout.
    "mobilenetv3_small_050": (lambda: timm.create_model("mobilenetv3_small_050"), (3, 32, 32)),
    "seresnext26ts": (lambda: timm.create_model("seresnext26ts", drop_block_rate=0.1), (3, 64, 64)),
    # It puts tokens beside rows in front of a BatchNorm1d.
    "levit_128s": (lambda: timm.create_model("levit_128s", img_size=32), (3, 32, 32)),
}


@pytest.mark.parametrize("name", sorted(STOCK))
def test_batch_is_the_stock_net_for_two_rows_and_more(name):
    make, shape = STOCK[name]
    torch.manual_seed(0)
    stock = make()
    net = swap(copy.deepcopy(stock), "batch")
    assert list(net.state_dict()) == list(stock.state_dict())
    x = torch.randn(4, *shape)
    for training in (True, False):
        torch.manual_seed(1)
        expected = stock.train(training)(x)
        torch.manual_seed(1)
        assert torch.equal(net.train(training)(x), expected)
    for key, value in stock.state_dict().items():  # running statistics too
        assert torch.equal(net.state_dict()[key], value), key
    stock.load_state_dict(net.state_dict())


@pytest.mark.parametrize("name", sorted(set(STOCK) - {"levit_128s"}))
def test_one_row_in_train_mode_is_one_row_in_eval_mode(name):
    make, shape = STOCK[name]
    torch.manual_seed(0)
    net = swap(make(), "batch")
    net(torch.randn(8, *shape))  # statistics other than the initial ones
    for module in net.modules():
        if "Drop" in type(module).__name__:
            module.eval()
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(1, *shape)
    one = net(x)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(norm.training for norm in net.modules() if isinstance(norm, _BatchNorm))
    torch.testing.assert_close(one, net.eval()(x))


def test_stock_resnet18_crashes_on_one_row():
    """Else `batch` would have no reason to be."""
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        resnet18(weights=None)(torch.randn(1, 3, 32, 32))


def test_a_batch_norm_without_statistics_keeps_using_those_of_its_one_row():
    net = swap(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "batch")
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(net(x), F.batch_norm(x, None, None, training=True))


def test_dropout_inside_a_batch_norm_is_left_on_for_one_row():
    norm = timm.layers.BatchNormAct2d(4, drop_layer=nn.Dropout)
    net = swap(nn.Sequential(norm), "batch")
    torch.manual_seed(0)
    assert 0.3 < (net(torch.ones(1, 4, 50, 50)) == 0).float().mean() < 0.7


def test_swapping_twice_is_swapping_once():
    net = swap(plain_mlp(), "batch")
    classes = [type(m) for m in net.modules()]
    assert [type(m) for m in swap(net, "batch").modules()] == classes
    assert not any(isinstance(m, _BatchNorm) for m in swap(net, "group").modules())


@pytest.mark.parametrize("name", sorted(STOCK))
def test_group_leaves_no_batch_norm_and_no_batch_mate_counts(name):
    make, shape = STOCK[name]
    torch.manual_seed(0)
    net = swap(make(), "group")
    assert not any(isinstance(m, _BatchNorm) for m in net.modules())
    assert any(isinstance(m, nn.GroupNorm) for m in net.modules())
    for module in net.modules():
        if "Drop" in type(module).__name__:
            module.eval()
    x = torch.randn(4, *shape)
    outputs = net(x)
    assert outputs.std(0).max() > 0  # rows are told apart
    torch.testing.assert_close(net(x[:1]), outputs[:1], rtol=1e-4, atol=1e-5)
    outputs.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    copy.deepcopy(net).load_state_dict(net.state_dict())


def test_group_keeps_activation_and_parameters_of_the_batch_norm():
    norm = timm.layers.BatchNormAct2d(16, eps=0.1, act_layer=nn.SiLU)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    weight, bias = norm.weight, norm.bias
    net = swap(nn.Sequential(norm), "group")
    x = torch.randn(2, 16, 5, 5)
    expected = F.silu(F.group_norm(x, 4, weight, bias, eps=0.1))
    torch.testing.assert_close(net(x), expected)
    assert [id(p) for p in net.parameters()] == [id(weight), id(bias)]


def test_group_takes_batch_norms_without_parameters():
    net = swap(nn.Sequential(nn.BatchNorm1d(8, affine=False)), "group")
    x = torch.randn(3, 8)
    torch.testing.assert_close(net(x), F.group_norm(x, 2))


@pytest.mark.parametrize(
    ("channels", "count"), [(1, 1), (3, 1), (4, 1), (8, 2), (64, 16), (88, 22), (127, 1), (512, 32)]
)
def test_number_of_groups(channels, count):
    assert groups(channels) == count
