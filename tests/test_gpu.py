"""A cell on a CUDA device: the same rows twice, and close to what a CPU gives."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import Cells

from unlearnbench.pipeline import inputs, models, outputs
from unlearnbench.pipeline.rows import rows_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.store.artifacts import Store
from unlearnbench.train import loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("method", ["finetune", "random_labels", "neggrad_plus"])
def test_a_cell_twice(tmp_path: Path, cell: Cells, method: str, precision: str) -> None:
    one = cell(f"method={method}", f"precision={precision}", "train.call.epochs=10")
    keys = []
    for place in ("first", "second"):
        workspace = Workspace(Store(tmp_path / place), "cuda:0")
        found = rows_of(workspace, one)
        assert found.error is None
        told = {row["metric"]: row["value"] for row in found.rows}
        assert told["retain_acc"] > 0.9
        assert found.rows[0]["device"] == torch.cuda.get_device_name(0)
        keys.append(workspace.store.load(one.model_key).manifest["files"])
    assert keys[0] == keys[1]


def test_predictions_of_one_model_are_those_of_a_cpu(workspace: Workspace, cell: Cells) -> None:
    one = cell("method=original")
    net = models.original(workspace, one)
    data = inputs.dataset(one, "cuda:0")
    torch.backends.cudnn.allow_tf32 = False
    batches = inputs.batches(one, data, torch.arange(500), "all")
    found = loop.logits(net.cuda(), batches)
    expected = outputs.predictions(workspace, one).logits_MQNC[0, 0, :500]
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("live", [False, True])
def test_replayed_steps_are_the_steps(cell: Cells, live: bool) -> None:
    """Full batches replayed, the last one run: as without graphs, up to the rate's float32."""
    one = cell("method=original")
    data = inputs.dataset(one, "cuda:0")
    rows = torch.arange(64 * 9 + 7, device="cuda:0")
    found = []
    for graphs in (True, False):
        net = inputs.fresh(one, data)
        batches = inputs.batches(replace(one, cuda_graphs=graphs), data, rows, "retain")
        sgd = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
        mover = loop.make_optimizer(net, sgd) if live else sgd
        for _ in range(2):
            loop.descend(
                net,
                batches.batched(64),
                loop.cross_entropy,
                sgd=mover,
                epochs=2,
                schedule=loop.cosine,
            )
        assert all(p.grad is None for p in net.parameters())
        found.append(net.state_dict())
    for key, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][key], rtol=1e-3, atol=1e-4)


def test_a_step_that_cannot_be_captured_says_what_to_do(cell: Cells) -> None:
    class Stubborn(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1)) + float(x.mean())

    one = cell("method=original")
    data = inputs.dataset(one, "cuda:0")
    batches = inputs.batches(one, data, torch.arange(640, device="cuda:0"), "retain")
    net = Stubborn(64, 10).cuda()
    with pytest.raises(RuntimeError, match="cuda_graphs=false"):
        loop.descend(
            net,
            batches.batched(64),
            loop.cross_entropy,
            sgd={"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0},
            epochs=1,
        )
