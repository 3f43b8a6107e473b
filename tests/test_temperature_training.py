"""A temperature inside the net, in training and in every answer."""

from copy import deepcopy

import pytest
import torch
from cells import Cells
from method.bench import same
from torch import nn

from unlearnbench.model.ensemble import Ensemble
from unlearnbench.pipeline import inputs, models, outputs
from unlearnbench.pipeline.workspace import Workspace


def trained(workspace: Workspace, cell: Cells, *words: str) -> nn.Module:
    return models.unlearned(workspace, cell("train.call.epochs=1", *words))


def test_logits_are_those_of_the_plain_net_over_the_temperature(cell: Cells) -> None:
    data = inputs.dataset(cell())
    plain = inputs.fresh(cell(), data).eval()
    warm = inputs.fresh(cell("train=temperature", "train.temperature=4.0"), data).eval()
    assert same(plain.state_dict(), warm.state_dict())
    x = data.inputs(torch.arange(9))
    with torch.no_grad():
        assert torch.equal(warm(x), plain(x) / 4)
        assert torch.equal(warm.train()(x), plain.train()(x) / 4)
        assert torch.equal(deepcopy(warm.eval())(x), plain.eval()(x) / 4)


def test_a_temperature_of_one_is_no_temperature(workspace: Workspace, cell: Cells) -> None:
    plain, one = (
        trained(workspace, cell),
        trained(workspace, cell, "train=temperature", "train.temperature=1"),
    )
    assert same(plain.state_dict(), one.state_dict())


def test_it_is_part_of_the_training_of_originals_and_retrained(
    workspace: Workspace, cell: Cells
) -> None:
    plain, warm = cell("method=retrain"), cell("method=retrain", "train=temperature")
    assert plain.original_key != warm.original_key
    assert warm.original_key != cell("train=temperature", "train.temperature=3").original_key
    for words in ("method=original",), ("method=retrain",):
        nets = (
            trained(workspace, cell, *words),
            trained(workspace, cell, "train=temperature", *words),
        )
        assert not same(*(net.state_dict() for net in nets))


def test_predictions_are_over_the_temperature(workspace: Workspace, cell: Cells) -> None:
    warm = cell("train=temperature", "method=original", "train.call.epochs=1")
    data, found = inputs.dataset(warm), outputs.predictions(workspace, warm)
    net = inputs.fresh(cell(), data).eval()
    net.load_state_dict(models.original(workspace, warm).state_dict())
    with torch.no_grad():
        expected = net(data.inputs(torch.arange(len(data.y)))) / 2
    seen = torch.from_numpy(found.logits_MQNC[0, 0])
    torch.testing.assert_close(seen, expected[torch.from_numpy(found.rows_N)])


def test_members_of_an_ensemble_have_it(workspace: Workspace, cell: Cells) -> None:
    words = ["method=sisa", "method.prepare.shards=2", "method.prepare.slices=1"]
    net = trained(workspace, cell, "train=temperature", *words)
    assert isinstance(net, Ensemble)
    data = inputs.dataset(cell())
    plain = Ensemble(inputs.fresh(cell(), data) for _ in net.members).eval()
    plain.load_state_dict(net.state_dict())
    x = data.inputs(torch.arange(9))
    with torch.no_grad():
        for warm, member in zip(net.members, plain.members, strict=True):
            assert torch.equal(warm(x), member(x) / 2)


@pytest.mark.parametrize("temperature", ["0", "-1.0"])
def test_a_temperature_is_above_zero(cell: Cells, temperature: str) -> None:
    with pytest.raises(ValueError, match=r"train\.temperature=.* in \(0, 1e9\]"):
        cell("train=temperature", f"train.temperature={temperature}")
