"""Inputs of methods and of white-box attacks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Generator, Tensor, nn

from unlearnbench.core.data import Batches, Dataset, Loss, Probe, Split, no_probe


@dataclass(frozen=True)
class Task:
    """All that a method may access. It holds no test rows, so they cannot leak.

    Attributes:
        retain: the rows to keep, not augmented.
        forget: the rows to forget, not augmented.
        val: validation rows, for methods with the trait ``uses_val``, whose paper uses them.
        train: retain and forget rows as in the training of the original, not marked:
            ``fit(fresh(), train)`` reproduces the original exactly.
        n_classes: number of classes; 0 for regression.
        loss: the loss the original was trained with, ``loss(model, x, y)``.
        fit: the original's training, ``fit(model, batches)``.
        fresh: ``fresh()`` is an untrained net with this seed's initial weights,
            ``fresh("teacher")`` another draw of them.
        generator: ``generator("labels")`` is a generator for the named purpose.
        note: ``note("acted_on", 0.005)`` adds a figure of the method to the cell's rows.
        prepared: the state returned by the method's ``prepare`` step.
        probe: reads the model at the end of each epoch of a method that has epochs of its own;
            ``descend`` calls the harness's probe. The method's result does not depend on it.
    """

    retain: Batches
    forget: Batches
    val: Batches
    train: Batches
    n_classes: int
    loss: Loss
    fit: Callable[[nn.Module, Batches], nn.Module]
    fresh: Callable[..., nn.Module]
    generator: Callable[[str], Generator]
    note: Callable[[str, float], None]
    prepared: Mapping[str, Tensor] = field(default_factory=dict)
    probe: Probe = no_probe


@dataclass(frozen=True)
class Artifact:
    """A stored model and its cost: weights, measured seconds, peak memory in bytes."""

    key: str
    state: dict[str, Tensor]
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class WhiteBox:
    """The inputs of a white-box attack, which has access to the model itself.

    Attributes:
        model: the net under attack, in eval mode, on the data's device.
        reference_classifier: an original of another seed, in eval mode. It is trained on all
            classes and is independent of the attack. For evaluation only, not for the attacker.
        data: the data set, on the device.
        split: the split of its rows.
    """

    model: nn.Module
    reference_classifier: nn.Module
    data: Dataset
    split: Split


@dataclass(frozen=True)
class Compared:
    """The inputs of an attack that compares a model with the retrained and the original model.

    Attributes:
        model: the net under attack, in eval mode, on the data's device.
        retrained: the net of the same seed, trained without the forget rows.
        original: the net of the same seed, trained with the forget rows.
        task: rows to retain and to forget, the loss, fresh nets, as for a method.
    """

    model: nn.Module
    retrained: nn.Module
    original: nn.Module
    task: Task
