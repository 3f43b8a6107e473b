"""Distance of weights: none of a model to itself, and the layers' squares are that of all."""

import numpy as np
import pytest
from cells import compose

from unlearnbench.attack.weights import parameters, weights
from unlearnbench.core.errors import Skip
from unlearnbench.pipeline import rows
from unlearnbench.pipeline.models import compared
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.sweep import plan

WORDS = ["model=mlp", "train.call.epochs=2", "attack=weights"]


def figures(workspace: Workspace, *words: str) -> dict[str, float]:
    found = weights(compared(workspace, compose(*WORDS, *words)))
    assert found.score.size == 0
    return {name: value for name, (value, _) in found.metrics.items()}


def test_a_model_is_no_way_from_itself(workspace: Workspace) -> None:
    assert set(figures(workspace, "method=retrain").values()) == {0.0}


def test_distance_is_that_of_the_stored_weights(workspace: Workspace) -> None:
    models = compared(workspace, compose(*WORDS, "method=finetune", "method.call.epochs=1"))
    ours, theirs = parameters(models.model), parameters(models.retrained)
    apart = np.concatenate([(ours[name] - theirs[name]).ravel() for name in ours])
    whole = np.concatenate([values.ravel() for values in theirs.values()])
    found = weights(models).metrics
    assert found["weight_distance"] == (pytest.approx(np.linalg.norm(apart)), len(apart))
    assert found["weight_distance_relative"][0] == pytest.approx(
        np.linalg.norm(apart) / np.linalg.norm(whole)
    )
    layers = {name.rpartition(".")[0] for name in ours}
    each = [found[f"weight_distance_{layer}"] for layer in layers]
    assert sum(value**2 for value, _ in each) == pytest.approx(found["weight_distance"][0] ** 2)
    assert sum(n for _, n in each) == len(apart)


def test_the_original_is_farther_than_its_own_weights_were_moved(workspace: Workspace) -> None:
    models = compared(workspace, compose(*WORDS, "method=original"))
    ours, original = parameters(models.model), parameters(models.original)
    assert all(np.array_equal(ours[name], original[name]) for name in ours)
    assert weights(models).metrics["weight_distance"][0] > 0


def test_other_architectures_are_skipped(workspace: Workspace) -> None:
    found = rows.rows_of(workspace, compose(*WORDS, "method=sisa"))
    assert isinstance(found.error, Skip)
    assert "built otherwise" in found.rows[-1]["reason"]


def test_a_defense_of_outputs_is_none_against_it(workspace: Workspace) -> None:
    found = rows.rows_of(workspace, compose(*WORDS, "method=retrain", "defense=label_only"))
    assert isinstance(found.error, Skip)
    assert "holds the model itself" in found.rows[-1]["reason"]


def test_the_plan_has_the_original_of_the_seed_and_no_judge() -> None:
    one = compose(*WORDS, "method=second_retrain")
    assert one.reference_classifier is None
    read = {model.predictions_key for model in plan._models(one)}
    assert compose(*WORDS, "method=original").predictions_key in read
    assert compose(*WORDS, "method=original", "seed=2").predictions_key not in read
