import inspect
import re
from pathlib import Path

import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "dataset"
OPTIONS = sorted(file.stem for file in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_yaml_has_the_keys_of_the_signature_and_the_reverse(name):
    option = OmegaConf.load(FOLDER / f"{name}.yaml")
    given = set(option.call) - {"_target_"} | {"root", "path", "fingerprint"} & set(option)
    parameters = inspect.signature(get_method(option.call["_target_"])).parameters
    assert given == set(parameters)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters.values())


@pytest.mark.parametrize("name", OPTIONS)
def test_the_yaml_says_what_the_harness_reads(name):
    option = OmegaConf.load(FOLDER / f"{name}.yaml")
    assert option.name == name
    assert option.call.get("name", name) == name
    assert option.version >= 1
    assert option.label


def test_every_option_is_named_in_this_list():
    assert OPTIONS == [
        "acs_income", "adult", "breast_cancer", "california_housing", "cifar10", "cifar100",
        "diabetes", "digits", "fashion_mnist", "fashion_mnist_10k", "mnist", "mnist_scarce", "npz",
        "utkface", "wine", "wine_quality",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_fingerprints_of_official_data_are_torchvisions(name):
    from unlearnbench.dataset import cifar, mnist

    fingerprint = OmegaConf.load(FOLDER / f"{name}.yaml").fingerprint
    if name in mnist.SETS:
        assert dict(mnist.SETS[name][1].resources) == dict(fingerprint)
    else:
        assert cifar.SETS[name][0].tgz_md5 == fingerprint


def test_the_subset_shares_its_test_files_with_the_whole():
    whole, subset = (
        OmegaConf.load(FOLDER / f"{name}.yaml").fingerprint
        for name in ("fashion_mnist", "fashion_mnist_10k")
    )
    shared = {file for file in whole if whole[file] == subset[file]}
    assert shared == {file for file in whole if file.startswith("t10k")}
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in subset.values())
