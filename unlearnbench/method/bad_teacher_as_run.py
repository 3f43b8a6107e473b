"""BT as its authors' benchmark runs it: the bad teacher is always the same ResNet18."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

from unlearnbench.core.errors import Skip
from unlearnbench.core.seeding import seeded
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.model.resnet18 import resnet18
from unlearnbench.train.loop import descend


def bad_teacher_as_run(
    model: nn.Module,
    task: Task,
    *,
    adam: Mapping[str, float],
    epochs: int,
    batch_size: int,
    temperature: float,
) -> nn.Module:
    """Teach a student what the original says of retain rows, and an untrained net of forget rows.

        q(x) = softmax( t_bad(x)/T ) on D_F,  softmax( t(x)/T ) on D_R
        θ ← Adam on (1/C) · KL( q(x) ‖ softmax( s(x)/T ) ),   B from D_R ∪ D_F

    What the code of Deep Unlearn (arXiv 2410.01276) computes for "BT".

    Differs from ``bad_teacher``: t_bad is a ResNet18 whatever the student is, one for all seeds;
    the loss is a mean over classes too.
    """
    shape = task.retain.data.shape
    if len(shape) != 3 or not task.n_classes:
        raise Skip("the bad teacher is a ResNet18, which takes images and gives classes")
    with seeded(123):
        t_bad = ops.frozen(resnet18(shape, task.n_classes, norm="batch"))
    t, t_bad = ops.frozen(model), t_bad.to(task.retain.rows.device, task.retain.data.dtype)

    def loss(model: nn.Module, x: Tensor, is_forget: Tensor) -> Tensor:
        q = torch.where(is_forget[:, None], t_bad(x), t(x))
        return ops.kl(q, model(x), temperature) / task.n_classes

    lr, weight_decay = adam["lr"], adam["weight_decay"]
    optimizer = Adam(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    return descend(model, ops.marked(task).batched(batch_size), loss, sgd=optimizer, epochs=epochs)
