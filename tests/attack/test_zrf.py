"""ZRF: of retraining to itself 1, and otherwise as from the nets' own answers."""

import pytest
from cells import compose

from unlearnbench.attack.zrf import zrf
from unlearnbench.core.errors import Skip
from unlearnbench.metric import distance
from unlearnbench.pipeline import rows
from unlearnbench.pipeline.models import compared
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.train.loop import logits

WORDS = ["model=mlp", "train.call.epochs=2", "attack=zrf"]


def test_retraining_answers_as_itself(workspace: Workspace) -> None:
    found = zrf(compared(workspace, compose(*WORDS, "method=retrain"))).metrics
    assert found["zrf_to_retrained"][0] == pytest.approx(1)
    assert found["zrf"] == found["zrf_of_retrained"]
    assert 0 < found["zrf"][0] < 1


def test_it_is_of_the_forget_rows_and_of_a_net_that_was_never_trained(workspace: Workspace) -> None:
    models = compared(workspace, compose(*WORDS, "method=finetune", "method.call.epochs=1"))
    found = zrf(models).metrics
    task = models.task
    fresh = task.fresh("zrf")
    assert fresh.state_dict().keys() == models.model.state_dict().keys()
    ours, random = (logits(net, task.forget).numpy() for net in (models.model, fresh))
    assert found["zrf"] == (
        pytest.approx(1 - distance.js_divergence(ours, random).mean()),
        len(ours),
    )
    assert len(ours) == len(task.forget.rows)
    # It is not the draw that training sets out from.
    start = logits(task.fresh(), task.forget).numpy()
    assert found["zrf"][0] != pytest.approx(1 - distance.js_divergence(ours, start).mean())


def test_to_retrained_is_one_minus_the_rows_divergence(workspace: Workspace) -> None:
    found = rows.rows_of(workspace, compose(*WORDS, "method=finetune", "method.call.epochs=1"))
    assert found.error is None
    told = {row["metric"]: row["value"] for row in found.rows}
    assert told["zrf_to_retrained"] == pytest.approx(1 - told["js_forget"])


def test_a_regression_is_skipped(workspace: Workspace) -> None:
    one = compose(*WORDS, "dataset=diabetes", "method=retrain")
    with pytest.raises(Skip, match="needs classes"):
        zrf(compared(workspace, one))
