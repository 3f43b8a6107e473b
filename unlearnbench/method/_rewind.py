"""Select an epoch after training."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.task import Task
from unlearnbench.method._ops import error


class Record:
    """Rewinding of SCRUB: the states θ_0 … θ_E of all epochs and their errors on forget rows.

    Args:
        model: the initial state, θ_0.
        task: task with the forget rows and the validation rows of their classes.

    Raises:
        Skip: there are no such validation rows, or the task is a regression.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        if not task.n_classes:
            raise Skip("rewinding compares error rates; a regression has none")
        self.forget = task.forget
        self.val = task.val.chosen(torch.isin(task.val.y, task.forget.y).nonzero().flatten())
        if not len(self.val.rows):
            raise Skip("rewinding needs validation rows of the forgotten classes")
        self.states: list[dict[str, Tensor]] = []
        self.errors_F: list[float] = []
        self(model, 0)

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Record the model after an epoch; used as a ``Task.probe``."""
        self.states.append(deepcopy(model.state_dict()))
        self.errors_F.append(error(model, self.forget))

    def nearest(self, last: nn.Module) -> int:
        """argmin_j | err_F(θ_j) − err_V(θ_E) |, the first one in case of ties."""
        err_V = error(last, self.val)
        return min(range(len(self.states)), key=lambda j: abs(self.errors_F[j] - err_V))
