"""Rows of attacks: where a method stands between two controls, and how sure that is."""

import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cells import Cells

from unlearnbench.config import compose, validate
from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import Skip
from unlearnbench.core.outputs import FORGET, RETAIN, TEST, Predictions, Scores
from unlearnbench.metric import distance, membership
from unlearnbench.pipeline import inputs, scoring
from unlearnbench.pipeline import models as models_module
from unlearnbench.pipeline import rows as rows_module
from unlearnbench.pipeline.outputs import predictions
from unlearnbench.pipeline.rows import Found, reason, rows_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.report.tables import leaderboard
from unlearnbench.results import parts, schema
from unlearnbench.results.frame import widen
from unlearnbench.results.load import load_scores
from unlearnbench.train.dp_sgd import epsilon

METHODS = ("original", "retrain", "finetune")
ENDS = {"lira": ("floor", "ceiling"), "double_output": ("null", "reference")}
AT = {"lira": ("retrain", "original"), "double_output": ("original", "retrain")}
"""The controls that stand at an attack's two ends."""


@cache
def composed() -> dict[tuple[str, str], Cell]:
    words = ["model=logreg", "train.call.epochs=2"]
    small = [
        "shadow_models.models=8",
        "shadow_models.pool=0.1",
        "request_pairs.originals=4",
        "request_pairs.requests=5",
        "request_pairs.size=40",
    ]
    names = [(attack, method) for attack in ENDS for method in METHODS]
    every = compose.cells(
        [[*words, *small, f"attack={attack}", f"method={method}"] for attack, method in names]
    )
    return dict(zip(names, every, strict=True))


@pytest.fixture(scope="module")
def found(workspace: Workspace) -> dict[tuple[str, str], Found]:
    every = {name: rows_of(workspace, one) for name, one in composed().items()}
    assert all(one.error is None for one in every.values())
    return every


Tables = dict[tuple[str, str], Found]


def told(one: Found) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in one.rows}


def per_model(one: Found) -> dict[str, float]:
    """AUC of each target model, from the scores that are written."""
    frame = one.scores.to_pandas()
    return {
        pool: membership.auc(
            *(group.score[group.member == side].to_numpy() for side in (True, False))
        )
        for pool, group in frame.groupby("pool")
    }


@pytest.mark.parametrize("attack", ENDS)
def test_ends_are_the_figures_of_the_controls_by_the_names_of_the_option(
    found: Tables, attack: str
) -> None:
    at = [told(found[attack, control])[f"{attack}_auc"] for control in AT[attack]]
    assert at[0] != at[1]
    for method in METHODS:
        row = told(found[attack, method])
        assert [row[f"{attack}_auc_{end}"] for end in ENDS[attack]] == at
        others = ENDS["double_output" if attack == "lira" else "lira"]
        assert not [name for name in row if name.endswith(others)]
        share = (row[f"{attack}_auc"] - at[0]) / (at[1] - at[0])
        assert row[f"{attack}_auc_normalised"] == pytest.approx(share)
    for place, control in enumerate(AT[attack]):
        assert told(found[attack, control])[f"{attack}_auc_normalised"] == place


