"""The core types, passed from stage to stage.

Axes: N rows of a data set, n rows of a part, B rows of a batch, C channels or classes, H W image,
P values of one row, F features, M models, Q queries of one row.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

Augment = Callable[[Tensor, Generator], Tensor]
"""A batched augmentation: normalised images (B, C, H, W), generator → images of that shape."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""The mean loss of a model on one batch: ``loss(model, x, y)``, a scalar."""

Probe = Callable[[nn.Module, int], None]
"""``probe(model, epoch)`` reads a model during training: at epoch 0, the start, and after each."""


@dataclass(frozen=True)
class Compute:
    """Device and precision of computations.

    Attributes:
        device: device in torch's notation.
        precision: precision in Lightning's notation.
        cuda_graphs: whether training steps may be captured and replayed; on a GPU only.
    """

    device: str = "cpu"
    precision: str = "32-true"
    cuda_graphs: bool = True

    @property
    def replays(self) -> bool:
        """Whether training steps may be replayed as CUDA graphs here."""
        return self.cuda_graphs and self.device.startswith("cuda")


@dataclass(frozen=True)
class Dataset:
    """A complete data set in memory.

    The number of a record is its row in ``x``, in the order of the user's own file. Parts are lists
    of row numbers, so no split and no limit moves a row. In a set with one file for training and
    one for testing, the rows of the training file come first.

    Attributes:
        x: uint8 images (N, H, W, C), channels last, or standardised float32 features (N, F).
        y: int64 classes (N,), or float32 targets (N,) for regression.
        n_classes: number of classes; 0 for regression.
        kind: ``image`` or ``tabular``.
        train_rows: rows of the training (development) part, in the order in which draws count
            them. A row in neither part is unused.
        test_rows: rows of the test part.
        mean: per channel, in units of ``x``; images only.
        std: per channel, in units of ``x``; images only.
        augment: augmentation of training batches, or None.
        dtype: type of model inputs, and of values computed from them.
    """

    x: Tensor
    y: Tensor
    n_classes: int
    kind: Literal["image", "tabular"]
    train_rows: Tensor
    test_rows: Tensor
    mean: Tensor = field(default_factory=lambda: torch.zeros(1))
    std: Tensor = field(default_factory=lambda: torch.ones(1))
    augment: Augment | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        """Check the properties that later stages require.

        Raises:
            ValueError: a row is used twice or does not exist, or a shape or type is wrong.
        """
        n = len(self.y)
        if len(self.x) != n:
            raise ValueError(f"data set: {len(self.x)} inputs but {n} labels")
        rows = self.rows.sort().values
        if len(rows) and (rows[0] < 0 or rows[-1] >= n or (rows[1:] == rows[:-1]).any()):
            message = "must be in the training or in the test part, once, or left out"
            raise ValueError(f"data set: each of rows 0..{n - 1} {message}")
        if self.kind == "image" and (self.x.ndim != 4 or self.x.dtype != torch.uint8):
            raise ValueError("data set: images must be uint8 of shape (N, H, W, C)")
        if self.kind == "tabular" and (self.x.ndim != 2 or self.x.dtype != torch.float32):
            raise ValueError("data set: features must be float32 of shape (N, F)")
        if self.n_classes and (self.y.min() < 0 or self.y.max() >= self.n_classes):
            raise ValueError(f"data set: labels must lie in 0..{self.n_classes - 1}")

    @property
    def rows(self) -> Tensor:
        """The rows of both parts (n,): training rows in the order of draws, then test rows."""
        return torch.cat([self.train_rows, self.test_rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one model input: (C, H, W) or (F,)."""
        if self.kind == "tabular":
            return tuple(self.x.shape[1:])
        _, height, width, channels = self.x.shape
        return channels, height, width

    @cached_property
    def _stored(self) -> tuple[Tensor, Tensor, Tensor]:
        """The distinct values of each row (N, P), and their shift and scale (P,).

        Shift and scale are expanded to a row: a broadcast over three channels is ten times slower.
        A grey channel repeated three times (stride 0) is normalised once.
        """
        x = self.x[..., :1] if self._repeated else self.x
        channels = x.shape[-1]
        pixels = x[:1].numel() // channels
        shift_P = self.mean[:channels].expand(channels).repeat(pixels)
        scale_P = (1 / self.std[:channels]).expand(channels).repeat(pixels)
        return x.reshape(len(x), -1), shift_P.to(x.device), scale_P.to(x.device)

    @property
    def _repeated(self) -> bool:
        same = bool((self.mean == self.mean[0]).all() and (self.std == self.std[0]).all())
        return self.x.stride(-1) == 0 and same

    def inputs(self, rows_B: Tensor) -> Tensor:
        """Model inputs of some rows: normalised (B, C, H, W) in channels-last memory, or (B, F)."""
        if self.kind == "tabular":
            return self.x.index_select(0, rows_B).to(self.dtype)
        stored_NP, shift_P, scale_P = self._stored
        x_BP = stored_NP.index_select(0, rows_B).float().sub_(shift_P).mul_(scale_P).to(self.dtype)
        channels, height, width = self.shape
        x = x_BP.view(len(rows_B), height, width, -1)
        return x.expand(-1, -1, -1, channels).contiguous().permute(0, 3, 1, 2)

    def limited(self, limit: int) -> "Dataset":
        """The set with at most ``limit`` training rows, the first ones, and all test rows.

        Raises:
            ValueError: no training row is left.
        """
        if limit < 1:
            raise ValueError(f"dataset.limit={limit}: must be 1 or more")
        return self.training_on(self.train_rows[:limit])

    def training_on(self, train_rows: Tensor) -> "Dataset":
        """The set with these training rows (n,) only, and all test rows; no row is moved."""
        return replace(self, train_rows=train_rows)

    def computed_in(self, dtype: torch.dtype) -> "Dataset":
        """The same set with model inputs, and the targets of a regression, in this type."""
        return replace(self, dtype=dtype, y=self.y if self.n_classes else self.y.to(dtype))

    def to(self, device: str) -> "Dataset":
        """The same set with its tensors on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("x", "y", "mean", "std")}
        return replace(self, **moved)


@dataclass(frozen=True)
class Split:
    """Roles of rows: index tensors (n,) into the set; ``forget`` is a subset of ``train``."""

    train: Tensor
    val: Tensor
    test: Tensor
    forget: Tensor

    def __post_init__(self) -> None:
        """Check that no row has two roles.

        Raises:
            ValueError: parts overlap, or forget rows are not training rows.
        """
        parts = torch.cat([self.train, self.val, self.test])
        if len(parts.unique()) != len(parts):
            raise ValueError("split: a row stands in two of train, val and test")
        if len(self.forget.unique()) != len(self.forget):
            raise ValueError("split: a forget row stands twice")
        if not torch.isin(self.forget, self.train).all():
            raise ValueError("split: forget rows must be training rows")

    @property
    def retain(self) -> Tensor:
        """Training rows outside the forget set, in the order of ``train``."""
        return self.train[~torch.isin(self.train, self.forget)]

    def hide_forget(self) -> "Split":
        """The split for the training of the original: the same rows, without a forget set."""
        return replace(self, forget=self.forget[:0])


class Checkpoints(Protocol):
    """Checkpoints of one training; ``checkpoint.Keeper`` writes them."""

    due: bool
    """Whether the loop is to call ``keep`` after its step."""

    def begin(self, model: nn.Module, optimizer: Optimizer, **generators: Generator) -> Any:
        """Restore the state of an interrupted training, and return its place."""

    def keep(self, place: Any, **drawn: Tensor) -> None:
        """Write a checkpoint of the training at a place."""

    def end(self, place: Any) -> None:
        """End the training at a place."""


def no_probe(model: nn.Module, epoch: int) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Hooks:
    """Hooks of a training on batches. No hook changes the result of the training.

    Attributes:
        probe: reads the model at the start of training and after each epoch.
        around: for the row numbers of a batch (B,), a context that is entered before the batch is
            yielded and exited when the next batch is requested.
        keeper: writes checkpoints of a training from scratch; None writes none.
    """

    probe: Probe = no_probe
    around: Callable[[Tensor], AbstractContextManager[Any]] = nullcontext
    keeper: Checkpoints | None = None


@dataclass(frozen=True)
class Batches:
    """Batches of a part of a data set, shuffled in each epoch unless ``ordered``.

    Each object has its own generators, so an epoch over one part does not change the order of
    another part.

    Attributes:
        data: the data set, on the device.
        rows: row numbers (n,), on the device.
        y: labels (n,) of the rows, which may differ from the data set's.
        size: rows per batch; the last batch may be smaller, or larger: a remainder of fewer than a
            quarter of ``size`` rows is added to the batch before it.
        order: draws the order of each epoch.
        noise: draws the augmentation.
        compute: device and precision of the training loop.
        augmenting: whether batches are augmented as in the original's training.
        shuffled: whether the order is drawn; else it is that of ``rows``.
        limit: maximum number of batches per epoch, or None for all.
        absent: rows (k,) that are drawn among the others but not yielded, or None.
        hooks: hooks of a training on these batches.
    """

    data: Dataset
    rows: Tensor
    y: Tensor
    size: int
    order: Generator
    noise: Generator
    compute: Compute = field(default_factory=Compute)
    augmenting: bool = False
    shuffled: bool = True
    limit: int | None = None
    absent: Tensor | None = None
    hooks: Hooks = field(default_factory=Hooks)

    @property
    def sizes(self) -> list[int]:
        """Rows of each batch of an epoch; their sum is n without a ``limit``.

        Batch norm computes its statistics from the batch: for a few rows they are noise, and for
        one row undefined. Such a last batch destroys a net in training (``tests/test_train.py``).
        """
        full, rest = divmod(len(self.rows), self.size)
        sizes = [self.size] * full
        if full and rest < self.size / 4:
            sizes[-1] += rest
        elif rest:
            sizes.append(rest)
        return sizes[: self.limit]

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over the rows: pairs (x, y)."""
        return self.epoch()

    def epoch(self, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the rows from batch ``first`` on; earlier batches are not read.

        Args:
            first: number of batches to skip. The order is drawn again; the noise of the skipped
                batches is not.
        """
        n = len(self.rows)
        order = torch.randperm(n, generator=self.order) if self.shuffled else torch.arange(n)
        augment = self.data.augment if self.augmenting else None
        taken = order[: sum(self.sizes)].to(self.rows.device)
        for chosen_B in taken.split(self.sizes)[first:]:
            rows_B = self.rows[chosen_B]
            x = self.data.inputs(rows_B)
            if augment is not None:
                x = augment(x, self.noise)
            if self.absent is not None:
                here_B = ~torch.isin(rows_B, self.absent)
                x, rows_B, chosen_B = (tensor[here_B] for tensor in (x, rows_B, chosen_B))
                if not len(rows_B):
                    continue
            with self.hooks.around(rows_B):
                yield x, self.y[chosen_B]

    def endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate without end, in a new order in each epoch.

        Raises:
            ValueError: there are no rows.
        """
        if not len(self.rows):
            raise ValueError("an empty part has no batches to walk over")
        while True:
            yield from self

    def batched(self, size: int) -> "Batches":
        """The same rows in batches of another size."""
        return replace(self, size=size)

    def augmented(self) -> "Batches":
        """The same rows, augmented as in the original's training."""
        return replace(self, augmenting=True)

    def ordered(self) -> "Batches":
        """The same rows, iterated in their own order."""
        return replace(self, shuffled=False)

    def lacking(self, rows: Tensor) -> "Batches":
        """The same epochs without these rows (k,): all draws are as with them."""
        return replace(self, absent=rows.to(self.rows.device))

    def limited(self, batches: int) -> "Batches":
        """The same rows, with at most ``batches`` batches per epoch."""
        return replace(self, limit=batches)

    def watched(self, around: Callable[[Tensor], AbstractContextManager[Any]]) -> "Batches":
        """The same rows, with a context around the processing of each batch."""
        return replace(self, hooks=replace(self.hooks, around=around))

    def chosen(self, places: Tensor) -> "Batches":
        """Some of the rows, by their places (k,); order and batch size are unchanged."""
        places = places.to(self.rows.device)
        return replace(self, rows=self.rows[places], y=self.y[places])

    def relabelled(self, y: Tensor) -> "Batches":
        """The same rows with other labels (n,)."""
        return replace(self, y=y.to(self.y.device))

    def joined(self, other: "Batches") -> "Batches":
        """These rows and those of another part; order and batch size are those of this part."""
        rows, y = torch.cat([self.rows, other.rows]), torch.cat([self.y, other.y])
        return replace(self, rows=rows, y=y)
