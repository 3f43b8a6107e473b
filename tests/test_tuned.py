"""``tuned=``: settings that a search found are the method's defaults, and rows say so."""

import contextlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cells import composed
from omegaconf import OmegaConf

from unlearnbench import cli, config, pipeline, results, table
from unlearnbench.cell import Cell
from unlearnbench.report import leaderboard
from unlearnbench.words import ConfigError, options_folder

FOUND = {
    "call": {"sgd": {"lr": 1e-05, "weight_decay": 0.0}, "epochs": 1},
    "provenance": {"method_version": 1, "seconds": 60.5, "seeds": [100], "fresh_seeds": [103]},
}


def write(folder: Path, method: str = "finetune", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create({**FOUND, **changes}), folder / f"{method}.yaml")
    return folder


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path))
    return write(tmp_path / "tuned" / "mine")


def cell(*words: str) -> Cell:
    (found,) = config.cells([["train.call.epochs=2", "attack=none", *words]])
    return found


def test_found_settings_are_the_defaults_that_others_override(mine: Path) -> None:
    tuned = cell("method=finetune", "tuned=mine")
    plain = cell("method=finetune")
    assert tuned.method["call"]["sgd"] == {"lr": 1e-05, "momentum": 0.9, "weight_decay": 0.0}
    assert tuned.method["call"]["epochs"] == 1
    assert {**tuned.method, "call": None} == {**plain.method, "call": None}
    assert tuned.overrides == "tuned=mine train.call.epochs=2"
    for words in (["tuned=mine", "method.call.epochs=3"], ["method.call.epochs=3", "tuned=mine"]):
        both = cell("method=finetune", *words)
        assert (both.method["call"]["epochs"], both.method["call"]["sgd"]["lr"]) == (3, 1e-05)
        assert both.overrides == "tuned=mine train.call.epochs=2 method.call.epochs=3"


def test_the_model_is_that_of_the_same_settings_typed(mine: Path) -> None:
    typed = ["method.call.sgd.lr=1e-5", "method.call.sgd.weight_decay=0.0", "method.call.epochs=1"]
    tuned, same = cell("method=finetune", "tuned=mine"), cell("method=finetune", *typed)
    assert tuned.model_key == same.model_key
    assert tuned.predictions_key == same.predictions_key
    assert tuned.utility_key != same.utility_key  # whose rows do not tell what the search cost
    assert tuned.key != same.key


def test_a_folder_is_named_or_shown(mine: Path, tmp_path: Path) -> None:
    by_path = cell("method=finetune", f"tuned={mine}")
    assert by_path.model_key == cell("method=finetune", "tuned=mine").model_key
    assert f"tuned={mine}" in by_path.overrides


def test_a_method_that_was_not_tuned_and_the_controls_are_as_ever(mine: Path) -> None:
    assert cell("method=ct", "tuned=mine").key == cell("method=ct").key
    assert cell("method=ct", "tuned=mine").overrides == "train.call.epochs=2"
    grid = [[f"method={m}", f"tuned={t}"] for m in ("finetune", "ct") for t in ("null", "mine")]
    cells = config.cells(grid, ["retrain"])
    assert [c.names["method"] for c in cells] == ["retrain", "finetune", "finetune", "ct"]
    assert cells[0].tuned is None


def test_a_sweep_over_seeds_has_one_option(mine: Path) -> None:
    cells = config.cells([["method=finetune", "tuned=mine", f"seed={n}"] for n in range(3)])
    assert len({id(one.method) for one in cells}) == 1
    assert all(one.overrides == "tuned=mine" for one in cells)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"provenance": {**FOUND["provenance"], "method_version": 7}}, "version 7 of method=fine"),
        ({"provenance": {}}, "is not as unlearnbench tune writes it"),
        ({"call": {"epohcs": 3}}, "epohcs"),
        ({"call": {"_target_": "os.system"}}, "_target_ is no setting of method=finetune"),
        ({"call": {"epochs": 2.5}}, "must be int"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    mine: Path, changes: dict[str, Any], told: str
) -> None:
    write(mine, **changes)
    with pytest.raises(ConfigError, match=told):
        cell("method=finetune", "tuned=mine")


def test_a_name_that_is_none_is_told_the_nearest(mine: Path) -> None:
    with pytest.raises(ConfigError, match=r"tuned=mien: no such settings; did you mean mine\?"):
        cell("method=finetune", "tuned=mien")


def test_what_it_leaves_alone_and_seeds_that_were_tuned_on_are_told(mine: Path) -> None:
    words = [["method=finetune", "tuned=mine", "seed=103"], ["method=ct", "tuned=mine"]]
    assert config.notes(words) == [
        "tuned=mine: holds nothing for ct; defaults are kept",
        "tuned=mine: found on seed 103 among others, where it looks better than it is",
    ]
    assert config.notes([["method=finetune", "tuned=mine", "seed=0"], ["method=ct"]]) == []


def test_every_setting_that_ships_fits_its_method() -> None:
    for path in sorted((options_folder() / "tuned").glob("*/*.yaml")):
        found = composed(f"method={path.stem}", f"tuned={path.parent.name}")
        assert found.tuned is not None
        about = OmegaConf.load(path).provenance
        assert about.command.startswith("unlearnbench tune ")
        assert about.method == path.stem
        # Tables are made with seeds 0 to 9.
        assert not {*about.seeds, *about.fresh_seeds} & {*range(10)}


def test_the_search_is_in_the_run_time_efficiency(lab: pipeline.Lab, mine: Path) -> None:
    tuned, plain = (cell("method=finetune", f"tuned={name}") for name in ("mine", "null"))
    told = {row["metric"]: row["value"] for row in table.rows(lab, tuned).rows}
    retrain = lab.store.load(tuned.reference_key).manifest["model"]
    seconds = lab.store.load(retrain).manifest["seconds"]
    own = lab.store.load(tuned.model_key).manifest["seconds"]
    assert told["rte"] == pytest.approx(seconds / own)
    assert told["rte_tuned"] == pytest.approx(seconds / (own + 60.5))
    assert "rte_tuned" not in {row["metric"] for row in table.rows(lab, plain).rows}


def test_tuned_and_default_are_two_lines_of_one_table(lab: pipeline.Lab, mine: Path) -> None:
    cells = [cell(f"method={m}", f"tuned={t}") for m in ("finetune",) for t in ("mine", "null")]
    rows = [row for one in cells for row in table.rows(lab, one).rows]
    frame = pd.DataFrame(results.pa.Table.from_pylist(rows, results.ROWS).to_pandas())
    ((title, drawn),) = leaderboard.tables(results.widen(frame))
    assert "tuned" not in title
    assert sorted(drawn["method"]) == ["finetune", "finetune tuned=mine"]
    assert drawn.set_index("method").loc["finetune tuned=mine", "RTE with tuning"] is not None


def test_the_command_takes_it_where_hydra_sees_a_choice(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder ``tuned`` among Hydra's options makes ``tuned=`` a choice of one of its files."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    for words in (["method=finetune", "tuned=mine"], ["-m", "method=finetune", "tuned=null,mine"]):
        asked: list[list[list[str]]] = []

        def execute(overrides: Any, *_: object, asked: Any = asked, **__: object) -> bool:
            asked.append([list(one) for one in overrides])
            return True

        monkeypatch.setattr(cli, "execute", execute)
        monkeypatch.setattr("sys.argv", ["unlearnbench", *words, search])
        with contextlib.suppress(SystemExit):
            cli.main()
        capsys.readouterr()
        ((*_, last),) = asked
        assert config.cells([last])[0].overrides == "tuned=mine"
