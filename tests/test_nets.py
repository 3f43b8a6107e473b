import copy

import torch
from torch import nn

from unlearnbench.model.cnn import cnn
from unlearnbench.model.mlp import mlp
from unlearnbench.train import gradient


def test_the_head_is_the_last_linear_layer() -> None:
    net = mlp((6,), 3, hidden=[5, 4], norm="none")
    found = gradient.head(net)
    assert found is net.head
    assert found.out_features == 3
    assert gradient.head(cnn((1, 8, 8), 7, norm="batch")) is not None
    assert gradient.head(nn.Sequential(nn.Conv2d(1, 2, 3))) is None
    assert gradient.head(nn.Linear(3, 2, bias=False)) is None


def test_outputs_are_those_of_a_net_that_holds_the_parameters() -> None:
    ours, other = (cnn((1, 8, 8), 4, norm="batch") for _ in range(2))
    x = torch.rand(20, 1, 8, 8)
    other.train()(x)  # its statistics move
    other.eval()
    before = copy.deepcopy(ours.eval()).state_dict()
    found = gradient.outputs(ours, gradient.theta(other), gradient.buffers(other), x)
    torch.testing.assert_close(found, other(x))
    assert not torch.allclose(found, ours(x))
    without = gradient.outputs(ours, gradient.theta(other), gradient.buffers(ours), x)
    assert not torch.allclose(found, without), "statistics have their say"
    assert all(torch.equal(one, before[name]) for name, one in ours.state_dict().items())


def test_a_net_without_statistics_has_none() -> None:
    net = mlp((6,), 3, hidden=[5], norm="none")
    assert gradient.buffers(net).shape == (0,)
    assert len(gradient.theta(net)) == 6 * 5 + 5 + 5 * 3 + 3
    x = torch.rand(4, 6)
    twice = gradient.outputs(net, 2 * gradient.theta(net), gradient.buffers(net), x)
    assert not torch.allclose(twice, net(x))
