"""Functions shared by several methods: teachers, distances of outputs, rows, layers.

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
    """Return a teacher: a copy without shared weights, in eval mode, without gradients."""
    return deepcopy(model).eval().requires_grad_(False)


def kl(teacher_BC: Tensor, student_BC: Tensor, temperature: float) -> Tensor:
    """KL( softmax(t/T) ‖ softmax(s/T) ) of two batches of logits (B, C), a mean over rows."""
    t_BC, s_BC = ((logits / temperature).log_softmax(1) for logits in (teacher_BC, student_BC))
    return F.kl_div(s_BC, t_BC, reduction="batchmean", log_target=True)


def entropy(logits_BC: Tensor) -> Tensor:
    """Entropy of each row's posterior (B,), in nats."""
    log_p_BC = logits_BC.log_softmax(1)
    return -(log_p_BC.exp() * log_p_BC).sum(1)


def class_counts(batches: Batches, n_classes: int) -> Tensor:
    """Number of rows of each class (C,), in the dtype of the data, at least 1 as a divisor."""
    return batches.y.bincount(minlength=n_classes).clamp(min=1).to(batches.data.dtype)


@torch.no_grad()
def error(model: nn.Module, batches: Batches) -> float:
    """Share of the rows that a model misclassifies."""
    model.eval()
    wrong = [(model(x).argmax(1) != y).sum() for x, y in batches.batched(1000).ordered()]
    return float(sum(wrong)) / len(batches.rows)


def marked(task: Task) -> Batches:
    """Join retain and forget rows; the label is whether a row is a forget row."""
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

    If k exceeds the number of stages, the result has all of them and the stem.
    """
    last_stages = tensors(net)[-k - 1 :]
    return {name: tensor for stage in last_stages for name, tensor in stage.items()}


def blocks(net: nn.Module) -> int:
    """Number of stages between stem and head; in a net with attention, of those with attention."""
    between = stages(net)[1:-1]
    attentive = [
        stage
        for stage in between
        if any("Attention" in type(m).__name__ for module in stage for m in module.modules())
    ]
    return len(attentive or between)


def head(net: nn.Module) -> list[nn.Module]:
    """The modules of the last stage."""
    return stages(net)[-1]


def stem_convolutions(net: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of the stem.

    These are the convolutions of the first stage (one in a ResNet, two in the patch embedding of a
    TinyViT), or the first convolution of the net if its first stage has none.
    """
    stem = [conv for module in stages(net)[0] for conv in convolutions(module)]
    return stem or convolutions(net)[:1]


def ends(net: nn.Module) -> list[nn.Module]:
    """The convolutions of the stem, and the modules of the head."""
    return [*stem_convolutions(net), *head(net)]


def classifier(net: nn.Module, n_classes: int) -> list[Tensor]:
    """Parameters of the last layer of the head whose first axis is the class axis.

    A hidden layer of the same width is not included. A head of several modules (a distilled net has
    two classifiers) has one such layer in each.
    """
    parameters: list[Tensor] = []
    for module in head(net):
        wide = [
            layer
            for layer in module.modules()
            if isinstance(weight := getattr(layer, "weight", None), Tensor)
            and weight.shape[:1] == (n_classes,)
        ]
        parameters += [
            parameter for layer in wide[-1:] for parameter in layer.parameters(recurse=False)
        ]
    return parameters


@contextmanager
def only(net: nn.Module, movable: Iterable[Tensor]) -> Iterator[list[nn.Parameter]]:
    """Enable gradients of these parameters alone inside the block; yields them as a list."""
    movable_ids = {id(tensor) for tensor in movable}
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in movable_ids)
    try:
        yield [parameter for parameter in net.parameters() if parameter.requires_grad]
    finally:
        net.requires_grad_(True)


def reset(modules: Iterable[nn.Module], generator: Generator) -> None:
    """Reset layers with their default initialisers; batch norm resets its running statistics."""
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
    """Draws of RNI: the tensors trained in an epoch, with noise on those drawn for the first time.

    If a net has at most ``chosen`` tensors, an epoch draws half of them: once all tensors are
    drawn, none gets noise.

    Args:
        model: net whose tensors are drawn, and changed in place.
        norms: tensors that are not drawn.
        task: task with the generators.
        chosen: number of tensors drawn in an epoch.
        noise_ratio: share of the drawn tensors that get noise.
        std: standard deviation of the noise.
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
        """Draw the tensors of the next epoch and add noise to a share of them if ``noisy``."""
        order = torch.randperm(len(self.tensors), generator=self.draw)[: self.chosen].tolist()
        if noisy:
            fresh = set(order[: int(self.noise_ratio * len(order))]) - self.drawn
            shake([self.tensors[i] for i in sorted(fresh)], self.std, self.noise)
        self.drawn |= set(order)
        return [self.tensors[i] for i in order]


def note_acted_on(task: Task, net: nn.Module, parameters: Iterable[Tensor]) -> None:
    """Record the share of the parameters that a method acts on in the rows of the cell."""
    total = sum(parameter.numel() for parameter in net.parameters())
    task.note("acted_on", sum(parameter.numel() for parameter in parameters) / total)
