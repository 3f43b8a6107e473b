"""A cell on a CUDA device: the same rows twice, and close to what a CPU gives."""

from pathlib import Path

import pytest
import torch
from cells import Cells

from unlearnbench import pipeline, table
from unlearnbench.pipeline import Lab
from unlearnbench.store import Store

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
        lab = Lab(Store(tmp_path / place), "cuda:0")
        found = table.rows(lab, one)
        assert found.error is None
        told = {row["metric"]: row["value"] for row in found.rows}
        assert told["retain_acc"] > 0.9
        assert found.rows[0]["device"] == torch.cuda.get_device_name(0)
        keys.append(lab.store.load(one.model_key).manifest["files"])
    assert keys[0] == keys[1]


def test_predictions_of_one_model_are_those_of_a_cpu(lab: Lab, cell: Cells) -> None:
    one = cell("method=original")
    net = pipeline.original(lab, one)
    data = pipeline.dataset(one, "cuda:0")
    rows = torch.arange(500)
    torch.backends.cudnn.allow_tf32 = False
    batches = pipeline._batches(one, data, rows, "all")
    found = pipeline.train.logits(net.cuda(), batches, rows.cuda())
    expected = pipeline.predictions(lab, one).logits_MQNC[0, 0, :500]
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
