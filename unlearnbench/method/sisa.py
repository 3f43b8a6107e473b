"""SISA: sharded, isolated, sliced, aggregated training; only touched shards are trained again."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnbench.core.errors import Skip
from unlearnbench.core.seeding import seeded
from unlearnbench.core.task import Task
from unlearnbench.model.ensemble import Ensemble


def sisa(model: nn.Module, task: Task) -> nn.Module:
    """Train again, without the forget rows, the shards that hold some, from the first such slice.

        θ_s,r = train( θ_s,r−1, D_s,1 ∪ … ∪ D_s,r ∖ D_F ),   D = ∪_s ∪_r D_s,r drawn once
        p(x) = (1/S) Σ_s softmax f(x; θ_s,R)

    Exact: what comes out is bit-equal to ``sisa_retrain``, which never saw the forget rows. The
    original is not used; the shards are trained in ``prepare``, with the forget set unknown. Each
    slice is trained for all of the training's epochs, where the paper shares them out. Bourtoule et
    al., "Machine Unlearning" (IEEE S&P 2021, arXiv 1912.03817).
    """
    shards, slices = task.prepared["shape"].tolist()
    members = []
    for s, parts in enumerate(_slices(task, shards, slices)):
        touched = [r for r, places in enumerate(parts) if _to_forget(task, places).any()]
        first = min(touched, default=slices)
        net = task.fresh(f"shard {s}")
        if first:
            prefix = f"{s}.{first - 1}."
            held = {k: v for k, v in task.prepared.items() if k.startswith(prefix)}
            net.load_state_dict({k.removeprefix(prefix): v for k, v in held.items()})
        for _ in _grow(task, net, s, parts, first):
            pass
        members.append(net)
    return Ensemble(members).eval()


def prepare(model: nn.Module, task: Task, *, shards: int, slices: int) -> dict[str, Tensor]:
    """Train a net on each shard, and keep it as it is after each slice."""
    kept = {"shape": torch.tensor([shards, slices])}
    for s, parts in enumerate(_slices(task, shards, slices)):
        for r, net in enumerate(_grow(task, task.fresh(f"shard {s}"), s, parts, 0)):
            kept |= {f"{s}.{r}.{name}": tensor.clone() for name, tensor in net.state_dict().items()}
    return kept


def _slices(task: Task, shards: int, slices: int) -> list[list[Tensor]]:
    """Places among the training rows, of each slice of each shard."""
    if not task.n_classes:
        raise Skip("SISA takes the mean of posteriors; a regression has none")
    order = torch.randperm(len(task.train.rows), generator=task.generator("shards"))
    return [list(shard.tensor_split(slices)) for shard in order.tensor_split(shards)]


def _to_forget(task: Task, places: Tensor) -> Tensor:
    return torch.isin(task.train.rows[places.to(task.train.rows.device)], task.forget.rows).cpu()


def _grow(
    task: Task, net: nn.Module, s: int, parts: list[Tensor], first: int
) -> Iterator[nn.Module]:
    """Train a shard's net slice by slice, without the forget rows; it is shown after each."""
    for r in range(first, len(parts)):
        places = torch.cat(parts[: r + 1])
        kept = task.train.chosen(places[~_to_forget(task, places)])
        order, noise, dropout = (
            task.generator(f"shard {s} slice {r} {what}") for what in ("order", "noise", "dropout")
        )
        # What a net draws of its own must not depend on which shards were trained before it.
        with seeded(dropout.initial_seed()):
            task.fit(net, replace(kept, order=order, noise=noise))
        yield net
