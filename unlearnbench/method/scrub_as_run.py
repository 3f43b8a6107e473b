"""SCRUB as its authors' benchmark runs it: rewinding that never returns to the start."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method import _rewind as rewind
from unlearnbench.method.scrub_no_rewind import scrub_no_rewind


def scrub_as_run(
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
    """Walk as SCRUB without rewinding does, then return to the epoch that erred most alike.

        θ_0 = θ_O,   θ_1 … θ_E by ``scrub_no_rewind``
        j = argmin_j | err_F(θ_j) − err_V(θ_E) |,   θ ← θ_j if j ≥ 1, else θ_E

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "SCRUB".

    Differs from ``scrub``: where the start is nearest it returns the last epoch, and forget rows
    are not shuffled.
    """
    record = rewind.Record(model, task)
    ordered = replace(task, forget=task.forget.ordered(), probe=record)
    scrub_no_rewind(
        model,
        ordered,
        sgd=sgd,
        decay=decay,
        epochs=epochs,
        msteps=msteps,
        alpha=alpha,
        gamma=gamma,
        temperature=temperature,
        batch_size=batch_size,
    )
    j = record.nearest(model)
    if j >= 1:
        model.load_state_dict(record.states[j])
    return model
