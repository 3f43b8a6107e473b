"""The notebook runs, and the recipes for pandas on what it leaves."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from unlearnbench.config import compose
from unlearnbench.results.load import load_results
from unlearnbench.sweep import run_record

DOCS = Path(__file__).resolve().parent.parent / "docs"
nbclient = pytest.importorskip("nbclient", reason="the notebook runs with it; extra dev")
nbformat = pytest.importorskip("nbformat")


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the ``results`` of the notebook."""
    folder = tmp_path_factory.mktemp("tour")
    notebook = nbformat.read(DOCS / "tour.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNLEARNBENCH_RESULTS", str(folder / "results"))
        patch.setenv("MPLBACKEND", "agg")
        # The kernel is to import what these tests import, wherever it is.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(DOCS.parent), *sys.path]))
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return folder


def test_the_notebook_is_committed_without_outputs() -> None:
    for cell in nbformat.read(DOCS / "tour.ipynb", as_version=4).cells:
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)


def test_the_notebook_runs_all_its_cells(tour: Path) -> None:
    wide = load_results(tour / "results", wide=True)
    assert set(wide["status"]) == {"ok"}
    counts = wide.groupby("method").size().to_dict()
    methods = {"finetune": 6, "random_labels": 6, "gradient_ascent": 6}
    assert counts == methods | {"original": 3, "retrain": 3, "second_retrain": 3}


def recipes() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / "pandas.md").read_text(), re.DOTALL)


def test_recipes_for_pandas(tour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, in their order, where the sweep they name is there."""
    words = ["dataset=breast_cancer", "model=logreg", "train.call.epochs=5", "seed=range(3)"]
    words += ["method=finetune,random_labels,gradient_ascent", "method.call.sgd.lr=0.1"]
    cells = compose.cells(compose.expand(words), ["original", "retrain"])
    run_record.write_cells(tour / "results", "quickstart", cells)
    monkeypatch.chdir(tour)
    monkeypatch.delenv("UNLEARNBENCH_RESULTS", raising=False)
    names: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for number, recipe in enumerate(recipes()):
        *lines, last = recipe.rstrip().split("\n")
        exec("\n".join(lines), names)
        if "=" in last.split("(")[0]:
            exec(last, names)
        else:
            given[number] = eval(last, names)
    assert len(names["wide"]) == 3 * 5
    means, gaps, outstanding, along = given.values()
    assert means.shape == (5, 6)  # mean and deviation of three metrics
    assert gaps.loc["retrain", "mean"] == 0
    assert set(gaps["count"]) == {3}
    assert (outstanding.shape, outstanding["finetune"].is_monotonic_increasing) == ((5, 5), True)
    assert along.empty  # nothing was traced
