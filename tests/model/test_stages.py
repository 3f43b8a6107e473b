import copy

import pytest
import torch
from torch import nn

from unlearnbench.model.cnn import cnn
from unlearnbench.model.logreg import logreg
from unlearnbench.model.mlp import mlp
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.resnet18_cifar import resnet18_cifar
from unlearnbench.model.stages import declare, stages, tensors
from unlearnbench.model.timm import timm
from unlearnbench.model.tiny_vit import tiny_vit

IMAGE = (3, 32, 32)
RESNET = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("fc",))
DECLARED = {
    "logreg": (lambda: logreg(IMAGE, 10), ((), ("head",))),
    "mlp": (
        lambda: mlp(IMAGE, 10, hidden=[8, 4], norm="batch"),
        ((), ("hidden1",), ("hidden2",), ("head",)),
    ),
    "cnn": (lambda: cnn(IMAGE, 10, norm="batch"), (("stem",), ("stage1",), ("stage2",), ("head",))),
    "resnet18": (lambda: resnet18(IMAGE, 10, norm="batch"), RESNET),
    "resnet18_cifar": (lambda: resnet18_cifar(IMAGE, 10, norm="group"), RESNET),
    "tiny_vit": (
        lambda: tiny_vit(IMAGE, 10, norm="batch"),
        (
            ("patch_embed", "head.norm"),
            ("stages.0", "stages.1.downsample"),
            ("stages.1.blocks", "stages.2.downsample"),
            ("stages.2.blocks", "stages.3.downsample"),
            ("stages.3.blocks",),
            ("head.fc",),
        ),
    ),
}
MATCHED = {  # number of stages with stem and head, what the head holds
    "resnet10t": (6, ("fc",)),
    "vit_tiny_patch16_224": (14, ("head",)),
    "mobilenetv3_small_050": (8, ("classifier",)),
    "levit_128s": (5, ("head", "head_dist")),
    "convnext_atto": (6, ("head.fc",)),
    "resmlp_12_224": (14, ("head",)),
    "poolformerv2_s12": (4, ("head.fc",)),  # no matcher: its children, without a stem
}


def timm_net(name):
    return lambda: timm(IMAGE, 10, architecture=name, norm="batch")


def held_once(net):
    held = [id(tensor) for stage in tensors(net) for tensor in stage.values()]
    everything = net.state_dict(keep_vars=True).values()
    return sorted(held) == sorted(id(tensor) for tensor in everything)


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_declared_stages(name):
    make, names = DECLARED[name]
    net = make()
    assert net.layer_stages == names
    assert held_once(net)
    modules = dict(net.named_modules())
    assert stages(net) == [[modules[n] for n in stage] for stage in names]
    twin = copy.deepcopy(net)
    assert held_once(twin)
    assert not {id(m) for stage in stages(twin) for m in stage} & {id(m) for m in net.modules()}


@pytest.mark.parametrize("name", sorted(MATCHED))
def test_stages_of_timm(name):
    net = timm(IMAGE, 10, architecture=name, norm="batch")
    count, head = MATCHED[name]
    assert len(net.layer_stages) == count
    assert net.layer_stages[-1] == head
    assert held_once(net)
    assert net.training


@pytest.mark.tried(
    "a head stage that holds the norm before the classifier (TinyViT, ConvNeXt)",
    "the head is the classifier alone, in every architecture",
)
@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name) for name, (make, _) in DECLARED.items()]
    + [pytest.param(timm_net(name), id=name) for name in sorted(MATCHED)],
)
def test_the_head_holds_the_classifier_and_no_layer_before_it(make):
    """Nothing in the head has another first axis than classes, but the norm of a normed layer."""
    net = make()
    parameters = [t for name, t in tensors(net)[-1].items() if ".bn." not in name]
    assert parameters
    assert {len(t) for t in parameters} == {10}


def test_the_last_norm_of_tiny_vit_is_of_no_last_stage():
    net = tiny_vit(IMAGE, 10, norm="batch")
    last = {name for stage in tensors(net)[1:] for name in stage}
    assert not {"head.norm.weight", "head.norm.bias"} & last


def test_parameters_outside_every_module_are_named_themselves():
    net = timm(IMAGE, 10, architecture="vit_tiny_patch16_224", norm="batch")
    assert net.layer_stages[0] == ("cls_token", "pos_embed", "patch_embed")
    assert tensors(net)[0]["cls_token"] is net.cls_token
    assert stages(net)[0] == [net.patch_embed]
    assert net.layer_stages[-2] == ("blocks.11", "norm")


@pytest.mark.parametrize(
    ("make", "k", "percent"),
    [(resnet18, k, share) for k, share in zip((1, 2, 3, 4), (75.1, 93.9, 98.6, 99.9), strict=True)]
    + [(tiny_vit, k, share) for k, share in zip((1, 2, 3), (45.9, 94.1, 98.9), strict=True)],
)
def test_share_of_the_last_stages_and_the_head(make, k, percent):
    """Deep Unlearn, CF-k: the figures that follow from its code."""
    net = make(IMAGE, 10, norm="batch")
    last = [t for stage in tensors(net)[-1 - k :] for t in stage.values()]
    share = sum(t.numel() for t in last if isinstance(t, nn.Parameter))
    share /= sum(p.numel() for p in net.parameters())
    assert round(100 * share, 1) == percent


def test_tensors_are_the_net_s_own():
    net = cnn((1, 8, 8), 10, norm="batch")
    for stage in tensors(net)[:-1]:
        for tensor in stage.values():
            tensor.requires_grad_(False)
    assert [name for name, p in net.named_parameters() if p.requires_grad] == [
        "head.2.weight",
        "head.2.bias",
    ]
    tensors(net)[0]["stem.2.running_mean"].fill_(3)
    assert net.stem[2].running_mean.unique().tolist() == [3]


@pytest.mark.parametrize("names", [(("0",), ()), (("0", "1"), ("1",)), (("0",), ("11",))])
def test_stages_that_miss_or_repeat_a_layer_are_refused(names):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(AssertionError, match="in one stage"):
        declare(net, names)


def test_a_net_that_declares_nothing_has_its_children():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    net.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert [list(stage) for stage in tensors(net)] == [
        ["scale"],
        ["1.weight", "1.bias"],
        ["3.weight", "3.bias"],
    ]
    assert stages(net) == [[], [net[1]], [net[3]]]
