"""SCRUB: a disobedient student, wound back to where it errs on forget rows as on unseen ones."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.method import _rewind as rewind
from unlearnbench.method.scrub_no_rewind import scrub_no_rewind


def scrub(
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
        θ ← θ_j,   j = argmin_j | err_F(θ_j) − err_V(θ_E) |,   V: the validation rows of F's classes

    The first j where several are as near. Kurmanji et al., "Towards Unbounded Machine Unlearning"
    (NeurIPS 2023); Deep Unlearn (arXiv 2410.01276), "SCRUB".
    """
    record = rewind.Record(model, task)
    scrub_no_rewind(
        model,
        replace(task, probe=record),
        sgd=sgd,
        decay=decay,
        epochs=epochs,
        msteps=msteps,
        alpha=alpha,
        gamma=gamma,
        temperature=temperature,
        batch_size=batch_size,
    )
    model.load_state_dict(record.states[record.nearest(model)])
    return model
