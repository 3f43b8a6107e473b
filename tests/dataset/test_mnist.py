import gzip
import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlearnbench.dataset.mnist import FILES

FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "fashion_mnist_10k": "FashionMNIST-10k/FashionMNIST/raw",
}


def write_idx(file, values):
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    file.write_bytes(gzip.compress(head + values.tobytes()))
    return hashlib.md5(file.read_bytes()).hexdigest()


def make(folder):
    """30 + 10 random images in MNIST's format; what was written, and the MD5 of each file."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    arrays = []
    for n in (30, 10):
        arrays.append(draw.integers(0, 256, (n, 28, 28), np.uint8))
        arrays.append((np.arange(n) * 7 % 10).astype(np.uint8))
    pairs = zip(FILES, arrays, strict=True)
    return arrays, {name: write_idx(folder / name, values) for name, values in pairs}


def resized(pixels, size):
    images = [
        Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR)  # as torchvision
        for p in pixels
    ]
    return np.stack([np.asarray(i) for i in images])


@pytest.mark.parametrize("name", FOLDERS)
def test_a_set_is_read_resized_and_repeated(load, tmp_path, name):
    (x_train, y_train, x_test, y_test), md5 = make(tmp_path / FOLDERS[name])
    data = load(name, {"root": tmp_path, "fingerprint": md5})
    assert data.x.shape == (40, 32, 32, 3)
    assert data.n_classes == 10
    assert data.train_rows.tolist() == list(range(30))
    assert data.y.tolist() == [*y_train, *y_test]
    expected = resized(np.concatenate([x_train, x_test]), 32)
    for channel in range(3):
        np.testing.assert_array_equal(data.x[..., channel], expected)


def test_grey_is_stored_once(load, tmp_path):
    _, md5 = make(tmp_path / FOLDERS["mnist"])
    data = load("mnist", {"root": tmp_path, "fingerprint": md5})
    assert data.x.stride(3) == 0
    assert data.x.untyped_storage().nbytes() == 40 * 32 * 32
    inputs = data.inputs(data.train_rows)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(inputs[:, 2], (data.x[:30, ..., 0] / 255 - 0.1307) / 0.3081)
    assert data.augment(inputs, torch.Generator()).shape == (30, 3, 32, 32)


def test_size_and_channels_are_options(load, tmp_path):
    (x_train, *_), md5 = make(tmp_path / FOLDERS["mnist"])
    changes = {"root": tmp_path, "fingerprint": md5, "call.size": 28, "call.channels": 1}
    data = load("mnist", changes)
    assert data.shape == (1, 28, 28)
    np.testing.assert_array_equal(data.x[:30, ..., 0], x_train)


def test_another_size_is_within_a_grey_level_of_pillow(load, tmp_path):
    (x_train, *_), md5 = make(tmp_path / FOLDERS["mnist"])
    changes = {"root": tmp_path, "fingerprint": md5, "call.size": 20}
    pixels = load("mnist", changes).x[:30, ..., 0].numpy()
    assert abs(pixels.astype(int) - resized(x_train, 20)).max() <= 1


def test_a_file_with_another_checksum_is_refused(load, tmp_path):
    _, md5 = make(tmp_path / FOLDERS["mnist"])
    write_idx(tmp_path / FOLDERS["mnist"] / FILES[3], np.zeros(10, np.uint8))
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz has checksum") as caught:
        load("mnist", {"root": tmp_path, "fingerprint": md5})
    assert str(caught.value).startswith("dataset=mnist: ")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", FOLDERS)
def test_missing_files_are_named_in_one_line(load, tmp_path, name):
    _, md5 = make(tmp_path / FOLDERS[name])
    (tmp_path / FOLDERS[name] / FILES[0]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load(name, {"root": tmp_path, "fingerprint": md5})
    said = str(caught.value)
    folder = tmp_path / FOLDERS[name]
    assert said.startswith(f"dataset={name}: put train-images-idx3-ubyte.gz into {folder}")
    assert ("download failed: " in said) == (name != "fashion_mnist_10k")
    assert "\n" not in said
    assert not list(tmp_path.rglob("tmp*"))


def test_missing_files_are_fetched_and_others_left_alone(load, tmp_path, monkeypatch):
    _, md5 = make(tmp_path / "there")
    _, _ = make(tmp_path / "here" / FOLDERS["mnist"])
    kept = tmp_path / "here" / FOLDERS["mnist"] / FILES[1]
    before = kept.stat()
    (tmp_path / "here" / FOLDERS["mnist"] / FILES[0]).unlink()

    def serve(url, download_root, filename, md5):
        shutil.copy(tmp_path / "there" / filename, download_root)
        packed = Path(download_root) / filename
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", serve)
    data = load("mnist", {"root": tmp_path / "here", "fingerprint": md5})
    assert len(data.train_rows) == 30
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(f.name for f in kept.parent.iterdir()) == sorted(FILES)


@pytest.mark.usefixtures("offline")
def test_a_root_that_cannot_be_written_is_said(load, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"^dataset=mnist: put .* \(download failed: "):
        load("mnist", {"root": tmp_path / "file"})


def test_an_unknown_set_is_refused(load):
    with pytest.raises(ValueError, match=r"^dataset\.call\.name=kmnist: must be one of mnist"):
        load("mnist", {"call.name": "kmnist"})


def test_real_mnist(load, real_data):
    data = load("mnist", {"root": real_data})
    counts = [data.y[rows].bincount().tolist() for rows in (data.train_rows, data.test_rows)]
    assert counts == [
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ]
    # The published constants are those of the images before they were resized.
    pixels = data.x[:60_000, ..., 0].float() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=1e-3)
    assert data.x.untyped_storage().nbytes() == 70_000 * 32 * 32


def test_real_fashion_mnist_10k(load, real_data):
    data = load("fashion_mnist_10k", {"root": real_data})
    for rows in (data.train_rows, data.test_rows):
        assert data.y[rows].bincount().tolist() == [1000] * 10
