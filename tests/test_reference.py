"""Measured tables that ship: they follow from the rows beside them, which can be made again."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import unlearnbench
from unlearnbench.report.tables import leaderboard
from unlearnbench.results import load

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
MANIFEST = OmegaConf.load(REFERENCE / "manifest.yaml")
TABLES = {
    "methods_digits": "deep_unlearn_digits",
    "methods_mnist": "deep_unlearn_mnist",
    "tuned_digits": "tuned_digits",
    "audit_digits": "audit_digits",
}

COSTS = ["rte", "rte_tuned", "peak_bytes"]
"""What differs from one time to the next."""


@pytest.mark.parametrize("sweep", TABLES)
def test_a_table_is_that_of_its_rows_to_the_byte(sweep: str) -> None:
    wide = load.load_results(REFERENCE, sweep=sweep, wide=True)
    assert (REFERENCE / f"{TABLES[sweep]}.md").read_text().endswith(leaderboard.markdown(wide))


def test_the_manifest_says_of_all_rows_what_made_them() -> None:
    assert set(MANIFEST) == {path.stem for path in (REFERENCE / "rows").glob("*.parquet")}
    for sweep, told in MANIFEST.items():
        # Of this file: cells of two sweeps stand in both, and are loaded once.
        rows = pd.read_parquet(REFERENCE / "rows" / f"{sweep}.parquet")
        assert (len(rows), set(rows["commit"])) == (told.rows, set(told.commits))
        assert len(load.load_sweep(REFERENCE, sweep)) == told.cells
        page = (REFERENCE / f"{TABLES[sweep]}.md").read_text()
        assert told.command in page


@pytest.mark.parametrize(
    ("folder", "methods"),
    [("digits_cnn", 18), ("digits_cnn_paper", 18), ("mnist_10k_cnn", 16)],  # without CFW and RNI
)
def test_settings_that_ship_are_those_of_a_trial_that_ships(folder: str, methods: int) -> None:
    trials = unlearnbench.load_trials(REFERENCE)
    files = sorted((REFERENCE.parents[1] / "conf" / "tuned" / folder).glob("*.yaml"))
    assert len(files) == methods
    for path in files:
        told = OmegaConf.load(path).provenance
        mine = trials[(trials["dataset"] == told.dataset) & (trials["method"] == told.method)]
        mine = mine[mine["trial"] == told.trial]
        scores = mine.groupby("phase")["score"].mean()
        assert scores["search"] == pytest.approx(told.score_in_search, rel=1e-12)
        assert scores["fresh"] == pytest.approx(told.score_on_fresh_seeds, rel=1e-12)


MNIST = {"dataset": "mnist", "train.call.epochs": 5}
POPULATION = {"attack": "ulira", "attack.shadow_models.models": 32}
CELLS = [
    ("methods_digits", {"method": "ct", "seed": 3}),
    ("methods_mnist", {"method": "eu_k", "seed": 0, **MNIST}),
    ("tuned_digits", {"method": "ct", "seed": 3, "tuned": "digits_cnn"}),
    ("audit_digits", {"method": "ct", "seed": 0, **POPULATION}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sweep", "words"), CELLS)
def test_a_cell_comes_to_its_stored_values(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    sweep: str,
    words: dict[str, Any],
) -> None:
    told = MANIFEST[sweep]
    if told.torch != torch.__version__:
        pytest.skip(f"the rows are of torch {told.torch}, which rounds in its own way")
    if told.processor not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"the rows are of a {told.processor}")
    if "dataset" in words:
        monkeypatch.setenv("UNLEARNBENCH_DATA", str(request.getfixturevalue("real_data")))
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path))
    made = unlearnbench.run(**words)
    made = made[(made["method"] == words["method"]) & ~made["metric"].isin(COSTS)]
    kept = unlearnbench.load_results(REFERENCE, sweep=sweep)
    kept = kept[kept["key"].isin(made["key"]) & ~kept["metric"].isin(COSTS)]
    of = ["key", "metric"]
    assert len(kept) > 10
    assert made.set_index(of)["value"].to_dict() == kept.set_index(of)["value"].to_dict()
