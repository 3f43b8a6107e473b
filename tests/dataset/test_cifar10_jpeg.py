import hashlib
import runpy
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cifar10_jpeg_to_npz.py"


@pytest.fixture
def convert(monkeypatch):
    def convert(source, target):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(source), str(target)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return convert


def coded(images):
    """JPEG files one after another, and where each begins."""
    files = []
    for pixels in images:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=75)
        files.append(file.getvalue())
    offsets = np.cumsum([0, *map(len, files)], dtype=np.int64)
    return files, np.frombuffer(b"".join(files), np.uint8), offsets


def test_a_converted_archive_loads(convert, load, tmp_path, capsys):
    arrays, expected = {}, {}
    for part, n in (("train", 12), ("test", 5)):
        rough = np.random.default_rng(n).integers(0, 256, (n, 4, 4, 3), np.uint8)
        files, data, offsets = coded(rough.repeat(8, 1).repeat(8, 2))
        expected[part] = np.stack([np.asarray(Image.open(BytesIO(f))) for f in files])
        arrays |= {f"{part}_jpeg": data, f"{part}_offsets": offsets}
        arrays[f"{part}_labels"] = (np.arange(n) % 4).astype(np.uint8)
    np.savez(tmp_path / "in.npz", **arrays)
    convert(tmp_path / "in.npz", tmp_path / "out.npz")
    assert hashlib.sha256(expected["test"].tobytes()).hexdigest() in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.npz", "out.npz"]
    data = load("npz", {"path": tmp_path / "out.npz", "call.augment": "crop_flip"})
    np.testing.assert_array_equal(data.x[data.train_rows], expected["train"])
    np.testing.assert_array_equal(data.x[data.test_rows], expected["test"])
    assert data.y.tolist() == [*arrays["train_labels"], *arrays["test_labels"]]
    assert data.n_classes == 4


TRAIN = "5aaf8a2cf2e577ff4dbb15e4f368840fab5aca1812bcc69682005f8dc661d466"
TEST = "b7018a062865e9348a704e72416eb53c816b43cc8ac42ab43276a2b967508ab6"


@pytest.mark.slow
def test_real_cifar10_jpeg(convert, load, real_data, tmp_path):
    convert(real_data / "cifar10_jpeg" / "cifar10_jpeg_q75.npz", tmp_path / "out.npz")
    data = load("npz", {"path": tmp_path / "out.npz"})
    assert data.y[data.train_rows].bincount().tolist() == [5000] * 10
    assert data.y[data.test_rows].bincount().tolist() == [1000] * 10
    # Other decoders may round some pixels otherwise.
    if features.version("libjpeg_turbo") in ("3.1.4.1", "3.2.0"):
        for rows, expected in ((data.train_rows, TRAIN), (data.test_rows, TEST)):
            assert hashlib.sha256(data.x[rows].numpy().tobytes()).hexdigest() == expected
