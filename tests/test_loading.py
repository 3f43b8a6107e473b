"""What a user loads: types, several machines and versions, scores, stored outputs, the recipes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from report.studies import rows
from safetensors.numpy import save_file

import unlearnbench
from unlearnbench.results import parts
from unlearnbench.results.load import default_folder, load_results
from unlearnbench.results.schema import ROWS, SCHEMA_VERSION, SCORES
from unlearnbench.store.artifacts import Store

README = Path(__file__).parent.parent / "results" / "README.md"

SCHEMA_1 = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "model", "train", "forget", "forget_hash")),
        *((name, pa.string()) for name in ("method", "defense", "attack", "overrides")),
        ("seed", pa.int64()),
        ("metric", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("n", pa.int64()),
        *((name, pa.string()) for name in ("status", "reason")),
        ("seconds", pa.float64()),
        *((name, pa.string()) for name in ("key", "model_key", "commit", "version", "device")),
        ("schema", pa.int64()),
    ]
)
"""As rows were written at first; the second schema has ``traits``, the third ``threat`` too."""

SCHEMA_2 = SCHEMA_1.insert(8, pa.field("traits", pa.string()))
SCHEMA_3 = SCHEMA_2.insert(9, pa.field("threat", pa.string()))

EARLIER = (SCHEMA_1, SCHEMA_2, SCHEMA_3)
"""In which ``model_key`` held the key of the utility rows."""


def write(folder: Path, sweep: str, told: list[dict[str, Any]], schema: pa.Schema = ROWS) -> None:
    parts.write(folder / "rows", sweep, told, schema)
    name = "model_key" if schema in EARLIER else "utility_key"
    cells = {row["key"]: row[name] for row in told}
    listed = [{"sweep": sweep, "key": key, name: model} for key, model in cells.items()]
    fields = [(field, pa.string()) for field in ("sweep", "key", name)]
    parts.write(folder / "sweeps", sweep, listed, pa.schema(fields))


def test_names_are_categories_and_counts_are_whole(tmp_path: Path) -> None:
    write(tmp_path, "s", rows("scrub", {"test_acc": [0.5, 0.6]}))
    for wide in (False, True):
        found = unlearnbench.load_results(tmp_path, wide=wide)
        assert isinstance(found["method"].dtype, pd.CategoricalDtype)
        assert isinstance(found["status"].dtype, pd.CategoricalDtype)
        assert not isinstance(found["key"].dtype, pd.CategoricalDtype)
        assert found["seed"].dtype == np.int64
    assert unlearnbench.load_results(tmp_path)[["step", "n"]].dtypes.astype(str).tolist() == [
        "Int64",
        "Int64",
    ]


def test_rows_of_several_machines_and_versions_stand_side_by_side(tmp_path: Path) -> None:
    for number, schema in enumerate((SCHEMA_1, SCHEMA_2, SCHEMA_3, ROWS), 1):
        told = rows(
            f"m{number}", {"test_acc": [0.1 * number]}, traits="uses_val", device=f"d{number}"
        )
        told = [{**row, "schema": number, "threat": "all"} for row in told]
        told = [{**row, "model_key": row["utility_key"]} for row in told]
        told = [{name: row[name] for name in schema.names if name in row} for row in told]
        write(tmp_path / str(number), "s", told, schema)
    everywhere = [tmp_path / str(number) for number in (1, 2, 3, 4)]
    found = unlearnbench.load_results(everywhere).set_index("method")
    assert found["value"].to_dict() == pytest.approx({f"m{k}": 0.1 * k for k in (1, 2, 3, 4)})
    assert found["schema"].tolist() == [1, 2, 3, 4]
    assert found["traits"].tolist() == ["", "uses_val", "uses_val", "uses_val"]
    assert found["device"].cat.categories.tolist() == ["d1", "d2", "d3", "d4"]
    assert found["threat"].isna().tolist() == [True, True, False, False]
    assert found["predictions_key"].isna().all()
    assert unlearnbench.load_results(everywhere, sweep="s", wide=True).shape[0] == 4
    alone = unlearnbench.load_results(tmp_path / "1")
    assert alone["traits"].tolist() == [""]
    assert list(alone.columns) == ROWS.names


def test_a_cell_computed_on_two_machines_stands_once(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, "s", rows("scrub", {"test_acc": [0.5]}))
    assert len(unlearnbench.load_results([tmp_path / "a", tmp_path / "b"])) == 1


def test_rows_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    newer = [{**row, "schema": SCHEMA_VERSION + 1} for row in rows("a", {"x": [1.0]})]
    write(tmp_path, "s", newer)
    with pytest.raises(ValueError, match="update unlearnbench"):
        unlearnbench.load_results(tmp_path)


def test_a_folder_without_rows_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", "s", rows("a", {"x": [1.0]}))
    with pytest.raises(FileNotFoundError, match=r"no results in .*/b"):
        unlearnbench.load_results([tmp_path / "a", tmp_path / "b"])


def scored(folder: Path, *keys: str) -> None:
    told = [
        {"key": key, "pool": "test", "row": row, "member": row < 2, "score": 0.1 * row}
        for key in keys
        for row in range(4)
    ]
    parts.write(folder / "scores", "part", told, SCORES)


@pytest.mark.tried(
    "numbers, several folders and keys that are no texts, as arguments of `load_…`",
    "one line that says what is valid",
)
@pytest.mark.parametrize("load", ["load_results", "load_scores", "load_predictions"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"results": 3}, "results=3: must be a folder, or a list of folders"),
        ({"results": []}, r"results=\[\]: must be a folder"),
        ({"keys": [1]}, "keys: must be texts as in the column key, not 1"),
        ({"keys": 3}, "keys: must be texts as in the column key, not 3"),
        ({"sweep": 3}, "no sweep 3 in "),
        ({"sweep": ["a"]}, "a name must be of letters"),
    ],
)
def test_wrong_arguments_are_refused(
    load: str, arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path, "a", rows("x", {"test_acc": [0.5]}))
    given = {"results": tmp_path, **arguments}
    if load == "load_predictions":
        given = {"results": given["results"], "key": given.get("keys", given.get("sweep", "k"))}
        message = message if "results" in arguments else "keys: must be texts"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        getattr(unlearnbench, load)(**given)


def test_scores_are_of_one_folder(tmp_path: Path) -> None:
    write(tmp_path, "a", rows("x", {"test_acc": [0.5]}))
    with pytest.raises(ValueError, match="results: must be one folder here, not 2"):
        unlearnbench.load_scores([tmp_path, tmp_path])


def test_a_folder_and_a_key_as_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~`` is followed, by the environment too, and one key is no sequence of letters."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "own", "a", rows("x", {"test_acc": [0.5]}))
    key = unlearnbench.load_results("~/own")["key"].iloc[0]
    assert set(unlearnbench.load_results("~/own", keys=key)["key"]) == {key}
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", "~/own")
    assert default_folder() == tmp_path / "own"
    assert len(unlearnbench.load_results())


def test_scores_of_a_sweep_of_keys_and_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, name, rows(name, {"mia_test": [0.5]}, "umia"))
    keys = [rows(name, {"mia_test": [0.5]}, "umia")[0]["key"] for name in ("a", "b")]
    scored(tmp_path, *keys, "elsewhere")
    assert set(unlearnbench.load_scores(tmp_path)["key"]) == {*keys, "elsewhere"}
    assert set(unlearnbench.load_scores(tmp_path, sweep="a")["key"]) == {keys[0]}
    assert set(unlearnbench.load_scores(tmp_path, keys=[keys[1]])["key"]) == {keys[1]}
    assert unlearnbench.load_scores(tmp_path, sweep="a", keys=[keys[1]]).empty
    with pytest.raises(FileNotFoundError, match="no sweep c"):
        unlearnbench.load_scores(tmp_path, sweep="c")


def with_outputs(folder: Path, cell: dict[str, Any], place: str = "store") -> dict[str, Any]:
    """The same row, its model's outputs in the store."""
    arrays = {
        "logits_NC": np.array([[4, 5], [0, 1], [2, 3]], np.float32),
        "y_N": np.array([2, 0, 1]),
        "is_test_N": np.array([True, False, False]),
        "rows_N": np.array([2, 0, 1]),
        "n_records": np.array([3]),
    }
    key = f"{len(cell['key']):064x}"

    def make(temporary: Path) -> dict[str, Any]:
        save_file(arrays, temporary / "predictions.safetensors")
        return {"kind": "predictions"}

    Store(folder / place).get(key, make)
    return {**cell, "predictions_key": key}


