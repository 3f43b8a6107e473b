import copy
import importlib
import inspect
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from unlearnbench.core.seeding import seeded
from unlearnbench.model.cnn import cnn
from unlearnbench.model.mlp import mlp
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.timm import timm

CONF = {
    path.stem: yaml.safe_load(path.read_text())
    for path in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")
}
ESTIMATORS = {"decision_tree", "logistic_regression", "random_forest"}  # see test_estimator.py
CONVEX = {"ridge", "softmax_regression", "svm"}  # see test_linear.py
NETS = sorted(set(CONF) - ESTIMATORS - CONVEX)
SHAPES = {"image": [(1, 8, 8), (3, 32, 32)], "tabular": [(30,)]}
TAKEN = [
    (option, shape) for option in NETS for kind in CONF[option]["kinds"] for shape in SHAPES[kind]
]


def built(option, shape, n_classes=10, seed=0, **overrides):
    call = dict(CONF[option]["call"])
    module, _, function = call.pop("_target_").rpartition(".")
    call = {key: "resnet10t" if value == "???" else value for key, value in call.items()}
    with seeded(seed, "test"):
        make = getattr(importlib.import_module(module), function)
        return make(shape, n_classes, **{**call, **overrides})


def inputs(rows, shape):
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(5))


def test_the_options():
    assert sorted(CONF) == [
        "cnn", "decision_tree", "logistic_regression", "logreg", "mlp", "random_forest",
        "resnet18", "resnet18_cifar", "ridge", "softmax_regression", "svm", "timm", "tiny_vit",
    ]  # fmt: skip


@pytest.mark.parametrize("option", sorted(set(CONF) - CONVEX))
def test_yaml_and_signature_have_the_same_keys(option):
    conf = CONF[option]
    assert list(conf)[:5] == ["name", "label", "version", "kinds", "call"]
    assert set(conf) - {"valid"} == set(list(conf)[:5])
    assert conf["name"] == option
    assert conf["call"]["_target_"] == f"unlearnbench.model.{option}.{option}"
    module = importlib.import_module(f"unlearnbench.model.{option}")
    parameters = inspect.signature(getattr(module, option)).parameters.values()
    assert [p.name for p in parameters][:2] == ["shape", "n_classes"]
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert named == set(conf["call"]) - {"_target_"}
    assert all(p.default is p.empty for p in parameters)


@pytest.mark.parametrize(("option", "shape"), TAKEN)
@pytest.mark.parametrize("n_classes", [1, 2, 10, 100])
def test_output_shape(option, shape, n_classes):
    net = built(option, shape, n_classes)
    assert net.training
    with torch.no_grad():
        assert net.eval()(inputs(2, shape)).shape == (2, n_classes)


@pytest.mark.parametrize(
    ("option", "shape", "count"),
    [
        ("resnet18", (3, 32, 32), 11_181_642),
        ("resnet18", (1, 8, 8), 11_181_642 - 2 * 64 * 49),
        ("resnet18_cifar", (3, 32, 32), 11_181_642 - 3 * 64 * (49 - 9)),
        ("tiny_vit", (3, 32, 32), 10_552_462),
        ("cnn", (3, 32, 32), 57_130),
        ("cnn", (1, 8, 8), 56_554),
        ("mlp", (30,), 31 * 128 + 129 * 64 + 65 * 10),
        ("logreg", (1, 8, 8), 650),
    ],
)
def test_parameter_count(option, shape, count):
    assert sum(p.numel() for p in built(option, shape).parameters()) == count


def test_resnet18_cifar_keeps_a_map_where_the_stock_net_has_a_point():
    sizes = {}
    for option in ("resnet18", "resnet18_cifar"):
        net = built(option, (3, 32, 32)).eval()
        net.layer4.register_forward_hook(
            lambda _net, _inputs, output, option=option: sizes.update({option: output.shape[2:]})
        )
        net(inputs(1, (3, 32, 32)))
    assert sizes == {"resnet18": (1, 1), "resnet18_cifar": (4, 4)}


