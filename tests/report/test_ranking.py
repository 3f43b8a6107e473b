"""Ranks over blocks: ties, failures, what is missing, and whether they mean anything."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from report.studies import frame, rows, trouble

from unlearnbench.report.analysis import compare, ranking, statistics

Parts = list[dict[str, Any]]


def ranked(*parts: Parts, by: str = "ret_dev") -> tuple[pd.DataFrame, statistics.Friedman | None]:
    found = compare.runs(frame(*parts))
    told, test = ranking.ranked(found, compare.values(found), by)
    return told.set_index("method"), test


def block(model: str, **deviations: list[float | None]) -> Parts:
    return [
        row
        for method, values in deviations.items()
        for row in rows(method, {"ret_dev": values}, model=model)
    ]


def test_ranks_and_placements_by_hand() -> None:
    """By means: cnn has a, b and c alike, d; mlp has b, a, d, c."""
    told, _ = ranked(
        block("cnn", a=[0.1, 0.3], b=[0.3, 0.3], c=[0.2, 0.4], d=[0.9, 0.5]),
        block("mlp", a=[0.2, 0.2], b=[0.1, 0.1], c=[0.4, 0.4], d=[0.3, 0.3]),
    )
    assert told["digits cnn"].to_dict() == {"a": 1, "b": 2, "c": 2, "d": 4}
    assert told["digits mlp"].to_dict() == {"a": 2, "b": 1, "c": 4, "d": 3}
    assert told["mean_rank"].to_dict() == {"a": 1.5, "b": 1.5, "c": 3.0, "d": 3.5}
    assert told["top_1"].to_dict() == {"a": 1, "b": 1, "c": 0, "d": 0}
    assert told["top_3"].to_dict() == {"a": 2, "b": 2, "c": 1, "d": 1}
    assert told["top_5"].to_dict() == dict.fromkeys("abcd", 2)
    assert list(told.index) == ["a", "b", "c", "d"]


def test_higher_is_better_where_it_is() -> None:
    attacked = [rows(name, {"indisc_test": [v]}, "umia") for name, v in (("a", 0.2), ("b", 0.9))]
    told, _ = ranked(*attacked, by="indisc_test")
    assert told["digits cnn"].to_dict() == {"b": 1, "a": 2}


def test_controls_have_no_rank() -> None:
    told, _ = ranked(block("cnn", original=[0.0], retrain=[0.0], second_retrain=[0.0], a=[0.5]))
    assert told["mean_rank"].to_dict() == {"a": 1}


def test_a_method_of_which_a_seed_failed_is_last() -> None:
    """Though what survived is the best."""
    told, test = ranked(block("cnn", a=[0.0, None], b=[0.5, 0.5], c=[0.9, 0.9]), trouble("a", 1))
    assert told["digits cnn"].to_dict() == {"b": 1, "c": 2, "a": 3}
    assert told["failed"].to_dict() == {"a": 1, "b": 0, "c": 0}
    assert told.loc["a", "failed_in"] == ("digits cnn",)
    assert told.loc["a", "top_3"] == 0
    assert test is None


def test_a_method_that_failed_throughout_is_last_too() -> None:
    told, _ = ranked(block("cnn", b=[0.5, 0.5]), trouble("a", 0), trouble("a", 1))
    assert told["digits cnn"].to_dict() == {"b": 1, "a": 2}


def test_an_attack_that_failed_is_no_failure_of_what_it_has_no_part_in() -> None:
    parts = block("cnn", a=[0.1, 0.1], b=[0.5, 0.5])
    told, _ = ranked(parts, trouble("a", 0, attack="lira"))
    assert told["failed"].to_dict() == {"a": 0, "b": 0}


def test_a_missing_seed_is_marked_and_a_skipped_method_has_no_rank() -> None:
    told, test = ranked(
        block("cnn", a=[0.1, None], b=[0.5, 0.5]),
        block("mlp", a=[0.2, 0.2], b=[0.5, 0.5]),
        trouble("c", 0, "skipped"),
    )
    assert told["incomplete"].to_dict() == {"a": 1, "b": 0}
    assert told["mean_rank"].to_dict() == {"a": 1, "b": 2}
    assert test is not None
    assert (test.blocks, test.methods) == (1, 2)


def test_a_method_absent_from_a_block_is_ranked_where_it_is() -> None:
    told, test = ranked(
        block("cnn", a=[0.1, 0.1], b=[0.5, 0.5]), block("mlp", b=[0.5, 0.5], c=[0.1, 0.1])
    )
    assert told["blocks"].to_dict() == {"a": 1, "b": 2, "c": 1}
    assert told["mean_rank"].to_dict() == {"a": 1, "b": 2, "c": 1}
    assert told.loc["c", ["low", "high"]].tolist() == [1, 1]
    assert np.isnan(told.loc["a", "digits mlp"])
    assert test is None


def test_who_cannot_be_told_from_the_best() -> None:
    """b is .01 above a in each seed, with some jitter; c is anywhere about a."""
    a = [0.10, 0.20, 0.15, 0.30, 0.25]
    b = [x + y for x, y in zip(a, [0.010, 0.011, 0.009, 0.010, 0.012], strict=True)]
    c = [x + y for x, y in zip(a, [0.1, -0.09, 0.08, -0.07, 0.06], strict=True)]
    told, _ = ranked(block("cnn", a=a, b=b, c=c))
    assert told["best"].to_dict() == {"a": 1, "b": 0, "c": 1}
    single, _ = ranked(block("cnn", a=[0.1], b=[0.2]))
    assert single["best"].to_dict() == {"a": 1, "b": 0}  # nothing is known; the table says "?"


def test_many_blocks_are_tested() -> None:
    """Five methods in the same order in 20 blocks: χ² is at its greatest, N (k − 1)."""
    order = {name: [0.1 * k] * 2 for k, name in enumerate("abcde")}
    told, test = ranked(*(block(f"model_{b:02d}", **order) for b in range(20)))
    assert test is not None
    assert test.can_tell
    assert test.statistic == pytest.approx(20 * 4)
    assert told["mean_rank"].tolist() == [1, 2, 3, 4, 5]


def test_nothing_to_rank_is_nothing() -> None:
    told, test = ranking.ranked(
        *(2 * [compare.runs(frame(block("cnn", retrain=[0.1])))]), "ret_dev"
    )
    assert told.empty
    assert test is None
