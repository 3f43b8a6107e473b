"""FF, Fisher forgetting: noise on each weight, the more the less retain rows need it."""

import torch
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops


def fisher(model: nn.Module, task: Task, *, alpha: float, batch_size: int) -> nn.Module:
    """Add noise to each weight, the more the less the retain rows need it.

        F = (1/M) Σ_b Σ_y p̄_b(y) · ( ∇ CE(B_b, y) )²   over the M retain batches, all labels y
        v = α · min( 1/(F + 1e-8), 1e3 ),   at most α·1e2 in the classifier
        v ← mean of v over the second axis;   v ← 10·v in the classifier, and of one axis
        θ ← θ + √v · N(0, 1)

    p̄_b is the batch's mean posterior; squares are of gradients of batch means, so F depends on the
    batch size. Batch norm is frozen and its statistics stay; the forget rows have no say. Golatkar
    et al., "Eternal Sunshine of the Spotless Net" (CVPR 2020); Deep Unlearn (arXiv 2410.01276),
    "FF".

    Differs: the published code takes any tensor whose first axis is as long as there are classes
    for the classifier; of its own two nets none but the classifier is.
    """
    if not task.n_classes:
        raise Skip("Fisher forgetting sums over labels; a regression has none")
    noise = task.generator("noise")
    F = _diagonal(model, task, batch_size)
    with torch.no_grad():
        classifier = {id(theta) for theta in ops.classifier(model, task.n_classes)}
        for theta, F_theta in zip(model.parameters(), F, strict=True):
            of_classes = id(theta) in classifier
            v = (1 / (F_theta + 1e-8)).clamp(max=1e2 if of_classes else 1e3) * alpha
            if v.ndim > 1:
                v = v.mean(1, keepdim=True).expand_as(theta)
            if of_classes or v.ndim == 1:
                v = v * 10
            theta.add_(v.sqrt() * ops.normal(theta, noise))
    return model.eval()


def _diagonal(model: nn.Module, task: Task, batch_size: int) -> list[Tensor]:
    model.eval()
    retain, theta = task.retain.batched(batch_size).ordered(), list(model.parameters())
    F = [torch.zeros_like(tensor) for tensor in theta]
    for x, _ in retain:
        log_p_BC = model(x).log_softmax(1)
        for y, p in enumerate(log_p_BC.detach().exp().mean(0)):
            loss = -log_p_BC[:, y].mean()
            grads = torch.autograd.grad(loss, theta, retain_graph=True, materialize_grads=True)
            for total, g in zip(F, grads, strict=True):
                total.addcmul_(g, g * p, value=1 / len(retain))
    return F
