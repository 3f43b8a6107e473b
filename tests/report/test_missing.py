"""What a grid lacks, in words and line by line."""

import pandas as pd
from report.studies import frame, key, rows, trouble

from unlearnbench.report.analysis import compare, missing

WHOLE = [*rows("a", {"test_acc": [0.1, 0.2]}), *rows("b", {"test_acc": [0.1, 0.2]})]


def listed(*cells: tuple[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"key": [key(*cell) for cell in cells]})


ASKED = listed(("a", 0), ("a", 1), ("b", 0), ("b", 1))


def test_a_complete_grid_is_called_so() -> None:
    told = missing.sentence(compare.runs(frame(WHOLE)), ASKED)
    assert told == "The grid is complete: all 4 cells have rows."


def test_what_has_no_rows_failed_or_was_skipped() -> None:
    found = frame(WHOLE[:2], trouble("b", 0), trouble("c", 0, "skipped"))
    told = missing.sentence(compare.runs(found), pd.concat([ASKED, listed(("c", 0))]))
    assert told == (
        "The grid is incomplete: of 5 cells 1 have no rows yet, 1 failed (b), 1 skipped (c). "
        "Whatever is over fewer seeds says so."
    )


def test_skipping_on_principle_leaves_gaps_alone() -> None:
    found = compare.runs(frame(WHOLE, trouble("c", 0, "skipped")))
    told = missing.sentence(found, pd.concat([ASKED, listed(("c", 0))]))
    assert told.startswith("The grid has gaps: of 5 cells 1 skipped (c).")


def test_troubles_are_listed_and_so_is_a_hole() -> None:
    found = missing.troubles(compare.runs(frame(WHOLE, rows("c", {"test_acc": [0.1]}))))
    assert found[["method", "seed", "status"]].values.tolist() == [["c", 1, "missing"]]
    found = missing.troubles(compare.runs(frame(WHOLE, trouble("c", 0), trouble("c", 1))))
    assert found[["method", "seed", "status"]].values.tolist() == [
        ["c", 0, "failed"],
        ["c", 1, "failed"],
    ]
    assert set(found["reason"]) == {"it broke"}


def test_a_complete_grid_has_no_troubles() -> None:
    assert missing.troubles(compare.runs(frame(WHOLE))).empty
