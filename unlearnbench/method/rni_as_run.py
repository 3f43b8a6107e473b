"""RNI as its authors' benchmark runs it: norms are known by their name, phases are counted."""

from collections.abc import Mapping

from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.method.rni import CHOSEN
from unlearnbench.train.loop import descend


def rni_as_run(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    fine_sgd: Mapping[str, float],
    epochs: int,
    quiet_epochs: int,
    fine_epochs: int,
    batch_size: int,
    noise_ratio: float,
    origin_noise: float,
) -> nn.Module:
    """Reset the head, then train a few tensors at a time, some of them with noise, at last all.

        head  ←  a new draw of its initialiser
        in epoch e < E − E_f:   S = 9 drawn of those without "bn" in their name, and all with it
            if e ≥ E_q:   W ← W + σ · N(0, 1) for ⌊9ρ⌋ of the 9, but for none drawn before
        in the E_f last:        S = all
        S ← one epoch of CE on D_R with new momentum

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "RNI".

    Differs from ``rni``: a norm without "bn" in its name (that of a ResNet18's short cuts, a layer
    norm) is drawn and gets noise as other tensors do; E_f and E_q are numbers of epochs, and with
    E_q ≥ E − E_f there is no noise.
    """
    norms = [parameter for name, parameter in model.named_parameters() if "bn" in name]
    ops.reset(ops.head(model), task.generator("reset"))
    retain = task.retain.batched(batch_size)
    draw = ops.Injection(model, norms, task, CHOSEN, noise_ratio, origin_noise)
    for e in range(epochs):
        if e >= epochs - fine_epochs:
            descend(model, retain, task.loss, sgd=fine_sgd, epochs=1)
            continue
        with ops.only(model, [*norms, *draw(noisy=e >= quiet_epochs)]):
            descend(model, retain, task.loss, sgd=sgd, epochs=1)
    return model
