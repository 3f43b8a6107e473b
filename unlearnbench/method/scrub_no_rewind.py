"""SCRUB without rewinding: a student that disobeys its teacher on the forget rows."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import at, descend, make_optimizer, step_decay


def scrub_no_rewind(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    decay: float,
    epochs: int,
    msteps: int,
    alpha: float,
    gamma: float,
    temperature: float,
    batch_size: Mapping[str, int],
) -> nn.Module:
    """Drive a student away from its teacher on forget rows and keep it close on retain rows.

        D(s, t) = T² · KL( softmax(t/T) ‖ softmax(s/T) ),   t = θ_O frozen
        in each of the first ``msteps`` epochs:  θ ← θ − lr_e · ∇ [ −D(B_f) ]
        in every epoch:  θ ← θ − lr_e · ∇ [ γ · CE(B_r) + α · D(B_r) ],   lr_e = lr · ρ^s(e)

    ρ is ``decay``; s(e), e from 1, counts which of ⌊E/2⌋, ⌊.8E⌋, ⌊.9E⌋ are over. Kurmanji et al.,
    "Towards Unbounded Machine Unlearning" (NeurIPS 2023).
    """
    if not task.n_classes:
        raise Skip("a teacher's posterior is over classes; a regression has none")
    t, optimizer = ops.frozen(model), make_optimizer(model, sgd)
    retain = task.retain.batched(batch_size["retain"])
    forget = task.forget.batched(batch_size["forget"])

    def distance(s_BC: Tensor, x: Tensor) -> Tensor:
        return temperature**2 * ops.kl(t(x), s_BC, temperature)

    def disobey(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return -distance(model(x), x)

    def obey(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        s_BC = model(x)  # once for both terms: batch norm counts each pass, dropout draws anew
        ce = task.loss(cast(nn.Module, lambda _: s_BC), x, y)
        return gamma * ce + alpha * distance(s_BC, x)

    for e in range(1, epochs + 1):
        rate = at(step_decay(decay), e, epochs)
        if e <= msteps:
            descend(model, forget, disobey, sgd=optimizer, epochs=1, schedule=rate)
        descend(model, retain, obey, sgd=optimizer, epochs=1, schedule=rate)
        task.probe(model, e)
    return model