@pytest.mark.parametrize(("option", "shape"), TAKEN)
def test_one_row_in_train_mode_moves_weights_and_no_statistics(option, shape):
    net = built(option, shape)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.cross_entropy(net(inputs(1, shape)), torch.tensor([3])).backward()
    optimizer.step()
    parameters = dict(net.named_parameters())
    assert net.training
    assert all(module.training for module in net.modules())
    assert all(value.isfinite().all() for value in net.state_dict().values())
    assert any(not torch.equal(before[name], p) for name, p in parameters.items())
    for name, buffer in net.state_dict().items():
        assert name in parameters or torch.equal(before[name], buffer), name


@pytest.mark.parametrize("option", sorted(set(CONF) - CONVEX))
def test_weights_follow_the_seed_and_no_other_draw_does(option):
    shape = (3, 32, 32)
    state = torch.random.get_rng_state()
    first = built(option, shape).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    again, other = built(option, shape).state_dict(), built(option, shape, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("option", NETS)
def test_a_deep_copy_is_another_net(option):
    net = built(option, (3, 32, 32))
    twin = copy.deepcopy(net)
    x = inputs(2, (3, 32, 32))
    expected = net.eval()(x)
    assert torch.equal(twin.eval()(x), expected)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.add_(1)
    assert torch.equal(net(x), expected)
    assert not torch.equal(twin(x), expected)


@pytest.mark.parametrize("option", NETS)
def test_weights_go_through_safetensors(option):
    net, other = built(option, (3, 32, 32)).eval(), built(option, (3, 32, 32), seed=1).eval()
    x = inputs(2, (3, 32, 32))
    other(x)
    other.load_state_dict(load(save(net.state_dict())))
    assert torch.equal(other(x), net(x))


@pytest.mark.parametrize("option", sorted(set(NETS) - {"logreg", "mlp"}))
def test_features_are_refused_by_models_of_images(option):
    with pytest.raises(
        ValueError, match=rf"^model={option} needs images .*\(30,\); try model=mlp$"
    ):
        built(option, (30,))


def test_refusals_name_the_option_and_what_would_do():
    with pytest.raises(ValueError, match="model=cnn needs images of at least 8×8, got 7×9"):
        cnn((3, 7, 9), 10, norm="batch")
    with pytest.raises(ValueError, match="'layer'; try batch or group"):
        resnet18((3, 32, 32), 10, norm="layer")
    with pytest.raises(ValueError, match="'layer'; try batch, group or none"):
        mlp((30,), 2, hidden=[8], norm="layer")
    with pytest.raises(ValueError, match=r"architecture.*'resnet10'; try resnet10t"):
        timm((3, 32, 32), 10, architecture="resnet10", norm="batch")
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_224 cannot take .*\(3, 8, 8\)"):
        timm((3, 8, 8), 10, architecture="vit_tiny_patch16_224", norm="batch")


@pytest.mark.parametrize("address", ["hf-hub:timm/resnet10t.c3_in1k", "local-dir:/tmp/net"])
def test_timm_fetches_nothing(address):
    with pytest.raises(ValueError, match="timm has no"):
        timm((3, 32, 32), 10, architecture=address, norm="batch")


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "levit_128s"])
def test_timm_is_told_the_size_of_the_images(architecture):
    net = timm((3, 32, 48), 10, architecture=architecture, norm="batch").eval()
    assert net(inputs(2, (3, 32, 48))).shape == (2, 10)


def test_mlp_has_the_widths_and_norms_it_is_given():
    net = mlp((1, 8, 8), 3, hidden=[20, 7], norm="batch")
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [20, 7, 3]
    assert [m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm1d)] == [20, 7]
    plain = mlp((1, 8, 8), 3, hidden=[20], norm="none")
    assert not any(isinstance(m, nn.BatchNorm1d | nn.GroupNorm) for m in plain.modules())


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_cnn_reads_digits(norm):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float64).reshape(-1, 1, 8, 8) / 16 - 0.3
    y = torch.tensor(y)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    test, train = order[:400], order[400:]
    net = built("cnn", (1, 8, 8), norm=norm).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(6):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - epoch / 6)
        for rows in train.split(64):
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    accuracy = (net.eval()(x[test]).argmax(1) == y[test]).float().mean()
    assert accuracy >= 0.97