TABULAR = ["dataset=breast_cancer", "model=logreg", "train.call.epochs=3", "method.call.epochs=2"]
BY_CLASS = ["forget=by_class", "attack.shadow_models.models=4", "attack.shadow_models.targets=2"]
BOTH = {"floor": "retrain", "ceiling": "original"}
INPUTS: dict[str, tuple[list[str], list[str], dict[str, str]]] = {
    # Words, headline figures, and ends.
    "umia": ([], ["mia_test_auc", "mia_test"], BOTH),
    "umia, a share": ([], ["mia_val", "mia_test_tpr_at_1pct"], BOTH),
    "lira": (["shadow_models.models=8"], ["lira_auc"], BOTH),
    "rmia": (["shadow_models.models=8"], ["rmia_auc"], BOTH),
    "ulira": (["shadow_models.models=12"], ["ulira_auc", "ulira_acc"], BOTH),
    "class_shadow": (
        [*BY_CLASS, "attack.call.epochs=1"],
        ["class_shadow_auc", "class_shadow_recall_correct"],
        BOTH,
    ),
    "double_output": (
        ["request_pairs.originals=3", "request_pairs.requests=3", "request_pairs.size=100"],
        ["double_output_auc", "deg_count", "deg_rate"],
        {"null": "original", "reference": "retrain"},
    ),
    "hrec": (
        ["single_deletions.count=10", "attack.call.steps=5"],
        ["hrec_cos"],
        {"null": "hrec_null_cos", "reference": "retrain"},
    ),
    "relearn": (["attack.call.steps=20"], ["relearn_loss_start"], BOTH),
    "weights": ([], ["weight_distance"], BOTH),
    "zrf": ([], ["zrf"], BOTH),
    "model_inversion": (
        [
            *["attack.call.process=none", "attack.call.starts=2"],
            "attack.call.iterations=5",
        ],
        ["inversion_centred_cosine"],
        BOTH,
    ),
}


@pytest.mark.tried(
    "traits.ends on attacks of each input: outputs, shadow models, request pairs, parameters",
    "each end is the figure in the rows of the control itself",
)
@pytest.mark.parametrize("name", INPUTS)
def test_ends_of_an_attack_on_any_input_are_the_figures_of_the_controls(
    workspace: Workspace, name: str
) -> None:
    words, headline, ends = INPUTS[name]
    attack = name.split(",")[0]
    rows = {}
    for method in ("finetune", *{"retrain", "original"} & {*ends.values()}):
        tabular = TABULAR if method == "finetune" else TABULAR[:-1]
        (plain,) = compose.cells([[*tabular, f"attack={attack}", f"method={method}", *words]])
        traits = {**(plain.attack.get("traits") or {}), "headline": headline, "ends": ends}
        cell = replace(plain, attack={**plain.attack, "traits": traits})
        one = rows_of(workspace, cell)
        assert one.error is None, one.error
        rows[method] = {row["metric"]: row["value"] for row in one.rows}
    for figure in headline:
        own = rows["finetune"]
        for end, where in ends.items():
            assert (
                own[f"{figure}_{end}"] == rows.get(where, own)[figure if where in rows else where]
            )
    assert own[f"{headline[0]}_gap"] == pytest.approx(
        own[headline[0]] - rows["retrain"][headline[0]], abs=0.2
    )
    if attack in ("umia", "relearn", "weights", "zrf", "model_inversion"):  # of one model
        gap = own[headline[0]] - rows["retrain"][headline[0]]
        assert own[f"{headline[0]}_gap"] == pytest.approx(gap, abs=1e-12)


def test_ends_are_kept_apart_by_the_figure_whose_gap_is_told(workspace: Workspace) -> None:
    """In one process: the same attack, once of its first figure and once of its second."""
    (plain,) = compose.cells([[*TABULAR, "attack=umia", "method=finetune"]])
    gaps = []
    for figure in ("mia_test_auc", "mia_val_auc"):
        traits = {"headline": [figure], "ends": BOTH}
        cell = replace(plain, attack={**plain.attack, "traits": traits})
        told = scoring.attacked(workspace, cell).metrics
        gaps.append(told[f"{figure}_gap"][0])
        assert gaps[-1] == pytest.approx(told[figure][0] - told[f"{figure}_floor"][0])
    assert gaps[0] != gaps[1]


