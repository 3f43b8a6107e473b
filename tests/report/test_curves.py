"""A picture of distribution functions for each setting that was attacked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unlearnbench import results
from unlearnbench.report import curves


def put(folder: Path, key: str, scores: dict[str, list[float]]) -> None:
    rows = [
        {"key": key, "pool": pool, "row": row, "member": True, "score": score}
        for pool, given in scores.items()
        for row, score in enumerate(given)
    ]
    results.write(folder / "scores", key, rows, results.SCORES)


def cells(*methods: str, overrides: str = "", dataset: str = "diabetes") -> list[dict[str, str]]:
    about = {"dataset": dataset, "model": "ridge", "train": "exact", "attack": "hrec"}
    return [
        {
            **about,
            "key": f"{dataset}{m}{overrides}",
            "method": m,
            "overrides": overrides,
            "status": "ok",
        }
        for m in methods
    ]


@pytest.fixture
def drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, dict[str, list[float]]]]:
    made: list[tuple[str, dict[str, list[float]]]] = []

    def cumulative(values: dict[str, np.ndarray], heading: str, *_: object) -> np.ndarray:
        made.append((heading, {name: one.tolist() for name, one in values.items()}))
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(curves, "cumulative", cumulative)
    return made


def test_a_curve_for_each_method_and_the_baselines_under_retraining(
    tmp_path: Path, drawn: list[tuple[str, dict[str, list[float]]]]
) -> None:
    grid = cells("ssd", "retrain") + cells("ssd", overrides="method.call.alpha=2 deletions.count=3")
    grid += cells("retrain", dataset="wine")
    for place, cell in enumerate(grid):
        put(
            tmp_path,
            cell["key"],
            {who: [place, who == "avg"] for who in ("hrec", "avg", "max_diff")},
        )
    made = curves.draw(pd.DataFrame(grid), tmp_path, "mine")
    assert [path.name for path in made] == [
        "cosine-mine-diabetes-ridge-exact.png",
        "cosine-mine-diabetes-ridge-exact-deletions.count_3.png",
        "cosine-mine-wine-ridge-exact.png",
    ]
    assert all(path.is_file() for path in made)
    heading, first = drawn[0]
    assert heading == "diabetes · ridge · exact"
    assert list(first) == ["retrain", "ssd", "Avg", "MaxDiff"]
    assert first["ssd"] == [0, 0]
    assert first["Avg"] == [1, 1]
    assert list(drawn[1][1]) == ["ssd method.call.alpha=2", "Avg", "MaxDiff"]


def test_without_such_an_attack_there_is_none(tmp_path: Path) -> None:
    other = pd.DataFrame(cells("retrain")).assign(attack="umia")
    assert curves.draw(other, tmp_path) == []
    failed = pd.DataFrame(cells("retrain")).assign(status="skipped")
    assert curves.draw(failed, tmp_path) == []
