"""Measured tables that ship: they follow from the rows beside them, which can be made again."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import unlearnbench
from unlearnbench import results
from unlearnbench.report import leaderboard

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
MANIFEST = OmegaConf.load(REFERENCE / "manifest.yaml")
TABLES = {"methods_digits": "deep_unlearn_digits", "tuned_digits": "tuned_digits"}

COSTS = ["rte", "rte_tuned", "peak_bytes"]
"""What differs from one time to the next."""


@pytest.mark.parametrize("sweep", TABLES)
def test_a_table_is_that_of_its_rows_to_the_byte(sweep: str) -> None:
    wide = results.load_results(REFERENCE, sweep=sweep, wide=True)
    assert (REFERENCE / f"{TABLES[sweep]}.md").read_text().endswith(leaderboard.markdown(wide))


def test_the_manifest_says_of_all_rows_what_made_them() -> None:
    assert set(MANIFEST) == {path.stem for path in (REFERENCE / "rows").glob("*.parquet")}
    for sweep, told in MANIFEST.items():
        rows = unlearnbench.load_results(REFERENCE, sweep=sweep)
        assert (len(rows), set(rows["commit"])) == (told.rows, set(told.commits))
        assert len(results.load_sweep(REFERENCE, sweep)) == told.cells
        page = (REFERENCE / f"{TABLES[sweep]}.md").read_text()
        assert told.command in page


@pytest.mark.parametrize("folder", ["digits_cnn", "digits_cnn_paper", "mnist_10k_cnn"])
def test_settings_that_ship_are_those_of_a_trial_that_ships(folder: str) -> None:
    trials = unlearnbench.load_trials(REFERENCE)
    files = sorted((REFERENCE.parents[1] / "conf" / "tuned" / folder).glob("*.yaml"))
    assert len(files) == 18
    for path in files:
        told = OmegaConf.load(path).provenance
        mine = trials[(trials["dataset"] == told.dataset) & (trials["method"] == told.method)]
        mine = mine[mine["trial"] == told.trial]
        scores = mine.groupby("phase")["score"].mean()
        assert scores["search"] == pytest.approx(told.score_in_search, rel=1e-12)
        assert scores["fresh"] == pytest.approx(told.score_on_fresh_seeds, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("words", [{}, {"tuned": "digits_cnn"}])
def test_a_cell_comes_to_its_stored_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, str]
) -> None:
    told = MANIFEST["tuned_digits"]
    if told.torch != torch.__version__:
        pytest.skip(f"the rows are of torch {told.torch}, which rounds in its own way")
    if told.processor not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"the rows are of a {told.processor}")
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path))
    made = unlearnbench.run(method="ct", seed=3, **words)
    made = made[(made["method"] == "ct") & ~made["metric"].isin(COSTS)].set_index("metric")["value"]
    kept = unlearnbench.load_results(REFERENCE, sweep="tuned_digits")
    mine = kept["overrides"] == " ".join(f"{name}={value}" for name, value in words.items())
    kept = kept[(kept["method"] == "ct") & (kept["seed"] == 3) & mine]
    kept = kept[~kept["metric"].isin(COSTS)].set_index("metric")["value"]
    assert len(kept) > 10
    assert made.to_dict() == kept.to_dict()
