"""What every method gives stays what it gave, within what another torch or processor changes.

    python tests/method/test_golden.py

records the figures anew, which a method whose ``version`` went up needs.
"""

import json
from pathlib import Path

import pytest
import torch
from cells import composed
from torch import nn

from unlearnbench import check, config, pipeline
from unlearnbench.check import Subject

PATH = Path(__file__).with_name("golden.json")
GOLDEN = json.loads(PATH.read_text()) if PATH.is_file() else {}
SLOW = {"cfw_as_run"}  # on a ResNet18
METHODS = [name for name in config.options("method") if name != "original"]


@torch.no_grad()
def figures(subject: Subject, net: nn.Module) -> dict[str, float]:
    """Mean confidence in the labels of each part, and the length of all weights."""
    todo = pipeline.task(subject.cell, subject.data, subject.parts)
    told = {}
    for name in ("retain", "forget", "val"):
        part = getattr(todo, name)
        sums = [net(x).softmax(1).gather(1, y[:, None]).sum() for x, y in part.ordered()]
        told[name] = float(sum(sums)) / len(part.rows)
    told["norm"] = float(torch.cat([p.flatten() for p in net.parameters()]).norm())
    return {key: round(value, 5) for key, value in told.items()}


def found(name: str) -> tuple[int, dict[str, float]]:
    cell = composed(f"method={name}")
    subject = check.subject(cell.method)
    return cell.method["version"], figures(subject, subject.result)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in METHODS]
)
def test_golden(name: str) -> None:
    version, told = found(name)
    assert GOLDEN[name]["version"] == version, "its version changed: record the figures anew"
    for key, value in GOLDEN[name]["figures"].items():
        tolerance = 1e-2 * value if key == "norm" else 2e-2
        assert told[key] == pytest.approx(value, abs=tolerance), key


def test_every_figure_is_of_a_method_that_is_there() -> None:
    assert sorted(GOLDEN) == METHODS


if __name__ == "__main__":
    recorded = {}
    for method in METHODS:
        number, values = found(method)
        recorded[method] = {"version": number, "figures": values}
    PATH.write_text(json.dumps(recorded, indent=1) + "\n")
