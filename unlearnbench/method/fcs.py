"""FCS, forget, contrast, strengthen: flatten forget rows' posteriors, alternate with training."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import cosine, descend, make_optimizer


def fcs(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    retain_sgd: Mapping[str, float],
    forget_sgd: Mapping[str, float],
    eta_min: float,
    epochs: int,
    batch_size: int,
    temperature: float,
) -> nn.Module:
    """Flatten the forget rows' posteriors, then alternate between blurring forget and training.

        once over D_F:         minimise  KL( uniform ‖ softmax z(x_f) )
        each epoch, over D_F:  S = Z_f Z_rᵀ / τ,  minimise  mean_ij −log softmax_j(S)_ij,  Z_r fixed
              then over D_R:   minimise  CE(B_r)

    Each of the three has its own SGD; the second's rate falls as a cosine over all its steps, to
    ``eta_min``. NeurIPS 2023 unlearning challenge; Deep Unlearn (arXiv 2410.01276), "FCS".
    Differs: the third's rate does not grow with the batch size.
    """
    if not task.n_classes:
        raise Skip("a uniform posterior needs classes; this is a regression")
    forget, retain = task.forget.batched(batch_size), task.retain.batched(batch_size)
    contrasted = retain.endless()

    def flatten(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        z: Tensor = model(x)
        return ops.kl(torch.zeros_like(z), z, 1.0)

    def contrast(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        Z_f, Z_r = model(x), model(next(contrasted)[0]).detach()
        return -torch.mm(Z_f, Z_r.T / temperature).log_softmax(1).mean()

    descend(model, forget, flatten, sgd=sgd, epochs=1)
    forget_optimizer, retain_optimizer = (
        make_optimizer(model, forget_sgd),
        make_optimizer(model, retain_sgd),
    )
    done, floor = 0, eta_min / forget_sgd["lr"]

    def falling(step: int, steps: int) -> float:
        return floor + (1 - floor) * cosine(done + step, epochs * steps)

    for _ in range(epochs):
        descend(model, forget, contrast, sgd=forget_optimizer, epochs=1, step_schedule=falling)
        done += len(forget)
        descend(model, retain, task.loss, sgd=retain_optimizer, epochs=1)
    return model
