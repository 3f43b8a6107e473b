import hashlib
import pickle

import numpy as np
import pytest
import torch

from unlearnbench.dataset.cifar import SETS

N = 6


@pytest.fixture(params=list(SETS))
def tiny(request, tmp_path, monkeypatch):
    """Files of N images each in CIFAR's format, and torchvision's tables of their MD5."""
    source, n_classes = SETS[request.param]
    folder = tmp_path / source.base_folder
    folder.mkdir()
    draw = np.random.default_rng(0)
    labels = "labels" if n_classes == 10 else "fine_labels"
    written = []

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batches(names):
        for name in names:
            entry = {
                "data": draw.integers(0, 256, (N, 3072), np.uint8),
                labels: draw.integers(0, n_classes, N).tolist(),
            }
            written.append((entry["data"], entry[labels]))
            yield [name, write(name, entry)]

    for table in ("train_list", "test_list"):
        names = [name for name, _ in getattr(source, table)]
        monkeypatch.setattr(source, table, list(batches(names)))
    md5 = write(source.meta["filename"], {source.meta["key"]: list("abc")})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5})
    return request.param, tmp_path, written


def test_images_labels_and_their_order(load, tiny):
    name, root, written = tiny
    data = load(name, {"root": root})
    n_train = N * (len(written) - 1)
    assert data.n_classes == SETS[name][1]
    assert data.train_rows.tolist() == list(range(n_train))
    assert data.test_rows.tolist() == list(range(n_train, n_train + N))
    assert data.y.tolist() == [label for _, labels in written for label in labels]
    # In the file: 1,024 red, 1,024 green and 1,024 blue values, each row by row.
    planes = np.concatenate([pixels for pixels, _ in written]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(data.x.permute(0, 3, 1, 2), planes)


def test_a_batch_is_normalised_and_augmented(load, tiny):
    name, root, _ = tiny
    data = load(name, {"root": root})
    mean, std = {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    }[name]
    inputs = data.inputs(data.test_rows)
    expected = (data.x[data.test_rows] / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(inputs, expected.permute(0, 3, 1, 2))
    augmented = data.augment(inputs, torch.Generator().manual_seed(0))
    black = -torch.tensor(mean) / torch.tensor(std)
    at_black = (augmented - black[:, None, None]).abs().amax(1) < 1e-6
    assert at_black.any()  # a window beyond the border sees normalised black


@pytest.mark.usefixtures("offline")
def test_a_broken_pickle_is_never_loaded(load, tiny, monkeypatch):
    name, root, _ = tiny
    source = SETS[name][0]
    file = root / source.base_folder / source.train_list[0][0]
    file.write_bytes(file.read_bytes() + b" ")
    monkeypatch.setattr("pickle.load", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(FileNotFoundError, match=f"^dataset={name}: put cifar-10.*-python.tar.gz"):
        load(name, {"root": root})


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", SETS)
def test_a_missing_archive_is_named_in_one_line(load, tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        load(name, {"root": tmp_path})
    assert str(caught.value) == (
        f"dataset={name}: put {SETS[name][0].filename} (or unpacked) into {tmp_path} "
        "(download failed: no network in this test)"
    )


@pytest.mark.parametrize("name", SETS)
def test_another_archive_is_refused(load, tmp_path, name):
    with pytest.raises(ValueError, match=f"^dataset={name}: torchvision's archive has checksum"):
        load(name, {"root": tmp_path, "fingerprint": "0" * 32})


def test_an_unknown_set_is_refused(load):
    with pytest.raises(ValueError, match=r"^dataset\.call\.name=svhn: must be one of cifar10"):
        load("cifar10", {"call.name": "svhn"})
