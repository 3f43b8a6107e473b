"""How far each method is from the threshold of the property "less sure", by seed.

    python scripts/margins.py [--seeds 0 1 2] [method ...]
    make margins

The second form prints them under each of three instruction sets.

A figure is the share of retraining's change of confidence that a method brings about; it passes
from ``check.LESS_SURE`` on. The methods named by default are those that come nearest to it, and
``inert``, which adds noise of 1e-7 to each weight and must fail. One seed of one method takes 4 s,
and 25 s before the first.
"""

import argparse
import sys
from typing import Any

import torch
from torch import nn

from unlearnbench.check import properties
from unlearnbench.check.subject import memorised, subject_of
from unlearnbench.config import compose
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops

NEAREST = ("gradient_ascent", "influence_as_run", "cf_k", "inert")


def inert(model: nn.Module, task: Task) -> nn.Module:
    """A method without effect."""
    ops.shake(list(model.parameters()), 1e-7, task.generator("noise"))
    return model.eval()


def option(name: str) -> Any:
    """The settings of a method, or of ``inert``."""
    if name == "inert":
        return {"name": name, "version": 0, "call": {"_target_": f"{__name__}.inert"}}
    (cell,) = compose.cells([["attack=none", f"method={name}"]])
    return cell.method


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=NEAREST)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(
        f"{torch.backends.cpu.get_cpu_capability()}, passes from {properties.LESS_SURE}\n"
    )
    for name in arguments.methods:
        subject = subject_of(option(name))
        shares = []
        for seed in arguments.seeds:
            before, after, target = memorised(subject, seed)
            shares.append((before - after) / (before - target))
        sys.stdout.write(f"{name:24}" + "".join(f"{share:9.5f}" for share in shares) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
