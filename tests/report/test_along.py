"""Tables along runs: which number stands where."""

from typing import Any

import numpy as np
import pandas as pd

from unlearnbench.report.tables import along

ABOUT: dict[str, Any] = {
    "dataset": "digits",
    "model": "cnn",
    "train": "default",
    "forget": "by_class",
    "forget_hash": "f0",
    "defense": "none",
    "attack": "none",
    "overrides": "",
    "seed": 0,
    "metric": "test_acc",
}


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([{**ABOUT, **row} for row in rows])


def point(method: str, step: float | None, value: float, **changed: Any) -> dict[str, Any]:
    return {"method": method, "step": step, "value": value, **changed}


def test_a_line_a_step_and_a_column_a_method_controls_first() -> None:
    rows = frame(
        point("amnesiac", 0, 0.1),
        point("amnesiac", 1, 0.8),
        point("retrain", 0, 0.2),
        point("retrain", 2, 0.9),
        point("amnesiac", None, 0.7),
    )
    ((title, table),) = along.tables(rows)
    assert title == "test_acc: dataset digits · model cnn · train default · forget by_class"
    assert list(table.columns) == ["retrain", "amnesiac"]
    assert table.index.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(table.to_numpy(), [[0.2, 0.1], [np.nan, 0.8], [0.9, np.nan]])


def test_means_are_over_seeds_and_never_over_some_of_them() -> None:
    rows = frame(point("ssd", 0, 0.2), point("ssd", 0, 0.4, seed=1), point("ssd", 1, 0.6, seed=1))
    ((_, table),) = along.tables(rows)
    assert list(table.columns) == ["ssd (n = 2)"]
    np.testing.assert_allclose(table.to_numpy(), [[0.3], [np.nan]])


def test_settings_and_metrics_have_tables_of_their_own() -> None:
    rows = frame(
        point("ssd", 0, 0.2, overrides="method.call.alpha=2"),
        point("ssd", 0, 0.3, overrides="dataset.limit=50 attack.call.label=3"),
        point("ssd", 0, 0.4, metric="test_acc_others"),
        point("ssd", 0, 0.5, metric="val_acc"),
    )
    found = list(along.tables(rows))
    assert [(title.split(":")[0], list(table.columns)) for title, table in found] == [
        ("test_acc_others", ["ssd"]),
        ("test_acc", ["ssd method.call.alpha=2"]),
        ("test_acc", ["ssd"]),
    ]
    assert found[2][0].endswith("· forget by_class · dataset.limit=50")


def test_markdown() -> None:
    rows = frame(point("ssd", 0, 0.25), point("retrain", 0, 0.5), point("ssd", 1, 0.125))
    text = along.markdown(rows)
    assert text is not None
    assert "| step | retrain | ssd |\n| --- | --- | --- |\n| 0 | 0.500 | 0.250 |\n" in text
    assert "| 1 | – | 0.125 |" in text
    assert along.markdown(frame(point("ssd", None, 0.5))) is None