def test_predictions_by_the_key_of_a_cell_and_by_their_own(tmp_path: Path) -> None:
    (cell,) = rows("scrub", {"test_acc": [0.5]})
    cell = with_outputs(tmp_path, cell)
    write(tmp_path, "s", [cell])
    for key in (cell["key"], cell["predictions_key"]):
        found = unlearnbench.load_predictions(key, tmp_path)
        assert found["logits_NC"].tolist() == [[0, 1], [2, 3], [4, 5]]
        assert found["y_N"].tolist() == [0, 1, 2]
        assert found["rows_N"].tolist() == [0, 1, 2]
        assert found["is_test_N"].tolist() == [False, False, True]
    path = Store(tmp_path / "store").path(cell["predictions_key"]) / "predictions.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RuntimeError):
        unlearnbench.load_predictions(cell["key"], tmp_path)


def test_predictions_that_are_not_there(tmp_path: Path) -> None:
    (cell,) = rows("scrub", {"test_acc": [0.5]})
    (old,) = rows("old", {"test_acc": [0.5]})
    write(tmp_path, "s", [with_outputs(tmp_path, cell, "elsewhere"), old])
    with pytest.raises(KeyError, match="no rows with the key nothing"):
        unlearnbench.load_predictions("nothing", tmp_path)
    with pytest.raises(ValueError, match="run its sweep again"):
        unlearnbench.load_predictions(old["key"], tmp_path)
    with pytest.raises(FileNotFoundError, match="name the store"):
        unlearnbench.load_predictions(cell["key"], tmp_path)
    found = unlearnbench.load_predictions(cell["key"], tmp_path, store=tmp_path / "elsewhere")
    assert len(found["y_N"]) == 3


