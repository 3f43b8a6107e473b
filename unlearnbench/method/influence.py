"""IU, influence: one Newton-like step to where weights would be without the forget rows."""

from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import nn

from unlearnbench.core.task import Task
from unlearnbench.train import gradient


def influence(
    model: nn.Module,
    task: Task,
    *,
    alpha: float,
    damping: float,
    iterations: int,
    residual: float,
    rows: int,
) -> nn.Module:
    """Move the weights once, to where they would be had the forget rows weighed nothing.

        v = n_F/n · ( ∇ CE(D_F) − ∇ CE(D_R) ),   n = n_F + n_R
        (F_R + δI) k = v   by conjugate gradients,   F_R = mean over retain rows of Jᵀ H_z J
        θ ← θ + α · k

    J is the Jacobian of the logits z and H_z the Hessian of the loss in them, so that F_R is the
    Fisher matrix; it is taken over ``rows`` retain rows at most, drawn once. Batch norm is frozen.
    Whether k was found within ``iterations`` stands in the rows as ``converged``, 1 or 0.
    Koh & Liang, "Understanding Black-box Predictions via Influence Functions" (ICML 2017); Deep
    Unlearn (arXiv 2410.01276), "IU".

    Differs: the published recursion is no inverse (``influence_as_run``).
    """
    retain, forget = task.retain.batched(gradient.BATCH), task.forget.batched(gradient.BATCH)
    v = gradient.flat(gradient.influence_gradient(model, retain, forget, task.loss))
    drawn = torch.randperm(len(retain.rows), generator=task.generator("curvature"))[:rows]
    F_R = gradient.curvature(model, retain.chosen(drawn).ordered(), task.loss)

    def left_side(k: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        vector = torch.from_numpy(k).to(v)
        return (F_R(vector) + damping * vector).cpu().numpy()

    system = LinearOperator((len(v), len(v)), matvec=left_side, dtype=v.cpu().numpy().dtype)
    k, status = cg(system, v.cpu().numpy(), rtol=residual, maxiter=iterations)
    task.note("converged", float(status == 0))
    gradient.shift(model, alpha * torch.from_numpy(k).to(v))
    return model.eval()
