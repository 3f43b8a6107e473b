"""BT: two teachers, a competent one for the retain rows and an ignorant one for the forget rows."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method import _ops as ops
from unlearnbench.train.loop import descend


def bad_teacher(
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
        θ ← Adam on KL( q(x) ‖ softmax( s(x)/T ) ),   B from D_R ∪ D_F

    t is θ_O frozen, t_bad another draw of initial weights. Chundawat et al., "Can Bad Teaching
    Induce Forgetting?" (AAAI 2023); Deep Unlearn (arXiv 2410.01276), "BT".

    Differs: t_bad has the student's architecture and the loss is a mean over rows
    (``bad_teacher_as_run``); all retain rows are used, not 30 % of them.
    """
    if not task.n_classes:
        raise Skip("a teacher's posterior is over classes; a regression has none")
    t, t_bad = ops.frozen(model), ops.frozen(task.fresh("teacher"))

    def loss(model: nn.Module, x: Tensor, is_forget: Tensor) -> Tensor:
        q = torch.where(is_forget[:, None], t_bad(x), t(x))
        return ops.kl(q, model(x), temperature)

    lr, weight_decay = adam["lr"], adam["weight_decay"]
    optimizer = Adam(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    return descend(model, ops.marked(task).batched(batch_size), loss, sgd=optimizer, epochs=epochs)
