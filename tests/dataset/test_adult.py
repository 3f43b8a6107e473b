import gzip
import hashlib

import pytest
import torch

from unlearnbench.dataset.adult import CATEGORIES, COLUMNS, NUMBERS

TRAIN = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Husband, White, Male, 2174, 0, 40, United-States, <=50K
50, Private, 83311, Bachelors, 13, Divorced, Exec-managerial, Husband, White, Female, 0, 0, 13, United-States, >50K
38, ?, 215646, HS-grad, 9, Divorced, ?, Wife, Black, Male, 0, 0, 40, Cuba, <=50K
53, Private, 234721, 11th, 7, Divorced, Adm-clerical, Wife, Black, Female, 0, 0, 40, ?, >50K
28, Private, 338409, 11th, 7, Divorced, Adm-clerical, Wife, Black, Female, 0, 5, 40, Cuba, <=50K

"""  # noqa: E501
TEST = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Adm-clerical, Husband, Black, Male, 0, 0, 40, United-States, <=50K.
44, Federal-gov, 160323, HS-grad, 9, Divorced, Adm-clerical, Husband, Black, Male, 7688, 0, 40, ?, >50K.

"""  # noqa: E501


@pytest.fixture
def adult(load, tmp_path):
    """``adult({...})``: the small files above, or others of the given text, packed or not."""

    def adult(changes=None, train=TRAIN, test=TEST, packed=False):
        folder = tmp_path / "adult"
        folder.mkdir(exist_ok=True)
        md5 = {}
        for name, text in (("adult.data", train), ("adult.test", test)):
            md5[name] = hashlib.md5(text.encode()).hexdigest()
            data = gzip.compress(text.encode()) if packed else text.encode()
            (folder / (f"{name}.gz" if packed else name)).write_bytes(data)
        return load("adult", {"root": tmp_path, "fingerprint": md5, **(changes or {})})

    return adult


def columns():
    """First column of each category with the values of TRAIN, and the number of columns."""
    train = [line.split(", ") for line in TRAIN.split("\n") if line]
    start, at = {}, len(NUMBERS)
    for name in CATEGORIES:
        values = sorted({row[COLUMNS.index(name)] for row in train})
        start[name] = (at, values)
        at += len(values)
    return start, at


def test_there_are_six_numbers_and_eight_categories():
    assert (len(NUMBERS), len(CATEGORIES), len(COLUMNS)) == (6, 8, 15)
    assert set(NUMBERS) < set(COLUMNS)


def test_the_official_parts_and_their_labels(adult):
    data = adult()
    assert data.train_rows.tolist() == [0, 1, 2, 3, 4]
    assert data.test_rows.tolist() == [5, 6]
    assert data.y.tolist() == [0, 1, 0, 1, 0, 0, 1]  # the full stop of adult.test does not matter
    assert data.n_classes == 2


def test_numbers_are_standardised_and_categories_one_hot(adult):
    data = adult()
    start, width = columns()
    assert data.x.shape == (7, width)
    ages = torch.tensor([39.0, 50, 38, 53, 28, 25, 44])
    expected = (ages - ages[:5].mean()) / ages[:5].std(correction=0)
    torch.testing.assert_close(data.x[:, 0], expected)
    at, values = start["race"]
    assert values == ["Black", "White"]
    assert data.x[:, at : at + 2].tolist() == [
        [0, 1], [0, 1], [1, 0], [1, 0], [1, 0], [1, 0], [1, 0]
    ]  # fmt: skip


def test_a_question_mark_is_a_category(adult):
    data = adult()
    at, values = columns()[0]["workclass"]
    assert values[0] == "?"
    assert data.x[:, at].tolist() == [0, 0, 1, 0, 0, 0, 0]


def test_a_value_that_only_test_rows_have_is_no_column(adult):
    at, values = columns()[0]["workclass"]
    assert "Federal-gov" not in values
    assert adult().x[6, at : at + len(values)].tolist() == [0] * len(values)


def test_persons_with_a_question_mark_can_be_dropped(adult):
    data = adult({"call.missing": "drop"})
    assert data.train_rows.tolist() == [0, 1, 4]
    assert data.test_rows.tolist() == [5]
    assert data.y[data.rows].tolist() == [0, 1, 0, 0]
    ages = torch.tensor([39.0, 50, 28])
    assert data.x[5, 0].item() == pytest.approx(
        ((25 - ages.mean()) / ages.std(correction=0)).item()
    )


def test_labels_are_one_standardised_column_each(adult):
    data = adult({"call.encoding": "label"})
    assert data.x.shape == (7, 14)
    # workclass: "?" 0, Private 1, State-gov 2; Federal-gov is unknown, -1
    codes = torch.tensor([2.0, 1, 0, 1, 1, 1, -1])
    expected = (codes - codes[:5].mean()) / codes[:5].std(correction=0)
    torch.testing.assert_close(data.x[:, 6], expected)


@pytest.mark.parametrize("encoding", ["onehot", "label"])
def test_test_rows_change_nothing_in_the_training_part(adult, encoding):
    other = TEST.replace("25, Private", "99, Never-worked")
    first, second = (adult({"call.encoding": encoding}, test=test) for test in (TEST, other))
    assert torch.equal(first.x[:5], second.x[:5])
    assert not torch.equal(first.x[5], second.x[5])


def test_packed_files_are_read_too(adult, tmp_path):
    plain = adult()
    for file in (tmp_path / "adult").iterdir():
        file.unlink()
    assert torch.equal(adult(packed=True).x, plain.x)


def test_a_file_with_another_checksum_is_refused(adult):
    with pytest.raises(ValueError, match=r"^dataset=adult: .*adult\.data has checksum"):
        adult({"fingerprint": {"adult.data": "0" * 32, "adult.test": "0" * 32}})


def test_missing_files_are_named_in_one_line(load, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("adult", {"root": tmp_path})
    assert str(caught.value) == (
        f"dataset=adult: put adult.data, adult.test into {tmp_path / 'adult'} "
        "(UCI's files, packed (.gz) or not)"
    )


@pytest.mark.parametrize("argument", ["missing", "encoding"])
def test_an_unknown_choice_is_refused(adult, argument):
    with pytest.raises(ValueError, match=rf"^dataset\.call\.{argument}=mean: must be "):
        adult({f"call.{argument}": "mean"})


def test_real_adult(load, real_data):
    data = load("adult", {"root": real_data})
    assert data.x.shape == (48_842, 108)
    assert data.y[data.train_rows].bincount().tolist() == [32_561 - 7_841, 7_841]
    assert data.y[data.test_rows].bincount().tolist() == [16_281 - 3_846, 3_846]
    assert (data.x[:, 6:].sum(1) == 8).all()  # one of each category
    dropped = load("adult", {"root": real_data, "call.missing": "drop"})
    assert (len(dropped.train_rows), len(dropped.test_rows)) == (30_162, 15_060)
