"""What every method makes of a trained net stays what it was: its figures, and its bits.

    python tests/method/test_golden.py [method ...]

records all methods anew, or those named (a second or two each, on a ResNet18 a minute), which a
method whose ``version`` went up needs. Everything is computed in float64, so that the figures are
the same on any processor to ``TOLERANCE``; ``make isa`` tries older instructions. The bits are
compared where torch and the processor are those that they were recorded with, and nowhere else.
"""

import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from unlearnbench.config import compose, validate
from unlearnbench.core.cell import Cell
from unlearnbench.pipeline import inputs, models
from unlearnbench.pipeline.split import split_of
from unlearnbench.pipeline.workspace import Workspace
from unlearnbench.store.artifacts import Store

PATH = Path(__file__).with_name("golden.json")
GOLDEN: dict[str, dict[str, Any]] = json.loads(PATH.read_text()) if PATH.is_file() else {}
METHODS = [name for name in validate.options("method") if name != "original"]
TOLERANCE = 1e-4
APART = 10 * TOLERANCE
"""What two methods differ by at least in one of their figures."""

TWINS = {
    frozenset({"sisa", "sisa_retrain"}): "forget rows in every shard: all are trained anew",
}
"""Methods that agree in all figures, and why."""

TRAINED = ("precision=64-true", "dataset.limit=400", "train.call.epochs=20")
SCRUB = ("method.call.sgd.lr=0.02", "method.call.batch_size.forget=16")
WORDS: dict[str, tuple[str, ...]] = {
    "unsir": ("forget=by_class",),  # it forgets nothing else
    "cfw_as_run": ("model=resnet18", "train.call.epochs=5"),  # it acts on no net without a stem
    "bad_teacher_as_run": ("method.call.epochs=2",),  # its teacher is a ResNet18: a second each
    # Conjugate gradients that have not converged multiply rounding by 1e10: these have.
    "influence": (
        "method.call.rows=64",
        "method.call.damping=1.0",
        "method.call.residual=1e-8",
        "method.call.alpha=10.0",
    ),
    # At their defaults these hardly move this net, or are back at its start:
    "gradient_ascent": ("method.call.sgd.lr=0.1",),
    "influence_as_run": ("method.call.alpha=10.0",),
    **dict.fromkeys(("scrub_as_run", "scrub_no_rewind"), SCRUB),
    "scrub": ("train.call.epochs=3", *SCRUB),  # of a net without errors it goes back to the start
}
"""What a method's cell has beside ``TRAINED``."""

SLOW = {"cfw_as_run"}


@cache
def cells() -> dict[str, Cell]:
    """The cell of each method."""
    rest = ("attack=none", *TRAINED)
    grid = [[f"method={name}", *rest, *WORDS.get(name, ())] for name in METHODS]
    return dict(zip(METHODS, compose.cells(grid), strict=True))


@torch.no_grad()
def figures(cell: Cell, original: nn.Module, net: nn.Module) -> dict[str, float]:
    """Of each part the mean confidence in its labels; lengths of weights, changes and buffers."""
    data = inputs.dataset(cell)
    task = inputs.task(cell, data, split_of(cell, data))
    values = {}
    for name in ("retain", "forget", "val"):
        part = getattr(task, name)
        sums = [net(x).softmax(1).gather(1, y[:, None]).sum() for x, y in part.ordered()]
        values[name] = float(sum(sums)) / len(part.rows)
    values["norm"] = length(net.parameters())
    values["buffers"] = length(b for b in net.buffers() if b.is_floating_point())
    pairs = zip(net.parameters(), original.parameters(), strict=False)  # of an ensemble: one net's
    values["moved"] = length(p - before for p, before in pairs if p.shape == before.shape)
    return {name: round(value, 6) for name, value in values.items()}


def tolerance(value: float) -> float:
    """``TOLERANCE``, of small figures in relation to them, and what they are rounded to."""
    return TOLERANCE * min(1.0, abs(value)) + 1e-6


def length(tensors: Any) -> float:
    return float(torch.cat([t.flatten() for t in tensors] or [torch.zeros(1)]).norm())


