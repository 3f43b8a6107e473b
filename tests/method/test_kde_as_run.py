"""KDE as run distils on the validation rows, in their own order, and resets top-level layers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method.bench import Bench, same
from method.test_kde import SETTINGS, poisoned
from torch import nn

from unlearnbench.core.data import Batches
from unlearnbench.method import kde_as_run as module
from unlearnbench.method.kde_as_run import kde_as_run
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.tiny_vit import tiny_vit
from unlearnbench.train.loop import cosine


def test_without_epochs_it_resets_the_head_of_a_net_without_a_top_convolution(bench: Bench) -> None:
    net = bench.run(kde_as_run, bench.task, **SETTINGS, epochs=0, retain_epochs=0)
    before = bench.original.state_dict()
    changed = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"head.2.weight", "head.2.bias"}


def test_without_epochs_it_resets_the_stem_and_the_head_of_resnet18(bench: Bench) -> None:
    net = resnet18((1, 8, 8), 10, norm="batch")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kde_as_run(net, bench.task, **SETTINGS, epochs=0, retain_epochs=0)
    changed = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"conv1.weight", "fc.weight", "fc.bias"}


@pytest.mark.tried(
    "the last layer norm of a TinyViT drawn anew with its head (rni, kde, kde_as_run)",
    "of its head the linear layer alone is drawn anew",
)
def test_without_epochs_it_resets_the_linear_head_of_a_tiny_vit(bench: Bench) -> None:
    net = tiny_vit((3, 32, 32), 10, norm="batch")
    with torch.no_grad():
        net.head.norm.weight.fill_(2.0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kde_as_run(net, bench.task, **SETTINGS, epochs=0, retain_epochs=0)
    changed = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {"head.fc.weight", "head.fc.bias"}


def test_validation_rows_have_a_say_in_their_inputs_but_not_in_their_labels(bench: Bench) -> None:
    task = bench.task
    others = replace(task, val=task.val.relabelled(9 - task.val.y))
    nets = [
        bench.run(kde_as_run, one, **SETTINGS, epochs=1, retain_epochs=0)
        for one in (bench.task, others, poisoned(bench.task))
    ]
    assert same(nets[0].state_dict(), nets[1].state_dict())
    assert nets[0].state_dict()["head.2.weight"].isfinite().all()
    assert nets[2].state_dict()["head.2.weight"].isnan().all()


def test_walks_the_validation_rows_in_their_own_order_then_the_retain_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the authors' loaders only those of retain and forget rows shuffle."""
    walks: list[tuple[Batches, dict[str, Any]]] = []

    def watched(model: nn.Module, batches: Batches, loss: Any, **how: Any) -> nn.Module:
        walks.append((batches, how))
        return model

    monkeypatch.setattr(module, "descend", watched)
    bench.run(kde_as_run, bench.task, **SETTINGS, epochs=1, retain_epochs=2)
    (warm_up, first), (retain, second) = walks
    seen = torch.cat([y for _, y in warm_up])
    assert torch.equal(seen, bench.data.y[bench.parts.val])
    assert torch.equal(retain.rows, bench.parts.retain)
    assert retain.shuffled
    assert (first["epochs"], second["epochs"], second["schedule"]) == (1, 2, cosine)
