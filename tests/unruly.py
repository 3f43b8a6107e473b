"""Trainings, methods and attacks that a sweep must survive or account for, to be `_target_`s."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlearnbench.core.data import Batches, Loss
from unlearnbench.core.outputs import Predictions, Scores
from unlearnbench.core.task import Task
from unlearnbench.train.default import fit


def calm() -> bool:
    return os.environ.get("UNRULY") == "calm"


def counted_fit(model: nn.Module, batches: Batches, loss: Loss, **arguments: Any) -> nn.Module:
    """Train, and add a line about the initial weights to the file UNRULY_LOG names."""
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    rows = batches.rows.numpy().tobytes()
    line = hashlib.sha256(weights + rows).hexdigest() + "\n"
    log = os.open(os.environ["UNRULY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line.encode())
    os.close(log)
    time.sleep(0.3)  # so that whoever else wants it comes meanwhile
    return fit(model, batches, loss, **arguments)


def gated_fit(model: nn.Module, batches: Batches, loss: Loss, **arguments: Any) -> nn.Module:
    """Train, once let through the gate that UNRULY_GATE names; say in UNRULY_LOG who wants to."""
    if log := os.environ.get("UNRULY_LOG"):
        weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
        what = hashlib.sha256(weights + batches.rows.numpy().tobytes()).hexdigest()
        line = f"{what} {os.getpid()} {os.environ.get('SLURM_JOB_ID')}\n"
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)
    while (gate := os.environ.get("UNRULY_GATE")) and not let_through(gate):
        time.sleep(0.05)
    return fit(model, batches, loss, **arguments)


def let_through(gate: str) -> bool:
    """Whether one of as many passes as the file says is left: each is a file that one may make."""
    try:
        with open(gate) as told:
            passes = int(told.read() or 0)
    except FileNotFoundError:
        return False
    for number in range(passes):
        try:
            os.close(os.open(f"{gate}.{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return True
    return False


def stepping_fit(model: nn.Module, batches: Batches, loss: Loss, **arguments: Any) -> nn.Module:
    """Train slowly, with a line in UNRULY_LOG after each step: initial weights and batch order."""
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    what = hashlib.sha256(weights + batches.rows.numpy().tobytes()).hexdigest()

    def stepped(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with open(os.environ["UNRULY_LOG"], "a") as log:
            log.write(f"{what}\n")
        time.sleep(0.01)
        return loss(model, x, y)

    return fit(model, batches, stepped if "UNRULY_LOG" in os.environ else loss, **arguments)


def endless_fit(model: nn.Module, batches: Batches, loss: Loss, **arguments: Any) -> nn.Module:
    """Train for an hour."""
    with open(os.environ["UNRULY_LOG"], "a") as log:
        log.write("began\n")
    time.sleep(3600)
    return model


def dropping(shape: Sequence[int], n_classes: int, *, norm: str) -> nn.Module:
    """A small net with all that draws or remembers: dropout, batch norm, momentum by channels."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8) if norm == "batch" else nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Dropout2d(0.2),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4 * shape[1] * shape[2], n_classes),
    )


def raising(model: nn.Module, task: Task, *, strength: float) -> nn.Module:
    if not calm():
        raise KeyError("on\npurpose")
    return model


def not_finite(model: nn.Module, task: Task, *, strength: float) -> nn.Module:
    with torch.no_grad():
        for value in model.parameters() if not calm() else ():
            value.mul_(float("nan"))
    return model


def dying(model: nn.Module, task: Task, *, strength: float) -> nn.Module:
    if not calm():
        os.kill(os.getpid(), signal.SIGKILL)
    return model


def exiting(model: nn.Module, task: Task, *, strength: float) -> nn.Module:
    if not calm():
        sys.exit("on purpose")
    return model


class Mute(Exception):
    """An error whose text cannot be had, and which cannot be pickled."""

    def __init__(self) -> None:
        self.about = lambda: None

    def __str__(self) -> str:
        raise self


def mute(model: nn.Module, task: Task, *, strength: float) -> nn.Module:
    if not calm():
        os.write(2, b"\xff\xfe no UTF-8\n")
        raise Mute
    return model


def dying_attack(predictions: Predictions) -> Scores:
    """Kill the process at retrained models; find nothing in others."""
    if predictions.kind_M == ("retrained",) and not calm():
        os.kill(os.getpid(), signal.SIGKILL)
    nobody = np.zeros(0)
    return Scores({"auc": (0.5, 1)}, [], nobody.astype(int), nobody.astype(bool), nobody)


def shrunk(model: nn.Module, task: Task, *, strength: float) -> nn.Module:
    """A user's own method: every weight times (1 − strength)."""

    def shrink(value: Tensor) -> None:
        value.mul_(1 - strength)

    with torch.no_grad():
        for value in model.parameters():
            shrink(value)
    return model.eval()


def off(model: nn.Module, task: Task, *, strength: float, steps: int) -> nn.Module:
    """The original while the strength is within a quarter of 0.6, else wrong about everything.

    Each call adds a line to the file UNRULY_LOG names. After UNRULY_AFTER lines it waits for the
    file UNRULY_GATE. A strength below UNRULY_RAISES raises.
    """
    if path := os.environ.get("UNRULY_LOG"):
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(log, f"{strength} {steps}\n".encode())
        os.close(log)
        after = int(os.environ.get("UNRULY_AFTER", "1000000"))
        with open(path) as lines:
            full = len(lines.readlines()) >= after
        while full and not os.path.exists(os.environ["UNRULY_GATE"]):
            time.sleep(0.02)
    if strength < float(os.environ.get("UNRULY_RAISES", "-inf")):
        raise KeyError("on purpose")
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(1 - 4 * abs(strength - 0.6))
    return model.eval()
