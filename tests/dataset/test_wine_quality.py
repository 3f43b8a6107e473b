import gzip
import hashlib

import numpy as np
import pytest
import torch

from unlearnbench.dataset import holdout

HEADER = (
    '"fixed acidity";"volatile acidity";"citric acid";"residual sugar";"chlorides";'
    '"free sulfur dioxide";"total sulfur dioxide";"density";"pH";"sulphates";"alcohol";"quality"'
)
FILES = ("winequality-red.csv", "winequality-white.csv")
DRAW = np.random.default_rng(0)
RED, WHITE = (
    np.column_stack([DRAW.integers(1, 99, (len(grades), 11)) / 10, grades])
    for grades in ([3, 5, 5, 6, 8, 6, 5, 3, 8, 6], [4, 6, 6, 9, 6, 4, 9, 6, 6, 4, 6, 6, 6, 6, 9])
)


def text(wines):
    lines = [";".join([*map(str, row[:-1]), str(int(row[-1]))]) for row in wines]
    return "\n".join([HEADER, *lines]) + "\n"


@pytest.fixture
def wines(load, tmp_path):
    """``wines({...})``: the small tables above or others, packed or not."""

    def wines(changes=None, red=RED, white=WHITE, packed=False):
        folder = tmp_path / "wine_quality"
        folder.mkdir(exist_ok=True)
        md5 = {}
        for colour, table in (("red", red), ("white", white)):
            data, name = text(table).encode(), f"winequality-{colour}.csv"
            md5[name] = hashlib.md5(data).hexdigest()
            file = folder / (f"{name}.gz" if packed else name)
            file.write_bytes(gzip.compress(data) if packed else data)
        return load("wine_quality", {"root": tmp_path, "fingerprint": md5, **(changes or {})})

    return wines


def standardised(values, train_rows):
    return (values - values[train_rows].mean(0)) / values[train_rows].std(0)


@pytest.mark.parametrize(("colour", "table"), [("red", RED), ("white", WHITE)])
def test_one_colour(wines, colour, table):
    data = wines({"call.colour": colour})
    train_rows, test_rows = holdout.parts(len(table))
    assert data.train_rows.tolist() == train_rows.tolist()
    assert data.test_rows.tolist() == test_rows.tolist()
    expected = standardised(table[:, :-1], train_rows)
    np.testing.assert_allclose(data.x, expected, rtol=1e-4, atol=1e-5)


def test_both_colours_and_a_feature_that_tells_them_apart(wines):
    data = wines()
    white = np.arange(25) >= 10
    features = np.column_stack([np.concatenate([RED, WHITE])[:, :-1], white])
    expected = standardised(features, holdout.parts(25)[0])
    assert data.shape == (12,)
    np.testing.assert_allclose(data.x, expected, rtol=1e-4, atol=1e-5)
    assert (data.x[:, 11] > 0).tolist() == white.tolist()


@pytest.mark.parametrize(
    ("colour", "table", "grades"),
    [
        ("red", RED, [3, 5, 6, 8]),
        ("white", WHITE, [4, 6, 9]),
        ("both", np.concatenate([RED, WHITE]), [3, 4, 5, 6, 8, 9]),
    ],
)
def test_the_grades_that_occur_become_consecutive_classes(wines, colour, table, grades):
    data = wines({"call.colour": colour})
    assert data.n_classes == len(grades)
    assert data.y.dtype == torch.int64
    assert [grades[label] for label in data.y] == table[:, -1].tolist()


def test_a_score_is_a_standardised_regression(wines):
    data = wines({"call.target": "score", "call.colour": "red"})
    assert data.n_classes == 0
    assert data.y.dtype == torch.float32
    expected = standardised(RED[:, -1], holdout.parts(len(RED))[0])
    np.testing.assert_allclose(data.y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["class", "score"])
def test_test_rows_change_nothing_in_the_training_part(wines, target):
    train_rows, test_rows = holdout.parts(len(RED))
    other = RED.copy()
    other[test_rows, :-1] *= 7
    other[test_rows, -1] = 5
    changes = {"call.colour": "red", "call.target": target}
    first, second = wines(changes), wines(changes, red=other)
    assert torch.equal(first.x[train_rows], second.x[train_rows])
    assert torch.equal(first.y[train_rows], second.y[train_rows])
    assert not torch.equal(first.x[test_rows], second.x[test_rows])


def test_packed_files_are_read_too(wines, tmp_path):
    plain = wines()
    for file in (tmp_path / "wine_quality").iterdir():
        file.unlink()
    assert torch.equal(wines(packed=True).x, plain.x)


def test_one_colour_needs_one_file(load, tmp_path):
    data = text(RED).encode()
    (tmp_path / "wine_quality").mkdir()
    (tmp_path / "wine_quality" / "winequality-red.csv").write_bytes(data)
    md5 = dict.fromkeys(FILES, hashlib.md5(data).hexdigest())
    changes = {"root": tmp_path, "fingerprint": md5}
    assert len(load("wine_quality", {**changes, "call.colour": "red"}).x) == 10
    with pytest.raises(FileNotFoundError, match=r"put winequality-white\.csv into"):
        load("wine_quality", {**changes, "call.colour": "white"})


def test_a_file_with_another_checksum_is_refused(wines):
    wrong = {"winequality-red.csv": "0" * 32, "winequality-white.csv": "0" * 32}
    with pytest.raises(ValueError, match=r"^dataset=wine_quality: .*red\.csv has checksum"):
        wines({"fingerprint": wrong})


def test_missing_files_are_named_in_one_line(load, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("wine_quality", {"root": tmp_path})
    assert str(caught.value) == (
        "dataset=wine_quality: put winequality-red.csv, winequality-white.csv into "
        f"{tmp_path / 'wine_quality'} (UCI's files, packed (.gz) or not)"
    )


@pytest.mark.parametrize("argument", ["colour", "target"])
def test_an_unknown_choice_is_refused(wines, argument):
    with pytest.raises(ValueError, match=rf"^dataset\.call\.{argument}=pink: must be "):
        wines({f"call.{argument}": "pink"})


def test_real_wine_quality(load, real_data):
    counts = {
        "red": [10, 53, 681, 638, 199, 18],
        "white": [20, 163, 1457, 2198, 880, 175, 5],
        "both": [30, 216, 2138, 2836, 1079, 193, 5],
    }
    for colour, expected in counts.items():
        data = load("wine_quality", {"root": real_data, "call.colour": colour})
        assert data.y.bincount().tolist() == expected
        assert data.shape == (12 if colour == "both" else 11,)
        assert len(data.test_rows) == sum(expected) // 5
    assert len(data.x) == 1_599 + 4_898
    assert (data.x[:, 11] > 0).sum() == 4_898
