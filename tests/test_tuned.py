"""``tuned=``: settings that a search found are the method's defaults, and rows say so."""

import contextlib
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from cells import composed
from omegaconf import OmegaConf

from unlearnbench.cli import commands, main
from unlearnbench.config import compose, validate
from unlearnbench.config.overrides import leaves
from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import ConfigError
from unlearnbench.core.resources import options_folder
from unlearnbench.pipeline.rows import rows_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.report.tables import leaderboard
from unlearnbench.results import schema
from unlearnbench.results.frame import widen

FOUND = {
    "call": {"sgd": {"lr": 1e-05, "weight_decay": 0.0}, "epochs": 1},
    "provenance": {
        "method_version": 1,
        "seconds": 60.5,
        "measured_on": "cpu",
        "seeds": [100],
        "fresh_seeds": [103],
    },
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
    (found,) = compose.cells([["train.call.epochs=2", "attack=none", *words]])
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
    cells = compose.cells(grid, ["retrain"])
    assert [c.names["method"] for c in cells] == ["retrain", "finetune", "finetune", "ct"]
    assert cells[0].tuned is None


def test_a_sweep_over_seeds_has_one_option(mine: Path) -> None:
    cells = compose.cells([["method=finetune", "tuned=mine", f"seed={n}"] for n in range(3)])
    assert len({id(one.method) for one in cells}) == 1
    assert all(one.overrides == "tuned=mine" for one in cells)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"provenance": {**FOUND["provenance"], "method_version": 7}}, "version 7 of method=fine"),
        ({"provenance": {}}, "is not as unlearnbench tune writes it"),
        *(
            ({"provenance": {**FOUND["provenance"], key: value}}, "is not as unlearnbench tune wri")
            for key, value in (("seconds", -5), ("seconds", float("nan")), ("measured_on", [1]))
        ),
        ({"provenance": {**FOUND["provenance"], "seeds": [[1]]}}, "is not as unlearnbench tune wr"),
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
    assert compose.notes(words) == [
        "tuned=mine has no settings for ct: using their defaults",
        "tuned=mine: found on seed 103 among others, where it looks better than it is",
    ]
    assert compose.notes([["method=finetune", "tuned=mine", "seed=0"], ["method=ct"]]) == []