def bits(state: dict[str, Tensor]) -> str:
    """A hash of all tensors of a state, of their names and types."""
    whole = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def environment() -> str:
    """A hash of what last bits depend on: libraries, processor, and what chooses its kernels."""
    chosen = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if re.match("ATEN_CPU|ONEDNN_|DNNL_|MKL_[EC]|OPENBLAS_CORE|NPY_|GLIBC_TUNABLES", name)
    )
    cpu = Path("/proc/cpuinfo")
    first = cpu.read_text().split("\n\n")[0] if cpu.is_file() else ""
    parts = re.findall(r"^(?:vendor_id|cpu family|model|stepping|cache size|flags).*", first, re.M)
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    sizes = [path.read_text() for path in caches]
    versions = torch.__version__, torch.__config__.show(), np.__version__, scipy.__version__
    capability = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    everything = versions, capability, platform.libc_ver(), platform.machine(), parts, sizes, chosen
    return hashlib.sha256(repr(everything).encode()).hexdigest()[:16]


def recorded(workspace: Workspace, name: str) -> dict[str, Any]:
    """What ``golden.json`` says of a method, computed here."""
    cell = cells()[name]
    original, net = models.original(workspace, cell), models.unlearned(workspace, cell)
    return {
        "version": cell.method["version"],
        "figures": figures(cell, original, net),
        "bits": bits(net.state_dict()),
        "environment": environment(),
    }


@pytest.mark.tried(
    "a method that computes something else by a little more than rounding",
    "its figures on a trained net are off by more than 1e-4, on any processor",
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in METHODS]
)
def test_golden(workspace: Workspace, name: str) -> None:
    golden, here = GOLDEN[name], recorded(workspace, name)
    assert golden["version"] == here["version"], "its version changed: record the figures anew"
    for figure, value in golden["figures"].items():
        assert here["figures"][figure] == pytest.approx(value, abs=tolerance(value)), figure
    if golden["environment"] == here["environment"]:
        assert golden["bits"] == here["bits"], "the same figures, but other bits"


def test_the_net_is_trained(workspace: Workspace) -> None:
    cell = cells()["finetune"]
    data = inputs.dataset(cell)
    task = inputs.task(cell, data, split_of(cell, data).hide_forget())
    net = models.original(workspace, cell)
    for part, least in ((task.retain, 0.999), (task.val, 0.9)):
        ((x, y),) = part.ordered()
        with torch.no_grad():
            assert float((net(x).argmax(1) == y).double().mean()) >= least


@pytest.mark.tried(
    "a method that is exchanged for another",
    "no two methods agree in all figures, save declared twins",
)
def test_no_two_methods_agree() -> None:
    alike = set()
    for pair in combinations(sorted(GOLDEN), 2):
        one, other = (GOLDEN[name]["figures"] for name in pair)
        if max(abs(one[figure] - other[figure]) for figure in one) < APART:
            alike.add(frozenset(pair))
    assert alike == set(TWINS)


def test_every_method_moves_the_net() -> None:
    still = {name for name in GOLDEN if GOLDEN[name]["figures"]["moved"] < APART}
    assert not still


def test_every_figure_is_of_a_method_that_is_there() -> None:
    assert sorted(GOLDEN) == METHODS


def test_other_bits_are_no_failure_in_another_environment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = recorded(workspace, "finetune")
    monkeypatch.setitem(GOLDEN, "finetune", {**here, "bits": "others"})
    with pytest.raises(AssertionError, match="other bits"):
        test_golden(workspace, "finetune")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX")
    test_golden(workspace, "finetune")


def record(names: list[str]) -> None:
    """Write the figures of these methods anew, and drop methods that are no more."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Store(Path(folder)), "cpu")
        for name in names:
            GOLDEN[name] = recorded(workspace, name)
            sys.stdout.write(f"{name}: {GOLDEN[name]['figures']}\n")
    golden = {name: GOLDEN[name] for name in METHODS if name in GOLDEN}
    PATH.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the tests
    with threadpool_limits(1):
        record(sys.argv[1:] or METHODS)
