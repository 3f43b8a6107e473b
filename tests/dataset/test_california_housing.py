import gzip
import hashlib

import numpy as np
import pytest
import torch

from unlearnbench.dataset import holdout
from unlearnbench.dataset.california_housing import NUMBERS, OCEAN, TARGET

DRAW = np.random.default_rng(0)
N = 20
VALUES = DRAW.integers(1, 2000, (N, len(NUMBERS) + 1)).astype(float)
NEAR = [OCEAN[i % len(OCEAN)] for i in range(N)]
TRAIN, TEST = holdout.parts(N)
EMPTY = [int(TRAIN[0]), int(TEST[-1])]  # a training and a test row
BEDROOMS = NUMBERS.index("total_bedrooms")


def table(values=VALUES):
    lines = [",".join([*NUMBERS, TARGET, "ocean_proximity"])]
    for i, (row, near) in enumerate(zip(values, NEAR, strict=True)):
        cells = [str(value) for value in row]
        if i in EMPTY:
            cells[BEDROOMS] = ""
        lines.append(",".join([*cells, near]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def housing(load, tmp_path):
    """``housing({...})``: the small table above or another one, packed or not."""

    def housing(changes=None, text=None, packed=False):
        data = (text or table()).encode()
        folder = tmp_path / "california_housing"
        folder.mkdir(exist_ok=True)
        name = "housing.csv.gz" if packed else "housing.csv"
        (folder / name).write_bytes(gzip.compress(data) if packed else data)
        md5 = hashlib.md5(data).hexdigest()
        return load("california_housing", {"root": tmp_path, "fingerprint": md5, **(changes or {})})

    return housing


def standardised(values, train_rows=TRAIN):
    return (values - values[train_rows].mean(0)) / values[train_rows].std(0)


def test_numbers_and_target_are_standardised_over_the_training_part(housing):
    data = housing()
    assert (data.kind, data.n_classes) == ("tabular", 0)
    assert data.train_rows.tolist() == TRAIN.tolist()
    assert data.test_rows.tolist() == TEST.tolist()
    kept = [i for i in range(len(NUMBERS)) if i != BEDROOMS]
    expected = standardised(VALUES)
    np.testing.assert_allclose(data.x[:, kept], expected[:, kept], rtol=1e-4, atol=1e-5)
    assert data.y.dtype == torch.float32
    np.testing.assert_allclose(data.y, expected[:, -1], rtol=1e-4, atol=1e-5)


def test_an_empty_number_becomes_the_training_rows_median(housing):
    values = VALUES.copy()
    values[EMPTY, BEDROOMS] = np.median(VALUES[TRAIN[1:], BEDROOMS])
    expected = standardised(values)[:, BEDROOMS]
    np.testing.assert_allclose(housing().x[:, BEDROOMS], expected, rtol=1e-4, atol=1e-5)


def test_rows_with_an_empty_number_can_be_dropped(housing):
    data = housing({"call.missing": "drop"})
    kept = np.delete(np.arange(N), EMPTY)
    train_rows, test_rows = (kept[places] for places in holdout.parts(N - 2))
    assert data.train_rows.tolist() == train_rows.tolist()
    assert data.test_rows.tolist() == test_rows.tolist()
    expected = standardised(VALUES, train_rows)[kept, :-1]
    np.testing.assert_allclose(data.x[kept, : len(NUMBERS)], expected, rtol=1e-4, atol=1e-5)


def test_ocean_proximity_is_one_hot_or_left_out(housing):
    data = housing()
    assert data.shape == (13,)
    assert [OCEAN[i] for i in data.x[:, 8:].argmax(1)] == NEAR
    assert data.x[:, 8:].sum(1).tolist() == [1] * N
    alone = housing({"call.ocean_proximity": "none"})
    assert torch.equal(alone.x, data.x[:, :8])


def test_test_rows_change_nothing_in_the_training_part(housing):
    values = VALUES.copy()
    values[TEST] *= 7
    first, second = housing(), housing(text=table(values))
    for name in ("x", "y"):
        one, other = getattr(first, name), getattr(second, name)
        assert torch.equal(one[TRAIN], other[TRAIN])
        assert not torch.equal(one[TEST], other[TEST])


def test_a_packed_file_is_read_too(housing, tmp_path):
    plain = housing()
    (tmp_path / "california_housing" / "housing.csv").unlink()
    assert torch.equal(housing(packed=True).x, plain.x)


def test_a_file_with_another_checksum_is_refused(housing):
    with pytest.raises(ValueError, match=r"^dataset=california_housing: .*csv has checksum"):
        housing({"fingerprint": "0" * 32})


def test_a_missing_file_is_named_in_one_line(load, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("california_housing", {"root": tmp_path})
    assert str(caught.value) == (
        f"dataset=california_housing: put housing.csv into {tmp_path / 'california_housing'} "
        "(handson-ml's, .gz or not)"
    )


@pytest.mark.parametrize("argument", ["missing", "ocean_proximity"])
def test_an_unknown_choice_is_refused(housing, argument):
    with pytest.raises(ValueError, match=rf"^dataset\.call\.{argument}=mean: must be "):
        housing({f"call.{argument}": "mean"})


def test_real_california_housing(load, real_data):
    data = load("california_housing", {"root": real_data})
    assert data.x.shape == (20_640, 13)
    assert (len(data.train_rows), len(data.test_rows)) == (16_512, 4_128)
    near = data.x[:, 8:].sum(0).tolist()
    assert dict(zip(OCEAN, near, strict=True)) == {
        "<1H OCEAN": 9136, "INLAND": 6551, "ISLAND": 5, "NEAR BAY": 2290, "NEAR OCEAN": 2658
    }  # fmt: skip
    assert data.x.isfinite().all()
    train = data.y[data.train_rows]
    assert train.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    dropped = load("california_housing", {"root": real_data, "call.missing": "drop"})
    assert len(dropped.rows) == 20_640 - 207


def test_real_numbers_are_statlibs(load, real_data):
    packed = real_data / "california_housing" / "cal_housing.data.gz"
    if not packed.exists():
        pytest.skip(f"no StatLib file: {packed} is not there")
    statlib = np.loadtxt(packed, delimiter=",")
    data = load("california_housing", {"root": real_data})
    expected = standardised(statlib, holdout.parts(len(statlib))[0])
    kept = [i for i in range(len(NUMBERS)) if i != BEDROOMS]
    np.testing.assert_allclose(data.x[:, kept], expected[:, kept], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(data.y, expected[:, -1], rtol=1e-4, atol=1e-4)
