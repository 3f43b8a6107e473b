"""A user's own original: known by its content, checked against the net, and taken as it is."""

from pathlib import Path

import pytest
import torch
from cells import Cells
from method.bench import same
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearnbench import outputs, pipeline, table
from unlearnbench.cell import Cell
from unlearnbench.pipeline import Lab
from unlearnbench.seeding import seeded

Checkpoint = tuple[Path, dict[str, Tensor]]


@pytest.fixture
def checkpoint(tmp_path: Path, cell: Cells) -> Checkpoint:
    """An mlp that no seed of ours draws."""
    one = cell("model=mlp")
    with seeded(99, "elsewhere"):
        net = pipeline.fresh(one, pipeline.dataset(one), "elsewhere")
    path = tmp_path / "mine.safetensors"
    save_file(net.state_dict(), path)
    return path, net.state_dict()


def given(cell: Cells, path: Path, *words: str) -> Cell:
    return cell("model=mlp", "train=checkpoint", f"train.path={path}", *words)


def test_the_original_is_the_files_net(new_lab: Lab, cell: Cells, checkpoint: Checkpoint) -> None:
    path, state = checkpoint
    one = given(cell, path, "method=original")
    assert same(pipeline.original(new_lab, one).state_dict(), state)
    data = pipeline.dataset(one)
    net: nn.Module = pipeline.fresh(one, data)
    net.load_state_dict(state)
    with torch.no_grad():
        expected = net.eval()(data.inputs(torch.arange(len(data.y))))
    found = torch.from_numpy(outputs.predictions(new_lab, one).logits_MQNC[0, 0])
    torch.testing.assert_close(found, expected)


def test_methods_start_from_it_and_retraining_does_not(
    new_lab: Lab, cell: Cells, checkpoint: Checkpoint
) -> None:
    path, state = checkpoint
    still = given(cell, path, "method=finetune", "method.call.epochs=0")
    assert same(pipeline.unlearned(new_lab, still).state_dict(), state)
    one = given(cell, path, "method=retrain")
    net = pipeline.unlearned(new_lab, one)
    trained = cell("model=mlp", "method=retrain")
    assert same(net.state_dict(), pipeline.unlearned(new_lab, trained).state_dict())


def test_its_key_is_of_its_content_wherever_it_lies(
    cell: Cells, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path, state = checkpoint
    key = given(cell, path).original_key
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(path.read_bytes())
    assert given(cell, elsewhere).original_key == key
    save_file({name: tensor + 1 for name, tensor in state.items()}, path)
    assert given(cell, path).original_key != key
    assert given(cell, path).model_key != given(cell, elsewhere).model_key


@pytest.mark.parametrize("wrong", ["shape", "missing", "unknown"])
def test_another_nets_file_is_refused_by_the_name_of_a_tensor(
    new_lab: Lab, cell: Cells, checkpoint: Checkpoint, wrong: str
) -> None:
    path, state = checkpoint
    state = dict(state)
    bias = state.pop("head.bias")
    told = "head.bias is missing in the file, (10,) in model=mlp"
    if wrong == "shape":
        state["head.bias"], told = bias[:9].clone(), r"head.bias is (9,) in the file, (10,) in"
    if wrong == "unknown":
        state |= {"head.bias": bias, "tail.bias": bias.clone()}
        told = "tail.bias is (10,) in the file, missing in model=mlp"
    save_file(state, path)
    (row,) = table.rows(new_lab, given(cell, path, "method=original")).rows
    assert row["status"] == "failed"
    assert told in row["reason"]
    assert str(path) in row["reason"]
    with pytest.raises(ValueError, match=r"train\.path"):
        pipeline.original(new_lab, given(cell, path))


def test_a_missing_file_fails_its_cell_with_a_reason(
    new_lab: Lab, cell: Cells, tmp_path: Path
) -> None:
    path = tmp_path / "none.safetensors"
    (row,) = table.rows(new_lab, given(cell, path, "method=finetune")).rows
    assert row["status"] == "failed"
    assert "none.safetensors" in row["reason"]


@pytest.mark.parametrize("content", [b"", b"not tensors at all, but text"])
def test_a_file_of_something_else_is_told_by_its_path(
    new_lab: Lab, cell: Cells, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(content)
    (row,) = table.rows(new_lab, given(cell, path, "method=finetune")).rows
    assert "none.safetensors" in row["reason"]
