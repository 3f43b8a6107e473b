"""Inputs of a cell: its data set, batches, untrained nets, and the task of its method."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from unlearnbench.core.cell import Cell, target
from unlearnbench.core.data import Batches, Compute, Dataset, Hooks, Loss, Split
from unlearnbench.core.errors import Skip
from unlearnbench.core.seeding import generator, seeded
from unlearnbench.core.task import Task
from unlearnbench.model.linear import LOSSES
from unlearnbench.train import loop

NO_HOOKS = Hooks()

PREDICT_ROWS = 1000
"""Rows per batch in prediction. Fixed, because the last bits of a logit depend on it."""

DTYPES = {"64-true": torch.float64}
"""Type of weights and inputs, by ``precision``; float32 for any other precision."""


def dataset(cell: Cell, device: str = "cpu") -> Dataset:
    """The cell's data set, in memory; cached for later cells.

    Raises:
        ValueError, FileNotFoundError: files are missing or have wrong contents.
    """
    option = cell.dataset
    file_settings = {key: option[key] for key in ("root", "path", "fingerprint") if key in option}
    call, content = json.dumps({**option["call"], **file_settings}), option.get("content")
    dtype = DTYPES.get(cell.precision, torch.float32)
    return _dataset(call, content, option.get("limit"), device, dtype)


@lru_cache(maxsize=2)
def _dataset(
    call: str, content: str | None, limit: int | None, device: str, dtype: torch.dtype
) -> Dataset:
    # The call is JSON text, because cache keys must be hashable. A changed file has a new content
    # fingerprint and is another data set.
    load, arguments = target(json.loads(call))
    loaded = load(**arguments)
    assert isinstance(loaded, Dataset)
    return (loaded if limit is None else loaded.limited(limit)).computed_in(dtype).to(device)


def batches(
    cell: Cell,
    data: Dataset,
    rows: Tensor,
    subset: str,
    hooks: Hooks = NO_HOOKS,
) -> Batches:
    """Rows (n,) as batches, with generators of their own, seeded by the name of the subset."""
    device = data.x.device
    on_device = rows.to(device)
    return Batches(
        data=data,
        rows=on_device,
        y=data.y[on_device],
        size=PREDICT_ROWS,
        order=generator(cell.model_seed, subset, "order"),
        noise=generator(cell.model_seed, subset, "augmentation"),
        compute=Compute(str(device), cell.precision, cell.cuda_graphs),
        hooks=hooks,
    )


def fresh(cell: Cell, data: Dataset, purpose: str = "weights") -> nn.Module:
    """An untrained net on the data's device, channels last, with weights drawn by the cell's seed.

    The weights are drawn in the type of the data: rounded draws differ between processors.

    Raises:
        Skip: the model does not accept this kind of data.
    """
    kinds, model = cell.model["kinds"], cell.model["name"]
    if data.kind not in kinds:
        message = f"model={model} takes {' or '.join(kinds)} data"
        raise Skip(f"{message}; dataset={cell.dataset['name']} is {data.kind}")
    build, arguments = target(cell.model["call"])
    with seeded(cell.model_seed, purpose), by_default(data.dtype):
        net = build(data.shape, data.n_classes or 1, **arguments)
    assert isinstance(net, nn.Module)
    if (temperature := cell.train.get("temperature")) is not None:
        net.register_forward_hook(_Tempered(temperature))
    layout = torch.channels_last if data.kind == "image" else torch.preserve_format
    return net.to(device=data.x.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


@contextmanager
def by_default(dtype: torch.dtype) -> Iterator[None]:
    """Set the default type of new tensors inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class _Tempered:
    """Logits divided by T, in training and prediction; a class, so that deep copies keep it."""

    temperature: float

    def __call__(self, net: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> Tensor:
        return logits / self.temperature


def task(
    cell: Cell,
    data: Dataset,
    parts: Split,
    notes: dict[str, float] | None = None,
    prepared: Mapping[str, Tensor] | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Task:
    """The task of a method: all that it may access. Each call creates new generators.

    Args:
        cell: the cell.
        data: the whole data set, on the device.
        parts: the split.
        notes: receives the figures that the method notes.
        prepared: the state returned by the method's ``prepare`` step.
        hooks: hooks of each training on the rows.
    """
    figures: dict[str, float] = {} if notes is None else notes
    loss: Loss = loop.cross_entropy if data.n_classes else loop.squared_error
    if "loss" in cell.model["call"]:
        loss = LOSSES[cell.model["call"]["loss"]]
    fit, arguments = target(cell.train["call"])
    return Task(
        retain=batches(cell, data, parts.retain, "retain", hooks),
        forget=batches(cell, data, parts.forget, "forget", hooks),
        val=batches(cell, data, parts.val, "val", hooks),
        train=batches(cell, data, parts.train, "retain", hooks),
        n_classes=data.n_classes,
        loss=loss,
        fit=lambda model, batches: fit(model, batches, loss, **arguments),
        fresh=lambda purpose="weights": fresh(cell, data, purpose),
        generator=lambda purpose: generator(cell.model_seed, purpose),
        note=figures.__setitem__,
        prepared=prepared or {},
    )
