"""What two or more methods share: teachers, distances of outputs, rows, layers.

Axes: B rows of a batch, C classes.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from unlearnbench.core.data import Batches
from unlearnbench.core.seeding import seeded
from unlearnbench.core.task import Task
from unlearnbench.model.stages import stages, tensors


def frozen(model: nn.Module) -> nn.Module:
    """A teacher: a copy that shares no weight with the model, in eval mode, without gradients."""
    return deepcopy(model).eval().requires_grad_(False)


def kl(teacher_BC: Tensor, student_BC: Tensor, temperature: float) -> Tensor:
    """KL( softmax(t/T) ‖ softmax(s/T) ) of two batches of logits, mean over rows, a scalar."""
    t_BC, s_BC = ((logits / temperature).log_softmax(1) for logits in (teacher_BC, student_BC))
    return F.kl_div(s_BC, t_BC, reduction="batchmean", log_target=True)


def entropy(logits_BC: Tensor) -> Tensor:
    """Entropy of each row's posterior (B,), in nats."""
    log_p_BC = logits_BC.log_softmax(1)
    return -(log_p_BC.exp() * log_p_BC).sum(1)


def class_counts(batches: Batches, n_classes: int) -> Tensor:
    """Rows of each class (C,), in the data's type, at least 1 so that it can be divided by."""
    return batches.y.bincount(minlength=n_classes).clamp(min=1).to(batches.data.dtype)


@torch.no_grad()
def error(model: nn.Module, batches: Batches) -> float:
    """Share of the rows that a model calls by a wrong class."""
    model.eval()
    wrong = [(model(x).argmax(1) != y).sum() for x, y in batches.batched(1000).ordered()]
    return float(sum(wrong)) / len(batches.rows)


def marked(task: Task) -> Batches:
    """Retain and forget rows as one, in place of their labels whether a row is to be forgotten."""
    no, yes = torch.zeros_like(task.retain.y).bool(), torch.ones_like(task.forget.y).bool()
    return task.retain.relabelled(no).joined(task.forget.relabelled(yes))


def convolutions(net: nn.Module) -> list[nn.Conv2d]:
    """All 2-d convolutions, in order."""
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)]


def norms(net: nn.Module) -> list[nn.Parameter]:
    """Weights and biases of normalisations: batch, layer, group."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    return [p for m in net.modules() if isinstance(m, kinds) for p in m.parameters(recurse=False)]


def top_convolutions(net: nn.Module) -> list[nn.Conv2d]:
    """Convolutions that are children of the net itself and have "conv" in their name."""
    children = net.named_children()
    return [child for name, child in children if "conv" in name and isinstance(child, nn.Conv2d)]


def tail(net: nn.Module, k: int) -> dict[str, Tensor]:
    """Parameters and buffers of the head and the k stages before it, by name.

    Where k exceeds the number of stages it is all of them, and the stem too.
    """
    kept = tensors(net)[-k - 1 :]
    return {name: tensor for stage in kept for name, tensor in stage.items()}


def blocks(net: nn.Module) -> int:
    """How many stages lie between stem and head; of a net with attention, those that have some."""
    between = stages(net)[1:-1]
    attentive = [
        stage
        for stage in between
        if any("Attention" in type(part).__name__ for module in stage for part in module.modules())
    ]
    return len(attentive or between)


def head(net: nn.Module) -> list[nn.Module]:
    """The modules of the last stage."""
    return stages(net)[-1]


def stem_convolutions(net: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of the stem: what an image meets first.

    They are those of the net's first stage (one in a ResNet, two in the patch embedding of a
    TinyViT). Of a net whose first stage has none it is the net's first convolution.
    """
    stem = [conv for module in stages(net)[0] for conv in convolutions(module)]
    return stem or convolutions(net)[:1]


def ends(net: nn.Module) -> list[nn.Module]:
    """The convolutions of the stem, and the modules of the head."""
    return [*stem_convolutions(net), *head(net)]


def classifier(net: nn.Module, n_classes: int) -> list[Tensor]:
    """The parameters whose first axis is that of classes: those of the last layer of the head.

    A hidden layer that happens to be as wide as there are classes is none of them. A head of
    several modules (a distilled net has two classifiers) has one such layer in each.
    """
    found: list[Tensor] = []
    for module in head(net):
        wide = [
            layer
            for layer in module.modules()
            if isinstance(weight := getattr(layer, "weight", None), Tensor)
            and weight.shape[:1] == (n_classes,)
        ]
        found += [parameter for layer in wide[-1:] for parameter in layer.parameters(recurse=False)]
    return found


@contextmanager
def only(net: nn.Module, movable: Iterable[Tensor]) -> Iterator[list[nn.Parameter]]:
    """Inside the block no parameter has a gradient but these, which are given back as a list."""
    kept = {id(tensor) for tensor in movable}
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    try:
        yield [parameter for parameter in net.parameters() if parameter.requires_grad]
    finally:
        net.requires_grad_(True)


def reset(modules: Iterable[nn.Module], generator: Generator) -> None:
    """Give layers new weights by their own default initialisers; batch norm forgets its counts."""
    with seeded(generator.initial_seed()):
        for module in modules:
            for layer in module.modules():
                if hasattr(layer, "reset_parameters"):
                    cast(Any, layer).reset_parameters()


def normal(like: Tensor, generator: Generator) -> Tensor:
    """Standard normal draws in the shape of a tensor, on its device."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like)


@torch.no_grad()
def shake(weights: Iterable[Tensor], std: float, generator: Generator) -> None:
    """Add normal noise of a standard deviation to weights."""
    for W in weights:
        W.add_(std * normal(W, generator))


class Injection:
    """RNI's draws: which tensors move in an epoch, and noise for those drawn for the first time.

    A net of no more tensors than an epoch may draw has half of them drawn: once all are drawn, none
    gets noise.

    Args:
        model: whose tensors are drawn, and changed in place.
        norms: those of them that are not drawn.
        task: its generators.
        chosen: how many an epoch draws.
        noise_ratio: share of the draw that gets noise.
        std: of the noise.
    """

    def __init__(
        self,
        model: nn.Module,
        norms: Iterable[Tensor],
        task: Task,
        chosen: int,
        noise_ratio: float,
        std: float,
    ) -> None:
        passed = {id(tensor) for tensor in norms}
        self.tensors = [tensor for tensor in model.parameters() if id(tensor) not in passed]
        count = len(self.tensors)
        self.chosen = chosen if count > chosen else (count + 1) // 2
        self.noise_ratio, self.std = noise_ratio, std
        self.draw, self.noise = task.generator("tensors"), task.generator("noise")
        self.drawn: set[int] = set()

    def __call__(self, *, noisy: bool) -> list[Tensor]:
        """The tensors of the next epoch, with noise where they get some."""
        order = torch.randperm(len(self.tensors), generator=self.draw)[: self.chosen].tolist()
        if noisy:
            fresh = set(order[: int(self.noise_ratio * len(order))]) - self.drawn
            shake([self.tensors[i] for i in sorted(fresh)], self.std, self.noise)
        self.drawn |= set(order)
        return [self.tensors[i] for i in order]


def note_acted_on(task: Task, net: nn.Module, parameters: Iterable[Tensor]) -> None:
    """Put the share of the net's parameters that a method acts on in the cell's rows."""
    total = sum(parameter.numel() for parameter in net.parameters())
    task.note("acted_on", sum(parameter.numel() for parameter in parameters) / total)
