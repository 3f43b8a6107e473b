import numpy as np
import pandas as pd
import pytest
import torch

from unlearnbench.core.errors import ConfigError
from unlearnbench.dataset import holdout
from unlearnbench.dataset.acs_income import CATEGORIES, COLUMNS, FIPS, NUMBERS

N = 30
TRAIN, TEST = holdout.parts(N)


def people(seed, n=N):
    """Persons who pass the filter, with some columns that no one asks for."""
    draw = np.random.default_rng(seed)
    table = {name: draw.integers(1, 4, n) for name in CATEGORIES}
    table |= {"AGEP": draw.integers(17, 90, n), "WKHP": draw.integers(1, 80, n)}
    table |= {"PINCP": draw.integers(101, 100_001, n), "PWGTP": draw.integers(1, 300, n)}
    table |= {"RT": ["P"] * n, "SERIALNO": [f"2018HU{i:07}" for i in range(n)]}
    return pd.DataFrame(table)


@pytest.fixture
def acs(load, tmp_path):
    """``acs({"psam_p06.csv": table}, {...})``: write the tables and load."""

    def acs(tables, changes=None):
        folder = tmp_path / "acs" / "2018" / "1-Year"
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_csv(folder / name, index=False)
        return load("acs_income", {"path": folder, **(changes or {})})

    return acs


def california(table):
    return {"psam_p06.csv": table}


def test_labels_and_split(acs):
    table = people(0)
    table.loc[3, "PINCP"], table.loc[4, "PINCP"] = 50_000, 50_001
    data = acs(california(table))
    assert (data.kind, data.n_classes) == ("tabular", 2)
    assert data.train_rows.tolist() == TRAIN.tolist()
    assert data.test_rows.tolist() == TEST.tolist()
    assert data.y.tolist() == (table["PINCP"] > 50_000).to_numpy().astype(int).tolist()


@pytest.mark.parametrize(
    ("column", "out", "kept"),
    [("AGEP", 16, 17), ("PINCP", 100, 101), ("WKHP", 0, 1), ("PWGTP", 0, 1)],
)
def test_the_filter(acs, column, out, kept):
    table = people(0).astype({column: object})
    assert len(acs(california(table)).x) == N
    table.loc[[0, 1], column] = kept
    table.loc[[5, 6], column] = out
    table.loc[7, column] = None
    assert len(acs(california(table)).x) == N - 3


def test_numbers_are_standardised_and_categories_one_hot(acs):
    table = people(0)
    data = acs(california(table))
    assert data.x.shape == (N, len(NUMBERS) + 3 * len(CATEGORIES))
    numbers = table[list(NUMBERS)].to_numpy(float)
    expected = (numbers - numbers[TRAIN].mean(0)) / numbers[TRAIN].std(0)
    np.testing.assert_allclose(data.x[:, :2], expected, rtol=1e-4, atol=1e-5)
    for i, name in enumerate(CATEGORIES):
        one = data.x[:, 2 + 3 * i : 5 + 3 * i]
        assert one.sum(1).tolist() == [1] * N
        assert (one.argmax(1) + 1).tolist() == table[name].tolist()


def test_labels_are_one_standardised_column_each(acs):
    table = people(0)
    table.loc[table["POBP"] == 3, "POBP"] = 530  # a code says nothing of its distance to others
    data = acs(california(table), {"call.encoding": "label"})
    assert data.shape == (10,)
    codes = table["POBP"].replace(530, 3).to_numpy(float) - 1
    expected = (codes - codes[TRAIN].mean()) / codes[TRAIN].std()
    np.testing.assert_allclose(data.x[:, 2 + CATEGORIES.index("POBP")], expected, rtol=1e-4)


def test_a_blank_category_is_a_value_of_its_own_and_the_last(acs):
    table = people(0).astype({"COW": object})
    table.loc[[TRAIN[0], TEST[-1]], "COW"] = None
    data = acs(california(table))
    assert data.x.shape == (N, 2 + 4 + 3 * 7)
    assert data.x[:, 5].nonzero().flatten().tolist() == sorted([TRAIN[0], TEST[-1]])


@pytest.mark.parametrize("unknown", [99, None])
def test_a_value_that_only_test_rows_have_is_unknown(acs, unknown):
    table = people(0).astype({"COW": object})
    table.loc[TEST[-1], "COW"] = unknown
    assert acs(california(table)).x[TEST[-1], 2:5].tolist() == [0, 0, 0]
    labelled = acs(california(table), {"call.encoding": "label"}).x[:, 2]
    codes = table["COW"].to_numpy()[TRAIN].astype(float) - 1
    assert labelled[TEST[-1]].item() == pytest.approx((-1 - codes.mean()) / codes.std(), rel=1e-5)


