"""What methods and white-box attacks get."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Generator, Tensor, nn

from unlearnbench.core.data import Batches, Dataset, Loss, Probe, Split, no_probe


@dataclass(frozen=True)
class Task:
    """All that a method may touch. There are no test rows in it: they cannot leak.

    Attributes:
        retain: the rows to keep, not augmented.
        forget: the rows to forget, not augmented.
        val: validation rows, for the methods whose paper uses them; they have a trait that says so.
        train: retain and forget rows as the original's training saw them, neither marked:
            ``fit(fresh(), train)`` is the original again, to the bit.
        n_classes: number of classes; 0 for regression.
        loss: the loss the original was trained with, ``loss(model, x, y)``.
        fit: the original's training, ``fit(model, batches)``.
        fresh: ``fresh()`` is an untrained net with this seed's initial weights,
            ``fresh("teacher")`` another draw of them.
        generator: ``generator("labels")`` draws for the purpose it names.
        note: ``note("acted_on", 0.005)`` puts a figure of the method's own in the cell's rows.
        prepared: what the method's ``prepare`` step left.
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
    """A model and how it came to be: weights, seconds inside the clock, peak memory in bytes."""

    key: str
    state: dict[str, Tensor]
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class WhiteBox:
    """What an attack gets that holds the model itself, and not its outputs alone.

    Attributes:
        model: the net under attack, in eval mode, on the data's device.
        judge: an original of another seed, in eval mode: it knows all classes, and what the attack
            finds was not made to please it. To measure by, not for the attacker.
        data: the data set, on the device.
        split: which of its rows do what.
    """

    model: nn.Module
    reference_classifier: nn.Module
    data: Dataset
    split: Split


@dataclass(frozen=True)
class Compared:
    """What an attack gets that holds the model beside those it is to be like and unlike.

    Attributes:
        model: the net under attack, in eval mode, on the data's device.
        retrained: the same seed's, trained without the forget rows.
        original: the same seed's, trained with them.
        task: rows to retain and to forget, the loss, fresh nets, as a method gets them.
    """

    model: nn.Module
    retrained: nn.Module
    original: nn.Module
    task: Task
