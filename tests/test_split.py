"""Splits at their limits."""

from dataclasses import replace

import pytest
from cells import Cells

from unlearnbench import pipeline, table
from unlearnbench.pipeline import Lab
from unlearnbench.population import shadows
from unlearnbench.split import population, split_of


def test_without_validation_rows_all_the_others_are_trained_on(cell: Cells) -> None:
    one = cell("split.val=0")
    data = pipeline.dataset(one)
    parts, usual = split_of(one, data), split_of(cell(), data)
    assert not len(parts.val)
    assert len(usual.val)
    assert parts.train.tolist() == data.train_rows.tolist()
    assert parts.test.tolist() == usual.test.tolist() == data.test_rows.tolist()
    assert set(parts.forget.tolist()) < set(parts.train.tolist())
    shares = [len(each.forget) / len(each.train) for each in (parts, usual)]
    assert shares == pytest.approx([0.1, 0.1], abs=1e-3)


def test_a_population_without_validation_rows(cell: Cells) -> None:
    one = cell("split.val=0")
    settings = {"protocol": "audit_pool", "models": 4, "pool": 1.0, "seed": 0}
    shadow = shadows(replace(one, attack={**one.attack, "shadows": settings}))[0]
    data = pipeline.dataset(one)
    found = population(shadow, data.train_rows)
    assert sorted(found.rows_N) == sorted(data.train_rows.tolist())
    assert not len(split_of(shadow, data).val)


def test_a_cell_without_validation_rows_runs(new_lab: Lab, cell: Cells) -> None:
    words = "model=logreg", "train.call.epochs=1", "method.call.epochs=1"
    found = table.rows(new_lab, cell("split.val=0", *words))
    assert found.error is None
    told = {row["metric"]: (row["value"], row["n"]) for row in found.rows}
    assert told["val_acc"][0] != told["val_acc"][0], "NaN"
    assert told["val_acc"][1] == 0
    assert 0 <= told["test_acc"][0] <= 1
