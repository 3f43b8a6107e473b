"""Splits at their limits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import Cells

from unlearnbench.core.outputs import FORGET
from unlearnbench.pipeline import inputs, models, outputs
from unlearnbench.pipeline import rows as rows_module
from unlearnbench.pipeline.split import records_of, split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.protocol.shadow_models import ShadowModel
from unlearnbench.results import public as loading


def test_without_validation_rows_all_the_others_are_trained_on(cell: Cells) -> None:
    one = cell("split.val=0")
    data = inputs.dataset(one)
    parts, usual = split_of(one, data), split_of(cell(), data)
    assert not len(parts.val)
    assert len(usual.val)
    assert parts.train.tolist() == data.train_rows.tolist()
    assert parts.test.tolist() == usual.test.tolist() == data.test_rows.tolist()
    assert set(parts.forget.tolist()) < set(parts.train.tolist())
    shares = [len(each.forget) / len(each.train) for each in (parts, usual)]
    assert shares == pytest.approx([0.1, 0.1], abs=1e-3)


def test_a_population_without_validation_rows(cell: Cells) -> None:
    one = cell("split.val=0")
    settings = {"protocol": "audit_pool", "models": 4, "pool": 1.0, "seed": 0}
    shadow = ShadowModel.models(replace(one, attack={**one.attack, "shadow_models": settings}))[0]
    data = inputs.dataset(one)
    found = shadow.draw(records_of(shadow, data))
    assert sorted(found.rows_N) == sorted(data.train_rows.tolist())
    assert not len(split_of(shadow, data).val)


def test_a_cell_without_validation_rows_runs(new_workspace: Workspace, cell: Cells) -> None:
    words = "model=logreg", "train.call.epochs=1", "method.call.epochs=1"
    found = rows_module.rows_of(new_workspace, cell("split.val=0", *words))
    assert found.error is None
    told = {row["metric"]: (row["value"], row["n"]) for row in found.rows}
    assert told["val_acc"][0] != told["val_acc"][0], "NaN"
    assert told["val_acc"][1] == 0
    assert 0 <= told["test_acc"][0] <= 1


# ---------------------------------------------------------------------------------------------
# Record numbers.

FAST = "model=logreg", "train.call.epochs=1", "method=finetune", "method.call.epochs=1"


def own(folder: Path, n: int, *, tested: int = 0) -> Path:
    """An archive whose record k has the feature k and the label k mod 2."""
    k = np.arange(n)
    arrays = {"x": np.stack([k, k % 2], 1).astype(float), "y": k % 2}
    parts = {"train": slice(0, n - tested), "test": slice(n - tested, n)}
    path = folder / f"own {tested}.npz"
    np.savez(path, **{f"{name}_{part}": array[where] for name, array in arrays.items()
                      for part, where in parts.items() if part == "train" or tested})  # fmt: skip
    return path


@pytest.mark.tried(
    "forget.path with rows of an archive without x_test, under several splits and limits",
    "exactly these records of the file are forgotten; outputs and scores have the same numbers",
)
@pytest.mark.parametrize("words", [(), ("split.seed=7",), ("split.val=0",), ("dataset.limit=160",)])
@pytest.mark.parametrize("tested", [0, 40])
def test_row_numbers_are_those_of_the_users_file(
    new_workspace: Workspace, tmp_path: Path, cell: Cells, tested: int, words: tuple[str, ...]
) -> None:
    file, rows = own(tmp_path, 240, tested=tested), tmp_path / "rows.txt"
    given = (*FAST, "dataset=npz", f"dataset.path='{file}'", *words)
    trained = split_of(plain := cell(*given), inputs.dataset(plain)).train
    wanted = sorted(trained.tolist())[:25]
    rows.write_text("\n".join(map(str, wanted)))
    one = cell(*given, "forget=rows", f"forget.path={rows}", "attack=umia")
    data = inputs.dataset(one)
    assert data.x[:, 0].argsort().tolist() == list(range(240)), "the feature of record k was k"
    parts = split_of(one, data)
    assert sorted(parts.forget.tolist()) == wanted

    found = outputs.predictions(new_workspace, one)
    forgotten_N = found.split_N == FORGET
    assert sorted(found.rows_N[forgotten_N].tolist()) == wanted
    assert (found.y_N == found.rows_N % 2).all()
    (tmp_path / "rows").mkdir()
    told = loading.load_predictions(one.predictions_key, tmp_path, store=new_workspace.store.root)
    assert told["rows_N"].tolist() == sorted(data.rows.tolist())
    assert (told["y_N"] == told["rows_N"] % 2).all()
    assert told["is_test_N"].tolist() == [row in data.test_rows for row in told["rows_N"]]
    net = models.unlearned(new_workspace, one)
    with torch.no_grad():
        logits_NC = net(data.inputs(torch.from_numpy(told["rows_N"]))).numpy()
    np.testing.assert_allclose(told["logits_NC"], logits_NC, atol=1e-5)
    if not words:
        assert told["y_N"].tolist() == [k % 2 for k in range(240)]

    rows_of = rows_module.rows_of(new_workspace, one)
    assert rows_of.error is None
    scores = rows_of.scores.to_pandas()
    assert set(scores.loc[scores["member"], "row"]) == set(wanted)
    unseen = {*parts.test.tolist(), *parts.val.tolist()}
    assert set(scores.loc[~scores["member"], "row"]) <= unseen


@pytest.mark.tried(
    "a forget set of your own that looks at all labels, with dataset.limit",
    "it is given the labels of the records that are left, in training and in every later step",
)
def test_a_forget_function_sees_the_same_in_every_step(
    new_workspace: Workspace, cell: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def first_of_class_one(train_rows: torch.Tensor, y_N: torch.Tensor) -> torch.Tensor:
        seen.append(y_N.tolist())
        return train_rows[y_N[train_rows] == 1][:3]

    monkeypatch.setattr("unlearnbench.forget.random.mine", first_of_class_one, raising=False)
    one = cell(*FAST, "dataset.limit=100")
    call = {"_target_": "unlearnbench.forget.random.mine"}
    one = replace(one, forget={"name": "mine", "version": 1, "call": call})
    outputs.predictions(new_workspace, one)
    outputs.predictions(new_workspace, one)
    assert len(seen) > 2
    assert all(labels == seen[0] for labels in seen)
    data = inputs.dataset(one)
    assert {row for row, label in enumerate(seen[0]) if label >= 0} == set(data.rows.tolist())


@pytest.mark.tried("`split.val` that leaves no row to train on", "refused, with the key and value")
@pytest.mark.parametrize("words", [["split.val=0.999"], ["dataset.limit=1"]])
def test_a_split_without_training_rows_is_refused(words: list[str], cell: Cells) -> None:
    one = cell("dataset=wine", *words)
    data = inputs.dataset(one)
    with pytest.raises(ValueError, match=r"^split\.val=.*: leaves none of \d+ rows to train on"):
        split_of(one, data)