@pytest.mark.parametrize("encoding", ["onehot", "label"])
def test_test_rows_change_nothing_in_the_training_part(acs, encoding):
    table, other = people(0), people(0)
    other.loc[TEST, [*NUMBERS, *CATEGORIES]] += 7
    first, second = (acs(california(t), {"call.encoding": encoding}) for t in (table, other))
    assert torch.equal(first.x[TRAIN], second.x[TRAIN])
    assert not torch.equal(first.x[TEST], second.x[TEST])


def test_states_follow_one_another(acs):
    tables = {"psam_p06.csv": people(0, 12), "psam_p48.csv": people(1, 18)}
    data = acs(tables, {"call.states": ["TX", "CA"]})
    both = pd.concat([tables["psam_p48.csv"], tables["psam_p06.csv"]])
    assert data.y.tolist() == (both["PINCP"] > 50_000).to_numpy().astype(int).tolist()


def test_files_before_2017_have_another_name(acs):
    data = acs({"ss16pca.csv": people(0)}, {"call.year": 2016})
    assert len(data.x) == N


def test_relationships_have_another_name_from_2019_on(acs):
    renamed = people(0).rename(columns={"RELP": "RELSHIPP"})
    assert torch.equal(acs(california(renamed)).x, acs(california(people(0))).x)


def test_many_rows_take_no_loop(acs):
    data = acs(california(people(0, 50_000)))
    assert len(data.x) == 50_000


def test_fips_codes_are_of_fifty_states_the_capital_and_puerto_rico():
    assert len(FIPS) == len(set(FIPS.values())) == 52
    assert (FIPS["CA"], FIPS["DC"], FIPS["WY"], FIPS["PR"]) == (6, 11, 56, 72)


def test_the_folder_follows_the_year(monkeypatch, tmp_path):
    from unlearnbench.config import compose

    monkeypatch.setenv("UNLEARNBENCH_DATA", str(tmp_path))
    folder = tmp_path / "acs" / "2016" / "1-Year"
    words = ["dataset=acs_income", "dataset.call.year=2016"]
    with pytest.raises(ConfigError, match=r"2016/1-Year: there is no such file or folder"):
        compose.cells([words])
    folder.mkdir(parents=True)
    (cell,) = compose.cells([words])
    assert cell.dataset["path"] == str(folder)


def test_missing_files_are_named_in_one_line(load, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("acs_income", {"path": tmp_path, "call.states": ["CA", "AL"]})
    assert str(caught.value) == (
        f"dataset=acs_income: put psam_p06.csv, psam_p01.csv into {tmp_path} "
        "(the Census Bureau's person records, unpacked; dataset.path is the folder)"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"call.encoding": "mean"}, r"dataset\.call\.encoding=mean: must be onehot or label"),
        ({"call.states": ["ZZ"]}, r"dataset\.call\.states: there is no ZZ; CA is California"),
        ({"call.states": []}, r"dataset\.call\.states=\[\]: must name each state once"),
        ({"call.states": ["CA", "CA"]}, r"dataset\.call\.states=.* must name each state once"),
    ],
)
def test_wrong_choices_are_refused(acs, changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        acs(california(people(0)), changes)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(acs, column):
    with pytest.raises(ValueError, match=rf"p06\.csv lacks the columns {column}$"):
        acs(california(people(0).drop(columns=column)))


def test_a_column_that_holds_no_numbers_is_refused(acs):
    table = people(0).astype({"OCCP": object})
    table.loc[3, "OCCP"] = "N.A."
    with pytest.raises(ValueError, match=r"^dataset=acs_income: .*p06\.csv cannot be read: "):
        acs(california(table))


def test_an_empty_file_is_refused(acs, tmp_path):
    acs(california(people(0)))
    (tmp_path / "acs" / "2018" / "1-Year" / "psam_p06.csv").write_text("")
    with pytest.raises(ValueError, match=r"^dataset=acs_income: .*p06\.csv cannot be read: "):
        acs({})


def test_nobody_left_is_said(acs):
    with pytest.raises(ValueError, match=r"^dataset=acs_income: 0 persons are left"):
        acs(california(people(0).assign(AGEP=16)))
