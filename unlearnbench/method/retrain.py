"""R, retraining: a fresh net on the retain rows, what every method is held to."""

from torch import nn

from unlearnbench.core.task import Task


def retrain(model: nn.Module, task: Task) -> nn.Module:
    """Train a fresh net on the retain rows, exactly as the original was trained on all of them.

        θ_R = train(θ_init(seed), D_R)

    ``model`` is that fresh net: the method is ``from_scratch``, and starts from the same initial
    weights as the original. Deep Unlearn (arXiv 2410.01276), "R".
    """
    return task.fit(model, task.retain)
