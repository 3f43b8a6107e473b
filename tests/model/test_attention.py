"""The bias cache of timm: each test fails on timm's own net, as the first one shows."""

import copy

import pytest
import timm
import torch

from unlearnbench.model.attention import uncache
from unlearnbench.model.timm import timm as options_timm
from unlearnbench.model.tiny_vit import tiny_vit

CACHING = ["levit_128s", "efficientformerv2_s0", "efficientvit_m0", "tiny_vit_5m_224"]


def stock(name):
    torch.manual_seed(0)
    sized = {} if name.startswith("tiny_vit") else {"img_size": 64}
    net = timm.create_model(name, num_classes=3, **sized)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # biases, and the norms that end a residual branch
                parameter.normal_()
    return net


def biases(net):
    return [p for name, p in net.named_parameters() if name.endswith("attention_biases")]


X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def backward(net):
    net.zero_grad(set_to_none=True)
    net(X).logsumexp(1).sum().backward()


def test_the_trap_is_there():
    net = stock("tiny_vit_5m_224").eval()
    backward(net)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        backward(net)


@pytest.mark.parametrize("name", CACHING)
def test_same_numbers_as_the_stock_net(name):
    net = stock(name)
    free = uncache(copy.deepcopy(net))
    for training in (True, False):
        torch.manual_seed(1)
        expected = net.train(training)(X)
        torch.manual_seed(1)
        assert torch.equal(free.train(training)(X), expected)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("name", CACHING)
def test_biases_get_gradients_in_eval_mode_again_and_again(name, copied):
    net = uncache(stock(name)).eval()
    with torch.inference_mode():
        net(X)
    if copied:
        net = copy.deepcopy(net)
    backward(net)
    first = [bias.grad for bias in biases(net)]
    backward(net)
    assert first
    for bias, grad in zip(biases(net), first, strict=True):
        torch.testing.assert_close(bias.grad, grad)
        assert grad.any() or bias.shape[1] == 1  # one token attends to itself, whatever the bias


@pytest.mark.parametrize("name", CACHING)
def test_weights_loaded_in_eval_mode_are_used(name):
    net, other = uncache(stock(name)).eval(), uncache(stock(name)).eval()
    with torch.no_grad():
        for bias in biases(other):
            bias.mul_(-2)
        net(X)
        net.load_state_dict(other.state_dict())
        assert torch.equal(net(X), other(X))
        biases(net)[0].add_(torch.arange(biases(net)[0].numel()).view_as(biases(net)[0]))
        assert not torch.equal(net(X), other(X))


@pytest.mark.parametrize(
    "net",
    [
        lambda: tiny_vit(X.shape[1:], 3, norm="batch"),
        lambda: options_timm(X.shape[1:], 3, architecture="levit_128s", norm="group"),
    ],
)
def test_options_are_free_of_it(net):
    net = net().eval()
    with torch.inference_mode():
        net(X)
    backward(net)
    backward(net)
    assert all(bias.grad is not None for bias in biases(net))


def test_train_returns_the_module():
    for module in uncache(stock("levit_128s")).modules():
        assert module.train() is module


def test_tiny_vit_has_second_derivatives_in_eval_mode():
    torch.manual_seed(0)
    net = tiny_vit((3, 32, 32), 10, norm="batch").eval()
    parameters = list(net.parameters())
    loss = net(X[:1, :, :32, :32]).logsumexp(1).sum()
    grads = torch.autograd.grad(loss, parameters, create_graph=True)
    products = torch.autograd.grad(sum((g * g).sum() for g in grads), parameters)
    assert len(biases(net)) == 10
    assert all(product.isfinite().all() for product in products)
