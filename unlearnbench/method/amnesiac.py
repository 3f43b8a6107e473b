"""Amnesiac unlearning: take back the steps that the forget rows had a part in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from unlearnbench.core.task import Task
from unlearnbench.train.loop import descend, make_optimizer


def amnesiac(
    model: nn.Module,
    task: Task,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    revert_buffers: bool,
    reset_optimizer: bool,
) -> nn.Module:
    """Subtract what the training steps on batches with forget rows changed; then finetune.

        θ' = θ_O − Σ_{(e,b) ∈ SB} Δ_{e,b},   SB the batches that hold a forget row
        θ ← θ' − lr · ∇ CE(B_r)   for ``epochs`` epochs, which may be none

    Δ is the change of all parameters in one step of the original's training, momentum of other
    batches included, so θ' is not what training without those batches gives. One sum is stored for
    the whole forget set (``prepared_bytes`` in the rows, with the momentum); ``hit_share`` is the
    share of batches in it. ``revert_buffers`` takes back batch-norm statistics as well,
    ``reset_optimizer`` drops the momentum the training ended with. Graves, Nagisetty & Ganesh,
    "Amnesiac Machine Learning" (AAAI 2021).
    """
    task.note("hit_share", float(task.prepared["hits"].float().mean()))
    taken_back = [*model.named_parameters(), *(model.named_buffers() if revert_buffers else [])]
    with torch.no_grad():
        for name, tensor in taken_back:
            tensor.sub_(task.prepared[f"change.{name}"])
    optimizer = make_optimizer(model, sgd)
    if not reset_optimizer:
        for name, parameter in model.named_parameters():
            if (momentum := task.prepared.get(f"momentum.{name}")) is not None:
                # In the parameter's own layout, which the fused kernel takes for granted.
                optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter)
                optimizer.state[parameter]["momentum_buffer"].copy_(momentum)
    return descend(model, task.retain.batched(batch_size), task.loss, sgd=optimizer, epochs=epochs)


def prepare(model: nn.Module, task: Task) -> dict[str, Tensor]:
    """Train the original again and add up what the steps with forget rows change.

    Raises:
        RuntimeError: the training does not give the original again, which came another way.
    """
    net, hits, steppers = task.fresh(), list[Tensor](), set[Optimizer]()
    change = {
        name: torch.zeros_like(t, dtype=torch.float64) for name, t in net.state_dict().items()
    }

    @contextmanager
    def logged(rows_B: Tensor) -> Iterator[None]:
        hits.append(torch.isin(rows_B, task.forget.rows).any())
        before = deepcopy(net.state_dict()) if hits[-1] else {}
        yield
        for name, tensor in before.items():
            change[name] += net.state_dict()[name] - tensor

    hook = register_optimizer_step_post_hook(lambda optimizer, *_: steppers.add(optimizer))
    try:
        task.fit(net, task.train.watched(logged))
    finally:
        hook.remove()
    original = model.state_dict()
    if not all(torch.equal(tensor, original[name]) for name, tensor in net.state_dict().items()):
        raise RuntimeError("amnesiac: training again does not give the original it should watch")
    momentum = {
        name: optimizer.state[parameter]["momentum_buffer"]
        for optimizer in steppers
        for name, parameter in net.named_parameters()
        if "momentum_buffer" in optimizer.state.get(parameter, {})
    }
    return {
        "hits": torch.stack(hits),
        **{f"change.{name}": tensor.to(original[name]) for name, tensor in change.items()},
        **{f"momentum.{name}": tensor for name, tensor in momentum.items()},
    }