SHIPPED = sorted((options_folder() / "tuned").glob("*/*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_setting_that_ships_fits_its_method(path: Path) -> None:
    found = composed(f"method={path.stem}", f"tuned={path.parent.name}")
    assert found.tuned is not None
    about = OmegaConf.load(path).provenance
    assert about.method == path.stem
    if "source" in about:
        return
    assert about.command.startswith("unlearnbench tune ")
    # Tables are made with seeds 0 to 9.
    assert not {*about.seeds, *about.fresh_seeds} & {*range(10)}


def sgd(lr: float, momentum: float = 0.9, weight_decay: float = 5e-4) -> dict[str, float]:
    return {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}


PUBLISHED: dict[str, dict[str, Any]] = {
    # § 2.2 FT … § 2.19 RNI of the specification of Deep Unlearn: constants of the authors' code.
    "finetune": {"sgd": sgd(0.1), "epochs": 5, "batch_size": 256},
    "gradient_ascent": {"sgd": sgd(0.01), "epochs": 10, "batch_size": 256},  # § 2.3
    "random_labels": {"sgd": sgd(0.1), "epochs": 5, "batch_size": 256},  # § 2.4
    "neggrad_plus": {  # § 2.5
        "sgd": sgd(0.01, weight_decay=0.0),
        "epochs": 10,
        "batch_size": 256,
        "alpha": 0.95,
    },
    "cf_k": {  # § 2.6
        "lr": 0.01,
        "decay": 0.1,
        "proximity": 0.1,
        "epochs": 10,
        "batch_size": 256,
        "k": 1,
    },
    "eu_k": {  # § 2.7; its L2 to the start is in eu_k_as_run alone
        "sgd": sgd(0.01, momentum=0.0, weight_decay=0.0),
        "epochs": 10,
        "batch_size": 256,
        "k": 1,
    },
    "scrub": {  # § 2.8
        "sgd": sgd(5e-4),
        "decay": 0.1,
        "epochs": 5,
        "msteps": 3,
        "alpha": 0.5,
        "gamma": 1.0,
        "temperature": 2.0,
        "batch_size": {"retain": 32, "forget": 64},
    },
    "bad_teacher": {  # § 2.9
        "adam": {"lr": 0.01, "weight_decay": 0.0},
        "epochs": 10,
        "batch_size": 256,
        "temperature": 1.0,
    },
    "fisher": {"alpha": 0.2, "batch_size": 64},  # § 2.10
    "influence": {"alpha": 0.2},  # § 2.11
    "salun": {  # § 2.12
        "sgd": sgd(0.01, momentum=0.0, weight_decay=0.0),
        "epochs": 10,
        "batch_size": 256,
        "threshold": 0.5,
    },
    "fcs": {  # § 2.13; .001 · B / 64 on retain rows
        "sgd": sgd(0.005, weight_decay=0.0),
        "retain_sgd": sgd(0.001 * 256 / 64, weight_decay=0.01),
        "forget_sgd": sgd(3e-4, weight_decay=0.0),
        "eta_min": 1e-6,
        "epochs": 8,
        "batch_size": 256,
        "temperature": 1.15,
    },
    "msg": {"sgd": sgd(0.001), "epochs": 5, "batch_size": 64, "init_rate": 0.3},  # § 2.14
    "cfw": {  # § 2.15
        "sgd": sgd(7e-4),
        "epochs": 4,
        "batch_size": 64,
        "start_confuser_std": 0.6,
        "final_confuser_std": 0.005,
    },
    "prmq": {"sgd": sgd(5e-4), "epochs": 3.2, "batch_size": 64, "prune_amount": 0.99},  # § 2.16
    "ct": {"sgd": sgd(0.001), "epochs": 3, "batch_size": 64},  # § 2.17
    "kde": {  # § 2.18
        "sgd": sgd(9e-4),
        "retain_sgd": sgd(1e-3),
        "epochs": 3,
        "retain_epochs": 3,
        "batch_size": 64,
        "temperature": 5.0,
    },
    "rni": {  # § 2.19; E 9, of which 4 fine and 1 without noise; fine rates 2e-4 three times, 1e-3
        "sgd": sgd(2e-4),
        "fine_sgd": sgd(2e-4),
        "epochs": 9,
        "quiet": 0.11,
        "fine": 0.44,
        "batch_size": 64,
        "noise_ratio": 0.7,
        "origin_noise": 0.04,
    },
}
DEEP_UNLEARN = tuple(PUBLISHED)
PUBLISHED |= {
    f"{name}_as_run": PUBLISHED[name]
    for name in ("neggrad_plus", "scrub", "bad_teacher", "influence", "salun", "msg", "cfw", "kde")
}
PUBLISHED["eu_k_as_run"] = PUBLISHED["cf_k"]  # § 2.7: "as CF-k"
PUBLISHED["rni_as_run"] = {
    **{key: value for key, value in PUBLISHED["rni"].items() if key not in ("quiet", "fine")},
    "quiet_epochs": 1,
    "fine_epochs": 4,
}


@pytest.mark.tried(
    "defaults called published that are not: FT .01 for .1, GA 1e-3 for 1e-2, and others",
    "tuned=published has the constants of the authors' code, held to a table of them",
)
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_settings_are_the_constants_of_the_authors_code(name: str) -> None:
    call = dict(composed(f"method={name}", "tuned=published").method["call"])
    asked = dict(leaves(PUBLISHED[name]))
    composed_call = dict(leaves(call))
    assert {key: composed_call.get(key) for key in asked} == pytest.approx(asked)
    path = options_folder() / "tuned" / "published" / f"{name}.yaml"
    assert set(dict(leaves(OmegaConf.to_container(OmegaConf.load(path).call)))) == set(asked)


def test_published_settings_are_of_all_methods_of_deep_unlearn_and_no_other() -> None:
    files = {path.stem for path in (options_folder() / "tuned" / "published").glob("*.yaml")}
    assert files == set(PUBLISHED)
    study = compose.study(["sweep=methods"])
    (methods,) = [text.partition("=")[2] for text in study if text.startswith("method=")]
    assert {name.strip() for name in methods.split(",")} == set(DEEP_UNLEARN)
    assert len(DEEP_UNLEARN) == 18
    as_run = {f"{name}_as_run" for name in DEEP_UNLEARN} & set(validate.options("method"))
    assert as_run == set(PUBLISHED) - set(DEEP_UNLEARN)


@pytest.mark.tried(
    "a page that calls the defaults published settings",
    "docs/methods.md has both, and every value in which they differ",
)
@pytest.mark.parametrize("name", DEEP_UNLEARN)
def test_the_page_of_methods_says_where_defaults_are_not_as_published(name: str) -> None:
    page = (options_folder().parent / "docs" / "methods.md").read_text()
    section = page.partition("## Defaults, and what was published")[2].partition("\n## ")[0]
    (row,) = [line.split("|") for line in section.splitlines() if f"`{name}`" in line[:60]]
    default, published = (
        {float(number) for number in re.findall(r"(?<![\w.])\d*\.?\d+(?:e-\d+)?", cell)}
        for cell in row[2:4]
    )
    of_default = dict(leaves(composed(f"method={name}").method["call"]))
    epochs_alike = {"quiet", "fine"}  # shares that round to the same numbers of epochs
    for key, value in leaves(PUBLISHED[name]):
        if value != of_default[key] and key not in epochs_alike:
            assert value in published, key
            if not key.endswith(("momentum", "weight_decay")):  # those are named above the table
                assert of_default[key] in default, key


def test_rni_has_the_published_numbers_of_epochs() -> None:
    call = PUBLISHED["rni"]
    assert (round(call["quiet"] * 9), round(call["fine"] * 9)) == (1, 4)


def test_settings_that_no_search_found_cost_no_search(workspace: Workspace, mine: Path) -> None:
    """They have a source, hold for any version of the method, and no RTE with tuning."""
    write(mine, provenance={"source": "a paper", "method": "finetune"})
    published = cell("method=finetune", "tuned=mine")
    assert published.tuned == {"name": "mine", "seconds": None, "measured_on": None}
    metrics = {row["metric"] for row in rows_of(workspace, published).rows}
    assert "rte" in metrics
    assert "rte_tuned" not in metrics
    assert compose.notes([["method=finetune", "tuned=mine", "seed=103"]]) == []


def test_the_search_is_in_the_run_time_efficiency(workspace: Workspace, mine: Path) -> None:
    tuned, plain = (cell("method=finetune", f"tuned={name}") for name in ("mine", "null"))
    told = {row["metric"]: row["value"] for row in rows_of(workspace, tuned).rows}
    retrain = workspace.store.load(tuned.reference_key).manifest["model"]
    seconds = workspace.store.load(retrain).manifest["seconds"]
    own = workspace.store.load(tuned.model_key).manifest["seconds"]
    assert told["rte"] == pytest.approx(seconds / own)
    assert told["rte_tuned"] == pytest.approx(seconds / (own + 60.5))
    assert "rte_tuned" not in {row["metric"] for row in rows_of(workspace, plain).rows}


def test_tuned_and_default_are_two_lines_of_one_table(workspace: Workspace, mine: Path) -> None:
    cells = [cell(f"method={m}", f"tuned={t}") for m in ("finetune",) for t in ("mine", "null")]
    rows = [row for one in cells for row in rows_of(workspace, one).rows]
    frame = pd.DataFrame(pa.Table.from_pylist(rows, schema.ROWS).to_pandas())
    ((title, drawn),) = leaderboard.tables(widen(frame))
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

        monkeypatch.setattr(commands, "execute", execute)
        monkeypatch.setattr(main, "execute", execute)
        monkeypatch.setattr("sys.argv", ["unlearnbench", *words, search])
        with contextlib.suppress(SystemExit):
            main.main()
        capsys.readouterr()
        ((*_, last),) = asked
        assert compose.cells([last])[0].overrides == "tuned=mine"
