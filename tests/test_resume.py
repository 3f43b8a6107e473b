"""A training that is stopped and gone on with is the training that was not, to the bit."""

import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cells import Cells
from disks import full
from method.bench import same
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unlearnbench.core.cell import Cell
from unlearnbench.core.data import Batches, Hooks
from unlearnbench.pipeline import inputs, models, outputs
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.store.artifacts import Store
from unlearnbench.train import checkpoint, loop
from unlearnbench.train.checkpoint import Interrupted, Keeper

fork = multiprocessing.get_context("fork")

SMALL = ["dataset.limit=150", "train.call.epochs=3", "train.call.batch_size=32"]
SMALL += ["dataset.call.augment=crop_flip", "model.call._target_=unruly.dropping"]
STEPS = 3 * 4
"""Three epochs; 127 rows to train on, beside those for validation, are four batches."""

DP = ["train=dp_sgd", "model.call.norm=group", "train.call.noise_multiplier=0.5"]
DP += ["train.call.sgd.momentum=0.9"]


@pytest.fixture(autouse=True)
def _nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_stop_requested", False)


class Stop:
    """Asks the training to stop at some of its steps, by their number in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.at, self.steps = monkeypatch, -1, 0
        real = loop.cross_entropy

        def counted(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            self.steps += 1
            if self.steps == self.at:
                checkpoint.request()
            return real(model, x, y)

        monkeypatch.setattr(loop, "cross_entropy", counted)

    def after(self, steps: int) -> None:
        """In a new process, that is told to stop in this step; 0 for never."""
        self.monkeypatch.setattr(checkpoint, "_stop_requested", False)
        self.at, self.steps = steps, 0


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    return Stop(monkeypatch)


def files(workspace: Workspace, key: str) -> Any:
    return workspace.store.load(key).manifest["files"]


Make = Callable[[Workspace, Cell], object]


CASES = {
    "original": ["method=original"],
    "retrain": ["method=retrain"],
    "sisa_retrain": ["method=sisa_retrain", "method.call.shards=3", "method.call.slices=2"],
    "dp_sgd": ["method=original", *DP],
}


@pytest.fixture(params=CASES)
def one(request: pytest.FixtureRequest, cell: Cells) -> Cell:
    return cell(*SMALL, *CASES[request.param])


@pytest.mark.parametrize("step", [1, 3, 4, 5, 8, 11, 12])
def test_stopped_once_it_comes_to_the_same_bits(
    workspace: Workspace, new_workspace: Workspace, one: Cell, stop: Stop, step: int
) -> None:
    """In the first step, inside an epoch, at its end, after the first of another, in the last."""
    models.unlearned(workspace, one)
    stop.after(step)
    with pytest.raises(Interrupted):
        models.unlearned(new_workspace, one)
    assert not new_workspace.store.has(one.model_key)
    assert new_workspace.store.unfinished(one.model_key).is_file()
    stop.after(0)
    models.unlearned(new_workspace, one)
    assert files(new_workspace, one.model_key) == files(workspace, one.model_key)
    left = [path.name for path in new_workspace.store.root.glob("*/*")]
    assert left == [one.model_key]


def test_stopped_in_every_step_each_is_walked_once(
    workspace: Workspace, new_workspace: Workspace, one: Cell, stop: Stop
) -> None:
    undisturbed = Workspace(Store(new_workspace.store.root.with_name("undisturbed")), "cpu")
    stop.after(0)
    models.unlearned(undisturbed, one)
    steps = stop.steps
    assert steps >= STEPS
    for _ in range(steps):
        stop.after(1)
        with pytest.raises(Interrupted):
            models.unlearned(new_workspace, one)
        assert stop.steps == 1
    stop.after(0)
    models.unlearned(new_workspace, one)
    assert stop.steps == 0
    assert files(new_workspace, one.model_key) == files(undisturbed, one.model_key)


# ---------------------------------------------------------------------------------------------
# Killed, which gives no signal.


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_points_it_goes_on_from_the_last_minute(
    workspace: Workspace, new_workspace: Workspace, cell: Cells, kills: int
) -> None:
    """A minute of a few milliseconds; each process is killed some time after it has written."""
    words = [*SMALL, f"train.call.epochs={10 * kills}", "train.checkpoint_minutes=0.0002"]
    one, draw = cell(*words, "method=original"), random.Random(kills)
    models.original(workspace, one)
    path, killed = new_workspace.store.unfinished(one.model_key), 0
    while killed < kills:
        before = path.stat().st_mtime_ns if path.is_file() else 0
        process = fork.Process(target=models.original, args=(new_workspace, one))
        process.start()
        while process.is_alive() and not (path.is_file() and path.stat().st_mtime_ns > before):
            time.sleep(0.001)
        process.join(draw.uniform(0, 0.03))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert not new_workspace.store.has(one.model_key), "it was done before it was killed"
    models.original(new_workspace, one)
    assert files(new_workspace, one.model_key) == files(workspace, one.model_key)
    assert [each.name for each in path.parent.iterdir()] == [one.model_key]


def test_nothing_is_written_in_less_time(
    new_workspace: Workspace, cell: Cells, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Keeper, "keep", lambda *a, **k: pytest.fail("written"))
    models.original(new_workspace, cell(*SMALL, "method=original"))
    models.original(new_workspace, cell(*SMALL, "train.checkpoint_minutes=null", "seed=1"))


# ---------------------------------------------------------------------------------------------
# What it costs and leaves.


def test_seconds_before_the_stop_count_and_those_of_writing_do_not(
    new_workspace: Workspace, cell: Cells, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, real = cell(*SMALL, "method=original"), checkpoint._write

    def slowly(*told: Any) -> None:
        real(*told)
        enough = time.process_time() + 3
        while time.process_time() < enough:
            pass

    monkeypatch.setattr(checkpoint, "_write", slowly)
    stop.after(12)
    with pytest.raises(Interrupted):
        models.original(new_workspace, one)
    keeper = Keeper(new_workspace.store.unfinished(one.model_key))
    with keeper:
        assert 0 < keeper.earlier < 2.5
    stop.after(0)
    models.original(new_workspace, one)
    assert keeper.earlier < new_workspace.store.load(one.model_key).manifest["seconds"] < 2.9


def test_a_method_begins_again(new_workspace: Workspace, cell: Cells, stop: Stop) -> None:
    """It is asked in the middle of a finetuning, and in that of a prepare step that watches."""
    for method in ("finetune", "amnesiac"):
        one = cell(*SMALL, f"method={method}", "method.call.epochs=2")
        models.original(new_workspace, one)
        stop.after(1)
        models.unlearned(new_workspace, one)
        assert checkpoint._stop_requested
        stop.after(0)


@pytest.mark.parametrize("who", ["plain", "edit", "around"])
def test_what_somebody_gathers_on_the_way_is_not_gone_on_from(
    cell: Cells, tmp_path: Path, who: str
) -> None:
    """An edit, or a context around each batch, would miss the steps before the stop."""
    one = cell(*SMALL)
    data = inputs.dataset(one)
    net, steps = inputs.fresh(one, data), list[int]()
    with Keeper(tmp_path / "x", 1e-6) as keeper:
        part = inputs.batches(one, data, torch.arange(64), "x", Hooks(keeper=keeper))
        part = part.batched(16)

        def log(_: object) -> Any:
            steps.append(1)
            return nullcontext()

        watched = part.watched(log) if who == "around" else part
        sgd = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
        edit = log if who == "edit" else None
        time.sleep(0.01)  # so that it is due from the first step on
        loop.descend(net, watched, loop.cross_entropy, sgd=sgd, epochs=2, grad_hook=edit)
    assert len(steps) == (0 if who == "plain" else 8)
    assert (tmp_path / "x").is_file() == (who == "plain")


def test_asked_between_two_trainings_the_next_one_stops(
    new_workspace: Workspace, cell: Cells, stop: Stop
) -> None:
    stop.after(0)
    checkpoint.request()
    with pytest.raises(Interrupted):
        models.original(new_workspace, cell(*SMALL, "method=original"))
    assert stop.steps == 1


def test_a_model_of_a_population_goes_on(
    workspace: Workspace, new_workspace: Workspace, cell: Cells, stop: Stop
) -> None:
    """Only its outputs are stored, and it is their making that is gone on with."""
    from unlearnbench.protocol.shadow_models import ShadowModel

    words = ["method=retrain", "attack=ulira", "attack.shadow_models.models=4"]
    shadow = ShadowModel.models(cell(*SMALL, *words))[1]
    stop.after(7)
    with pytest.raises(Interrupted):
        outputs.predict(new_workspace, shadow)
    assert new_workspace.store.unfinished(shadow.predictions_key).is_file()
    stop.after(0)
    outputs.predict(new_workspace, shadow)
    assert stop.steps < 7
    outputs.predict(workspace, shadow)
    assert files(new_workspace, shadow.predictions_key) == files(workspace, shadow.predictions_key)
    assert not new_workspace.store.unfinished(shadow.predictions_key).exists()


# ---------------------------------------------------------------------------------------------
# Files that are not to be gone on from.


@pytest.fixture
def half(new_workspace: Workspace, cell: Cells, stop: Stop) -> tuple[Workspace, Cell, Path]:
    one = cell(*SMALL, "method=original")
    stop.after(6)
    with pytest.raises(Interrupted):
        models.original(new_workspace, one)
    stop.after(0)
    return new_workspace, one, new_workspace.store.unfinished(one.model_key)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flipped,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "a users weights": lambda path: save_file(load_file(path), path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_no_beginning(
    workspace: Workspace, half: tuple[Workspace, Cell, Path], stop: Stop, damage: str
) -> None:
    new_workspace, one, path = half
    DAMAGE[damage](path)
    models.original(new_workspace, one)
    assert stop.steps == STEPS
    models.original(workspace, one)
    assert files(new_workspace, one.model_key) == files(workspace, one.model_key)


def test_another_nets_file_is_no_beginning(
    half: tuple[Workspace, Cell, Path], stop: Stop, cell: Cells, workspace: Workspace
) -> None:
    """Of a net that its user has edited since."""
    new_workspace, _, path = half
    other = cell(*SMALL, "model.call.norm=group", "method=original")
    path.rename(new_workspace.store.unfinished(other.model_key).parent.parent / "moved")
    new_workspace.store.unfinished(other.model_key).parent.mkdir(exist_ok=True)
    (new_workspace.store.root / "moved").rename(new_workspace.store.unfinished(other.model_key))
    models.original(new_workspace, other)
    assert stop.steps == STEPS
    models.original(workspace, other)
    assert files(new_workspace, other.model_key) == files(workspace, other.model_key)


def test_a_training_that_fails_leaves_no_file(
    half: tuple[Workspace, Cell, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_workspace, one, path = half

    def broken(*_: object) -> Tensor:
        raise ValueError("wrong")

    monkeypatch.setattr(loop, "cross_entropy", broken)
    with pytest.raises(ValueError, match="wrong"):
        models.original(new_workspace, one)
    assert not path.exists()


def test_one_that_lacked_memory_goes_on_where_there_is_more(
    half: tuple[Workspace, Cell, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_workspace, one, path = half

    def large(*_: object) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop, "cross_entropy", large)
    with pytest.raises(torch.OutOfMemoryError):
        models.original(new_workspace, one)
    assert path.exists()


def test_a_full_disk_does_not_stop_a_training(
    workspace: Workspace, cell: Cells, stop: Stop, tmp_path: Path
) -> None:
    """It could not be written where it is; the disk has room again when the training is over."""
    one = cell(*SMALL, "method=original")
    models.original(workspace, one)
    with full(tmp_path / "disk", "200k") as root:
        (root / "ballast").write_bytes(b"1" * 190 * 1024)
        with pytest.warns(UserWarning, match="No space left"):
            net, _ = models._trained(workspace, one, keeper=Keeper(root / "x", 1e-6))
        assert [each.name for each in root.iterdir()] == ["ballast"]
    assert same(net.state_dict(), models.original(workspace, one).state_dict())


# ---------------------------------------------------------------------------------------------
# Settings, and the walk itself.


@pytest.mark.parametrize("minutes", ["0", "-1"])
def test_minutes_that_are_none(cell: Cells, minutes: str) -> None:
    with pytest.raises(ValueError, match=r"train\.checkpoint_minutes=.* in \(0, 1e9\] or null"):
        cell("method=original", f"train.checkpoint_minutes={minutes}")


def test_minutes_are_in_no_key_and_in_no_row(cell: Cells) -> None:
    plain, other = cell(), cell("train.checkpoint_minutes=5")
    assert other.checkpoint_minutes == 5.0
    assert plain.row_keys == other.row_keys
    assert plain.model_key == other.model_key
    assert other.overrides == plain.overrides


@pytest.mark.parametrize("limit", [None, 3])
def test_a_walk_from_a_batch_on_is_the_rest_of_the_walk(cell: Cells, limit: int | None) -> None:
    one = cell(*SMALL)
    data = inputs.dataset(one)

    def part() -> Batches:
        rows = torch.arange(100)
        return replace(inputs.batches(one, data, rows, "x").batched(32), limit=limit)

    whole = [y for _, y in part()]
    for first in range(len(whole) + 1):
        rest = [y for _, y in part().epoch(first)]
        assert len(rest) == len(whole) - first
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[first:], strict=True))


@pytest.mark.tried(
    "a training stopped on a GPU, gone on with on a CPU",
    "it is begun anew: its seconds would be of two clocks",
)
@pytest.mark.parametrize(("kinds", "fits"), [(["cpu"], True), (["cpu", "cuda"], False)])
def test_a_training_goes_on_on_its_own_kind_of_device(kinds: list[str], fits: bool) -> None:
    net = torch.nn.Linear(2, 2)
    told = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    told |= {f"global.{kind}": torch.get_rng_state() for kind in kinds}
    assert checkpoint._fits(told, net, {}) == fits
