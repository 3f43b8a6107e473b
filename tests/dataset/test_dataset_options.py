import gzip
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
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


# ---------------------------------------------------------------------------------------------
# A record's number is its row in the user's own files, whatever it is used for.


def labels(name, folder):
    """The labels in the order of the files, read in another way than the loader's; 0 for none."""
    if name in ("digits", "breast_cancer", "wine", "diabetes"):
        return getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)[1]
    if name == "adult":
        texts = (unpacked(folder / name / f"{file}.gz") for file in ("adult.data", "adult.test"))
        lines = [line for text in texts for line in text if line.strip() and line[0] != "|"]
        return np.array([">50K" in line for line in lines], int)
    if name == "california_housing":
        lines = unpacked(folder / name / "housing.csv.gz")[1:]
        return np.array([float(line.split(",")[8]) for line in lines if line])
    if name == "wine_quality":
        files = [folder / name / f"winequality-{colour}.csv.gz" for colour in ("red", "white")]
        lines = [line for file in files for line in unpacked(file)[1:] if line]
        return np.array([int(line.split(";")[-1]) - 3 for line in lines])
    raw = folder / {"fashion_mnist_10k": "FashionMNIST-10k/FashionMNIST"}.get(name, "MNIST") / "raw"
    files = [raw / f"{part}-labels-idx1-ubyte.gz" for part in ("train", "t10k")]
    return np.concatenate(
        [np.frombuffer(gzip.decompress(file.read_bytes())[8:], "u1") for file in files]
    )


def unpacked(file):
    return gzip.decompress(file.read_bytes()).decode().split("\n")


RENUMBERED = [
    *[(name, {}) for name in ("digits", "breast_cancer", "wine", "diabetes", "adult")],
    *[(name, {}) for name in ("california_housing", "wine_quality", "mnist", "mnist_scarce")],
    ("fashion_mnist_10k", {}),
    ("adult", {"call.missing": "drop"}),
    ("california_housing", {"call.missing": "drop"}),
]


@pytest.mark.tried(
    "row numbers of every data set that ships, with rows left out and without",
    "a record's number is its row in the user's own files",
)
@pytest.mark.parametrize(("name", "changes"), RENUMBERED)
def test_a_records_number_is_its_row_in_the_files(load, request, name, changes):
    option = OmegaConf.load(FOLDER / f"{name}.yaml")
    folder = request.getfixturevalue("real_data") if "root" in option else Path()
    data = load(name, {**({"root": folder} if "root" in option else {}), **changes})
    y = labels(name, folder).astype(float)
    if not data.n_classes:
        y = (y - y[data.train_rows].mean()) / y[data.train_rows].std()
    np.testing.assert_allclose(data.y, y, rtol=1e-4, atol=1e-5)
    less = data.limited(20)
    assert less.rows.tolist() == [*data.train_rows[:20].tolist(), *data.test_rows.tolist()]
    assert less.x is data.x
    assert less.y is data.y
