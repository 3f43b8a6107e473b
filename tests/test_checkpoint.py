"""A user's own original: known by its content, checked against the net, and taken as it is."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import Cells
from method.bench import same
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearnbench.core.cell import Cell
from unlearnbench.core.errors import ConfigError, Failed
from unlearnbench.core.seeding import seeded
from unlearnbench.pipeline import inputs, models, outputs, rows
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.sweep.plan import plan

Checkpoint = tuple[Path, dict[str, Tensor]]


@pytest.fixture
def checkpoint(tmp_path: Path, cell: Cells) -> Checkpoint:
    """An mlp that no seed of ours draws."""
    one = cell("model=mlp")
    with seeded(99, "elsewhere"):
        net = inputs.fresh(one, inputs.dataset(one), "elsewhere")
    path = tmp_path / "mine.safetensors"
    save_file(net.state_dict(), path)
    return path, net.state_dict()


def given(cell: Cells, path: Path, *words: str) -> Cell:
    return cell("model=mlp", "train=checkpoint", f"train.path={path}", *words)


def test_the_original_is_the_files_net(
    new_workspace: Workspace, cell: Cells, checkpoint: Checkpoint
) -> None:
    path, state = checkpoint
    one = given(cell, path, "method=original")
    assert same(models.original(new_workspace, one).state_dict(), state)
    data = inputs.dataset(one)
    net: nn.Module = inputs.fresh(one, data)
    net.load_state_dict(state)
    with torch.no_grad():
        expected = net.eval()(data.inputs(data.rows))
    found = torch.from_numpy(outputs.predictions(new_workspace, one).logits_MQNC[0, 0])
    torch.testing.assert_close(found, expected)


def test_methods_start_from_it_and_retraining_does_not(
    new_workspace: Workspace, cell: Cells, checkpoint: Checkpoint
) -> None:
    path, state = checkpoint
    still = given(cell, path, "method=finetune", "method.call.epochs=0")
    assert same(models.unlearned(new_workspace, still).state_dict(), state)
    one = given(cell, path, "method=retrain")
    net = models.unlearned(new_workspace, one)
    trained = cell("model=mlp", "method=retrain")
    assert same(net.state_dict(), models.unlearned(new_workspace, trained).state_dict())


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
    new_workspace: Workspace, cell: Cells, checkpoint: Checkpoint, wrong: str
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
    (row,) = rows.rows_of(new_workspace, given(cell, path, "method=original")).rows
    assert row["status"] == "failed"
    assert told in row["reason"]
    assert str(path) in row["reason"]
    with pytest.raises(ValueError, match=r"train\.path"):
        models.original(new_workspace, given(cell, path))


@pytest.mark.parametrize("content", [b"", b"not tensors at all, but text"])
def test_a_file_of_something_else_is_refused_by_its_path(
    cell: Cells, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "none.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ConfigError, match=r"train\.path=/.*none\.safetensors: is no safetensors file"
    ):
        given(cell, path, "method=finetune")


LOADED = "loaded, as the net they are"


@pytest.mark.tried(
    "a `.pt` or `.pth` state dict, of DataParallel, wrapped, or in half precision", LOADED
)
@pytest.mark.parametrize("suffix", ["pt", "pth"])
@pytest.mark.parametrize("how", ["plain", "parallel", "wrapped", "model", "float16", "bfloat16"])
def test_state_dicts_of_torch_are_taken(
    new_workspace: Workspace, cell: Cells, checkpoint: Checkpoint, suffix: str, how: str
) -> None:
    path, state = checkpoint
    held: dict[str, object] = dict(state)
    if how == "parallel":
        held = {f"module.{name}": tensor for name, tensor in state.items()}
    elif how == "wrapped":
        held = {"epoch": 3, "state_dict": dict(state), "optimizer": {"lr": 0.1}}
    elif how == "model":
        held = {"model": {f"module.{name}": tensor for name, tensor in state.items()}}
    elif how.endswith("16"):
        state = {name: tensor.to(getattr(torch, how)) for name, tensor in state.items()}
        held, state = dict(state), {name: tensor.float() for name, tensor in state.items()}
    torch.save(held, path.with_suffix(f".{suffix}"))
    one = given(cell, path.with_suffix(f".{suffix}"), "method=original")
    assert same(models.original(new_workspace, one).state_dict(), state)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


@pytest.mark.tried(
    "a checkpoint of integers or float64, a pickled module, code in a pickle, two state dicts",
    "refused: names the file and the first mismatch; nothing in it is run",
)
@pytest.mark.parametrize("how", ["int32", "float64", "code", "whole", "two", "list", "garbage"])
def test_other_files_of_torch_are_refused(
    new_workspace: Workspace,
    cell: Cells,
    checkpoint: Checkpoint,
    how: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, state = checkpoint[0].with_suffix(".pt"), checkpoint[1]
    first = next(iter(state))
    message = "torch reads no weights in it"
    held: object = Harmful()
    if how in ("int32", "float64"):
        held = {name: tensor.to(getattr(torch, how)) for name, tensor in state.items()}
        message = f"{first} is {how} in the file, float32 in model=mlp; only float16 and"
    elif how == "whole":
        held = nn.Linear(2, 2)
    elif how == "two":
        held, message = {"model": dict(state), "state_dict": dict(state)}, "several of them: "
    elif how == "list":
        held, message = [1, 2], "holds none"
    torch.save(held, path)
    if how == "garbage":
        path.write_bytes(b"not a file of torch")
        message = "must be safetensors, or a .pt or .pth file"
    with pytest.raises(ValueError, match=message) as caught:
        models.original(new_workspace, given(cell, path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "run" not in capsys.readouterr().out


class Tied(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.first = nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.head(self.second(self.first(self.flatten(x)).relu()).relu())
        return h


@pytest.mark.tried("a model with tied weights", "stored, and loaded with the same ties")
def test_tied_weights_are_stored_and_stay_tied(
    new_workspace: Workspace, cell: Cells, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "unlearnbench.model.mlp.tied", lambda shape, n_classes: Tied(64), raising=False
    )
    call = {"_target_": "unlearnbench.model.mlp.tied"}
    model = {"name": "tied", "version": 1, "kinds": ["image"], "call": call}
    one = replace(cell("method=finetune"), model=model)
    net = models.unlearned(new_workspace, one)
    assert isinstance(net, Tied)
    assert net.second.weight is net.first.weight
    again = models.unlearned(new_workspace, one).state_dict()
    assert same(net.state_dict(), again)
    assert outputs.predictions(new_workspace, one).logits_MQNC.shape[-1] == 10

    state = {name: tensor.clone() for name, tensor in again.items()}
    once = {name: tensor for name, tensor in state.items() if name != "second.weight"}
    differing = {**state, "second.weight": state["second.weight"] + 1}
    for number, held in enumerate((state, once, differing)):
        path = tmp_path / f"{number}.safetensors"
        save_file(held, path)
        brought = cell("train=checkpoint", f"train.path={path}", "method=original")
        brought = replace(brought, model=model)
        if held is differing:
            with pytest.raises(ValueError, match="differ, and are tied in model=tied"):
                models.original(new_workspace, brought)
        else:
            assert same(models.original(new_workspace, brought).state_dict(), state)


@pytest.mark.tried(
    "a checkpoint of another net, in a run that retrains twice",
    "refused before anything is trained",
)
def test_a_file_of_another_net_is_refused_before_anything_is_trained(
    new_workspace: Workspace, cell: Cells, checkpoint: Checkpoint
) -> None:
    path, state = checkpoint
    save_file({**state, "more": torch.zeros(1)}, path)
    methods = ("retrain", "second_retrain", "finetune")
    cells = [given(cell, path, f"method={method}") for method in methods]
    jobs = plan(cells, new_workspace.store, set()).jobs
    original, *others = (job for job in jobs if job.kind != "rows")
    assert (original.kind, [job.needs for job in others]) == ("original", [(original.key,)] * 3)
    with pytest.raises(ValueError, match="more"):
        outputs.predict(new_workspace, original.cells[0])
    new_workspace.failures[original.key] = "it is of another net"
    for job in others:
        with pytest.raises(Failed, match="the original failed: it is of another net"):
            outputs.predict(new_workspace, job.cells[0])
    assert not [manifest for manifest in new_workspace.store.root.rglob("manifest.json")]