def test_loading_imports_no_torch(tmp_path: Path) -> None:
    (cell,) = rows("scrub", {"test_acc": [0.5]})
    write(tmp_path, "s", [with_outputs(tmp_path, cell)])
    program = (
        "import sys, unlearnbench; "
        f"unlearnbench.load_predictions({cell['key']!r}, {str(tmp_path)!r}); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# ---------------------------------------------------------------------------------------------
# The recipes of results/README.md, as they stand there.

RECIPES = dict(
    re.findall(r"^### (.*?)\n.*?```python\n(.*?)```", README.read_text(), re.MULTILINE | re.DOTALL)
)


def test_there_are_five_recipes() -> None:
    assert len(RECIPES) == 5


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps as the recipes name them."""
    folder = tmp_path_factory.mktemp("recipes")
    for sweep, shift in (("quickstart", 0.0), ("methods", 0.1)):
        told = []
        for number, method in enumerate(("retrain", "finetune", "salun")):
            values = [0.5 + 0.1 * number + shift + 0.01 * seed for seed in range(3)]
            train = sweep if shift else "default"
            told += rows(method, {"test_acc": values, "rte": values}, train=train)
            attacked = rows(method, {"mia_test_auc": values}, "umia", train=train)
            told += [with_outputs(folder, row) for row in attacked]
        write(folder, sweep, told)
    frame = load_results(folder)
    scored(folder, *frame.loc[frame["attack"] == "umia", "key"].unique())
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_and_gives_what_it_says(
    name: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(study))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    space: dict[str, Any] = {}
    exec(compile(RECIPES[name], name, "exec"), space)
    assert CHECKS[name.split(":")[0]](space, tmp_path)


def pivot(space: dict[str, Any], _: Path) -> bool:
    table = space["table"]
    return bool(
        table.loc["salun"].round(6).to_dict() == {"mia_test_auc": 0.71, "test_acc": 0.71}
        and len(table) == 3
    )


def plot(_: dict[str, Any], folder: Path) -> bool:
    return (folder / "accuracy.png").stat().st_size > 1000


def join(space: dict[str, Any], _: Path) -> bool:
    # Members are rows 0 and 1 of four, with scores of a tenth of the row.
    found: dict[bool, float] = space["means"].loc["salun"].to_dict()
    return found == pytest.approx({True: 0.05, False: 0.25})


def compared(space: dict[str, Any], _: Path) -> bool:
    return bool(np.allclose(space["change"].loc[["finetune", "salun"]], 0.1))


def select(space: dict[str, Any], _: Path) -> bool:
    return space["outputs"]["logits_NC"].shape == (3, 2) and len(space["forgotten"]) == 2


CHECKS = {
    "Pivot": pivot,
    "Plot": plot,
    "Join scores": join,
    "Compare two sweeps": compared,
    "Select by key": select,
}