SCORED = {
    "umia": ([], {"mia_test_auc": "test", "mia_val_auc": "val"}),
    "lira": (["shadow_models.models=12"], {"lira_auc": None}),
    "rmia": (["shadow_models.models=12"], {"rmia_auc": None}),
    "ulira": (["shadow_models.models=12"], {"ulira_auc": None}),
    "ulira_deep_unlearn": (
        ["attack.shadow_models.splits=8", "attack.shadow_models.forgets=4"],
        {"ulira_auc": None},
    ),
    "class_shadow": ([*BY_CLASS, "attack.call.epochs=1"], {"class_shadow_auc": None}),
    "double_output": (
        ["request_pairs.originals=4", "request_pairs.requests=30", "request_pairs.size=100"],
        {"double_output_auc": None},
    ),
    "hrec": (["single_deletions.count=10", "attack.call.steps=5"], {}),
}
UNSCORED = {"none", "model_inversion", "relearn", "weights", "zrf", "klom"}
"""Attacks that give no record a score."""


def test_every_attack_is_held_to_its_scores_or_has_none() -> None:
    assert {*SCORED} | UNSCORED == {*validate.options("attack")}


@pytest.mark.tried(
    "AUC from the stored scores of every attack, models up to a hundred times as sure",
    "it is the reported one (records that several requests name were read back once)",
)
@pytest.mark.parametrize("sure", [1, 100])
@pytest.mark.parametrize("name", SCORED)
def test_scores_that_are_stored_give_the_figures_that_are_reported(
    workspace: Workspace, name: str, sure: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to Parquet and read again, by both of those who compute a cell at the same time."""
    words, aucs = SCORED[name]
    (cell,) = compose.cells([[*TABULAR, f"attack={name}", "method=finetune", *words]])

    def louder(found: Any) -> Any:
        if isinstance(found, tuple):
            return [louder(one) for one in found[0]], found[1]
        if not isinstance(found, Predictions):
            return found  # changes of parameters
        return replace(found, logits_MQNC=found.logits_MQNC * np.float32(sure))

    plain = scoring.gathered
    monkeypatch.setattr(scoring, "gathered", lambda *of: louder(plain(*of)))
    one = rows_of(Workspace(workspace.store, workspace.device), cell)
    assert one.error is None, one.error
    for part in "ab":
        parts.write(tmp_path / "scores", part, one.scores, schema.SCORES)
    frame, figures = load_scores(tmp_path), told(one)
    assert len(frame) == len(one.scores)
    for figure, pool in aucs.items():
        mine = frame if pool is None else frame[frame.pool == pool]
        sides = (mine.score[mine.member == side].to_numpy() for side in (True, False))
        assert membership.auc(*sides) == pytest.approx(figures[figure], abs=1e-12)
    if name == "hrec":
        assert frame.score[frame.pool == "hrec"].mean() == pytest.approx(figures["hrec_cos"])
    if name.startswith("ulira"):
        sides = (frame.score[frame.member == side].to_numpy() for side in (True, False))
        half = membership.balanced_accuracy(*sides, 0.0)
        assert half == pytest.approx(figures["ulira_bal_acc_half"])


@pytest.mark.tried(
    "DegCount of a model compared with itself, documented as 0",
    "the classical attack's share of errors, about ½; the row has it as deg_count_null",
)
def test_an_original_compared_with_itself_gives_nothing_away(found: Tables) -> None:
    """No output differs, so every score is the same."""
    row = told(found["double_output", "original"])
    assert row["double_output_auc"] == row["double_output_auc_null"] == 0.5
    assert [row["double_output_auc_low"], row["double_output_auc_high"]] == [0.5, 0.5]
    for method in METHODS:
        other = told(found["double_output", method])
        assert other["deg_count_null"] == row["deg_count"]
        assert other["deg_rate_null"] == row["deg_rate"]


@pytest.mark.parametrize("attack", ENDS)
def test_gap_is_to_retraining(found: Tables, attack: str) -> None:
    its = per_model(found[attack, "retrain"])
    for method in METHODS:
        row, mine = told(found[attack, method]), per_model(found[attack, method])
        name = f"{attack}_auc"
        assert mine.keys() == its.keys()
        gaps = np.array([mine[model] - its[model] for model in mine])
        middle = (row[f"{name}_gap_low"] + row[f"{name}_gap_high"]) / 2
        assert [middle, row[f"{name}_gap"]] == pytest.approx([gaps.mean()] * 2)
        assert row[f"{name}_gap_low"] <= gaps.mean() <= row[f"{name}_gap_high"]
        width = (row[f"{name}_gap_high"] - row[f"{name}_gap_low"]) / 2
        assert row[f"{name}_detectable"] >= width >= 0
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    same = told(found[attack, "retrain"])
    gap = ("gap", "gap_low", "gap_high", "detectable")
    assert [same[f"{attack}_auc_{what}"] for what in gap] == [0] * 4


def test_scores_name_the_target_model(found: Tables) -> None:
    for (attack, _), one in found.items():
        models = {"lira": 8, "double_output": 4}[attack]
        assert set(one.scores["pool"].to_pylist()) == {f"model {k:02d}" for k in range(models)}


def test_what_the_attacker_holds_stands_with_attacks_alone(found: Tables) -> None:
    for name, one in found.items():
        threats = {row["attack"]: row["threat"] for row in one.rows}
        assert threats == {"none": None, name[0]: composed()[name].attack["threat"]}
        assert threats[name[0]]


@pytest.mark.parametrize("attack", ENDS)
def test_curves(found: Tables, attack: str, tmp_path: Path) -> None:
    one = found[attack, "finetune"]
    path = parts.write(tmp_path / "roc", "p", one.roc, schema.ROC)
    curve: Any = parts.read_table(path.parent, schema.ROC).to_pandas()
    assert curve.key.unique().tolist() == [composed()[attack, "finetune"].key]
    n = int((~one.scores.to_pandas().member).sum())
    assert set(curve.others) == {n}
    assert (np.diff(curve.fpr) > 0).all()
    assert (np.diff(curve.tpr) >= 0).all()
    assert curve.fpr.iloc[0] == pytest.approx(1 / n)
    assert curve.tpr.between(0, 1).all()
    assert (curve.fpr.iloc[-1], curve.tpr.iloc[-1]) == (1, 1)
    frame = one.scores.to_pandas()
    inside, outside = (frame.score[frame.member == side].to_numpy() for side in (True, False))
    for alpha in (0.3, 0.7):
        last = curve[curve.fpr <= alpha].iloc[-1]
        assert last.tpr == membership.tpr_at_fpr(inside, outside, last.fpr)


def test_rows_from_what_is_stored_load_no_weights(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, found: Tables
) -> None:
    """Every attack on outputs runs from the predictions alone."""

    def refuse(*_: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(models_module, "_load_model", refuse)
    monkeypatch.setattr(inputs, "fresh", refuse)
    again = Workspace(workspace.store, workspace.device)
    for name, one in composed().items():
        assert told(rows_of(again, one)) == pytest.approx(told(found[name]), nan_ok=True)


def test_private_training_tells_its_epsilon(workspace: Workspace) -> None:
    words = ["train=dp_sgd", "model=logreg", "train.call.epochs=1", "attack=none"]
    rows = {
        method: told(rows_of(workspace, compose.cells([[*words, f"method={method}"]])[0]))
        for method in ("original", "retrain", "finetune")
    }
    settings = {"epochs": 1, "batch_size": 64, "noise_multiplier": 1.2, "delta": 1e-5}
    for method, n in (("original", 1222), ("retrain", 1099)):
        assert rows[method]["epsilon"] == epsilon(n, **settings)
        assert rows[method]["delta"] == 1e-5
    assert "epsilon" not in rows["finetune"], "its steps see the rows as they are"


def test_divergence_from_retraining_is_that_of_the_outputs(
    workspace: Workspace, found: Tables
) -> None:
    """Of each part's records in the stored outputs; of retraining to itself none."""
    rows = told(found["lira", "finetune"])
    ours, theirs = (
        predictions(workspace, composed()["lira", name]) for name in ("finetune", "retrain")
    )
    js_N = distance.js_divergence(ours.logits_MQNC[0, 0], theirs.logits_MQNC[0, 0])
    for part, code in (("retain", RETAIN), ("forget", FORGET), ("test", TEST)):
        assert rows[f"js_{part}"] == pytest.approx(js_N[ours.split_N == code].mean())
    assert len({rows[f"js_{part}"] for part in ("retain", "forget", "test")}) == 3
    itself = told(found["lira", "retrain"])
    assert [itself[f"js_{part}"] for part in ("retain", "forget", "test")] == pytest.approx([0] * 3)


def test_rows_name_the_outputs_they_are_of(workspace: Workspace, found: Tables) -> None:
    one = composed()["lira", "finetune"]
    assert {row["predictions_key"] for row in found["lira", "finetune"].rows} == {
        one.predictions_key
    }
    assert workspace.store.has(one.predictions_key)


def test_what_is_prepared_counts_against_a_method(workspace: Workspace) -> None:
    """Its seconds are its own, and with those of preparing it is that much slower."""
    words = ["model=mlp", "train.call.epochs=2", "method=amnesiac"]
    (cell,) = compose.cells([words])
    rows = told(rows_of(workspace, cell))
    own = workspace.store.load(cell.model_key).manifest["seconds"]
    prepared = workspace.store.load(cell.prepared_key).manifest["seconds"]
    assert rows["prepared_seconds"] == prepared
    assert rows["rte_prepared"] == pytest.approx(rows["rte"] * own / (own + prepared))


# ---------------------------------------------------------------------------------------------
# What rows say of what they are of.


@pytest.mark.tried(
    "`model_key` of the rows, which held another key than the model's",
    "the store has the model under it; `utility_key` is what a model's rows are joined on",
)
@pytest.mark.parametrize("place", [("lira", "original"), ("lira", "finetune"), ("lira", "retrain")])
def test_rows_name_the_model_in_the_store(
    workspace: Workspace, found: Tables, place: tuple[str, str]
) -> None:
    one = composed()[place]
    rows = found[place].rows
    assert {row["model_key"] for row in rows} == {one.model_key}
    assert workspace.store.load(one.model_key).manifest["kind"] == "model"
    assert {row["utility_key"] for row in rows} == {one.utility_key}
    assert {row["key"] for row in rows} == {one.key, one.utility_key}


def grouped(cell: Cell) -> tuple[str, ...]:
    """The keys that rows are put together by."""
    return cell.setup_key, cell.method_key, cell.defense_key, cell.attack_key


WAYS = [
    ["split.seed=3"],
    ["precision=bf16-mixed"],
    ["dataset=breast_cancer"],
    ["model=mlp"],
    ["model.call.hidden=[8,8]", "model=mlp"],
    ["train.call.epochs=3"],
    ["train=dp_sgd"],
    ["train=dp_sgd", "train.privacy.delta=1e-4"],
    ["forget=by_class"],
    ["forget.call.seed=3"],
    ["method=ct"],
    ["method=second_retrain"],
    ["method.call.epochs=3"],
    ["tuned=digits_cnn"],
    ["defense=rounding"],
    ["defense=rounding", "defense.call.decimals=1"],
    ["attack=lira"],
    ["attack=lira", "attack.shadow_models.models=8"],
    ["attack=ulira"],
]


@pytest.mark.tried(
    "settings of every kind changed one at a time",
    "two cells of one seed are of one line of a table if and only if their rows are the same",
)
def test_lines_are_apart_where_cells_are() -> None:
    words = ["method=finetune", "attack=umia"]
    cells = [compose.cells([[*words, *way, "seed=1"]])[0] for way in [[], *WAYS, []]]
    later = [compose.cells([[*words, *way, "seed=2"]])[0] for way in [[], *WAYS, []]]
    for one, other in itertools.combinations(cells, 2):
        same_names = one.names == other.names
        assert (one.key == other.key) == (same_names and grouped(one) == grouped(other))
    assert list(map(grouped, cells)) == list(map(grouped, later))
    assert cells[0].setup_key == cells[WAYS.index(["method=ct"]) + 1].setup_key


def own_arrays(path: Path, seed: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(120, 4))
    np.savez(path, x_train=x, y_train=(x[:, 0] + draw.normal(size=120) > 0).astype(np.int64))
    return f"dataset.path='{path}'"


OWN = ["dataset=npz", "model=logreg", "train.call.epochs=1", "attack=none"]


def tables_of(workspace: Workspace, *cells: Cell) -> list[tuple[str, Any]]:
    rows = [row for cell in cells for row in rows_of(workspace, cell).rows]
    frame = pd.DataFrame(rows).reindex(columns=schema.ROWS.names)
    return list(leaderboard.tables(widen(frame)))


@pytest.mark.tried(
    "one file under two spellings of its path",
    "one table: methods stand beside their controls",
)
def test_one_file_is_one_table_however_it_is_spelled(workspace: Workspace, tmp_path: Path) -> None:
    plain = own_arrays(tmp_path / "a.npz", 0)
    (tmp_path / "to").mkdir()
    other = plain.replace("a.npz", "to/../a.npz")
    (retrain,) = compose.cells([[*OWN, plain, "method=retrain"]])
    (method,) = compose.cells([[*OWN, other, "method=finetune"]])
    method = replace(method, overrides=method.overrides.replace("a.npz", "to/../a.npz"))
    assert retrain.setup_key == method.setup_key
    ((_, told),) = tables_of(workspace, retrain, method)
    assert told["method"].tolist() == ["retrain", "finetune"]


@pytest.mark.tried(
    "two files of other content with like names, `a b.npz` and `ab.npz`",
    "two tables: no mean is over both",
)
def test_two_files_are_two_tables(workspace: Workspace, tmp_path: Path) -> None:
    paths = [own_arrays(tmp_path / name, seed) for seed, name in enumerate(("a b.npz", "ab.npz"))]
    cells = [compose.cells([[*OWN, path, "method=retrain"]])[0] for path in paths]
    told = tables_of(workspace, *(replace(one, overrides="dataset.path=ab.npz") for one in cells))
    assert [len(one) for _, one in told] == [1, 1]
    assert len({title for title, _ in told}) == 2  # some digits of the key tell them apart
    assert {tuple(one["n"]) for _, one in told} == {("1",)}


# ---------------------------------------------------------------------------------------------
# Costs.


@pytest.fixture
def on_devices(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``on_devices({key: device})``: what manifests say they were measured on."""
    real = workspace.store.load

    def on_devices(devices: dict[str, str | None]) -> None:
        def load(key: str) -> Any:
            entry = real(key)
            if key not in devices:
                return entry
            return replace(entry, manifest={**entry.manifest, "measured_on": devices[key]})

        monkeypatch.setattr(workspace.store, "load", load)

    return on_devices


def test_rows_say_what_their_costs_were_measured_by(workspace: Workspace, found: Tables) -> None:
    for row in found["lira", "finetune"].rows:
        assert (row["measured_on"], row["clock"], row["memory"]) == ("cpu", "processor", "process")
    assert "clock" not in found["lira", "original"].rows[0]  # nothing was called


@pytest.mark.tried(
    "a retraining on a GPU and a method on a CPU",
    "no RTE, with the reason in the row; the row says what seconds and memory are",
)
@pytest.mark.parametrize(
    ("retrain", "own"), [("NVIDIA H200", "cpu"), ("cpu", "NVIDIA H200"), (None, None)]
)
def test_times_of_two_devices_are_not_divided(
    workspace: Workspace, on_devices: Any, found: Tables, retrain: str | None, own: str | None
) -> None:
    cell = composed()["lira", "finetune"]
    on_devices({replace(cell, method=cell.reference).model_key: retrain, cell.model_key: own})
    rows = {row["metric"]: row for row in rows_of(workspace, cell).rows}
    assert rows["rte"]["value"] is None
    assert rows["rte"]["status"] == "ok"
    assert rows["rte"]["reason"].startswith("seconds of several devices are not compared: ")
    assert rows["peak_bytes"]["value"] > 0
    clocks = {"cpu": ("processor", "process"), "NVIDIA H200": ("wall", "tensors")}
    said = rows["peak_bytes"].get("clock"), rows["peak_bytes"].get("memory")
    assert said == clocks.get(str(own), (None, None))


def test_times_of_one_device_are_divided(
    workspace: Workspace, on_devices: Any, found: Tables
) -> None:
    cell = composed()["lira", "finetune"]
    keys = replace(cell, method=cell.reference).model_key, cell.model_key
    on_devices(dict.fromkeys(keys, "NVIDIA H200"))
    rows = {row["metric"]: row for row in rows_of(workspace, cell).rows}
    assert rows["rte"]["value"] > 0
    assert (rows["rte"]["clock"], rows["rte"]["measured_on"]) == ("wall", "NVIDIA H200")


@pytest.mark.tried("settings found on another device", "no RTE with tuning, with the reason")
def test_a_search_on_another_device_is_not_added(workspace: Workspace, found: Tables) -> None:
    cell = composed()["lira", "finetune"]
    tuned = {"name": "mine", "seconds": 10.0}
    for where, there in (("cpu", True), ("NVIDIA H200", False), (None, False)):
        one = replace(cell, tuned={**tuned, "measured_on": where})
        rows = {row["metric"]: row for row in rows_of(workspace, one).rows}
        assert (rows["rte_tuned"]["value"] is not None) == there
        assert there or "the search on " in rows["rte_tuned"]["reason"]


# ---------------------------------------------------------------------------------------------
# Reasons.


@pytest.mark.tried("an error of a million characters", "a reason of 2,000, with an ellipsis")
@pytest.mark.parametrize("kind", [ValueError, RuntimeError, Skip, KeyError])
def test_a_reason_is_cut(kind: type[Exception]) -> None:
    told = reason(kind("much " * 200_000))
    assert len(told) == 2000
    assert told.endswith("…")
    assert "…" not in reason(kind("much"))


@pytest.mark.tried(
    "errors without a text: MemoryError, AssertionError, …",
    "a reason with the type, its meaning and the line that raised it",
)
@pytest.mark.parametrize("kind", [MemoryError, AssertionError, ValueError, Skip])
def test_a_reason_is_never_empty(kind: type[Exception]) -> None:
    try:
        raise kind
    except Exception as error:  # noqa: BLE001
        told = reason(error)
    assert told.startswith(f"{kind.__name__}: ")
    assert "in test_table.py, line " in told
    assert ("not enough memory" in told) == (kind is MemoryError)


@pytest.mark.tried("escape sequences in an error", "shown by their numbers")
def test_a_reason_is_text() -> None:
    assert reason(ValueError("a\x1b[31mred\nb")) == "a\\x1b[31mred b"


@pytest.mark.tried(
    "an attack returns arrays that do not fit each other, or exits",
    "its row is failed with the reason; the model's own rows stay",
)
@pytest.mark.parametrize("fault", ["misshapen", "exits"])
def test_what_an_attack_returns_is_its_own_row(
    workspace: Workspace, cell: Cells, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def attacked(*_: object) -> Scores:
        if fault == "exits":
            raise SystemExit(3)
        row = np.arange(4)
        return Scores({"auc": (0.5, 1)}, ["a"] * 4, row, np.ones(3, bool), np.zeros(4))

    monkeypatch.setattr(rows_module, "attacked", attacked)
    found = rows_of(workspace, cell("dataset=breast_cancer", "model=logreg", "attack=umia"))
    assert {row["status"] for row in found.rows} == {"ok", "failed"}
    (failed,) = (row for row in found.rows if row["status"] == "failed")
    assert failed["attack"] == "umia"
    assert failed["reason"]
    assert found.scores is None
