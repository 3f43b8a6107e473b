"""Training with differential privacy: the gradient of each row is clipped, the sum is noised."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.optim import SGD

from unlearnbench.core.data import Batches, Loss
from unlearnbench.train.checkpoint import Place, keeper_of

ORDERS = [1 + tenth / 10 for tenth in range(1, 100)] + list(range(12, 64))
"""Rényi orders from which the accountant selects the best, 1.1 … 10.9 and 12 … 63."""

NUMBERS_AT_ONCE = 2**28
"""Numbers in the gradients that are in memory at once, 1 GiB: 24 rows of a ResNet-18."""


def dp_sgd(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    *,
    sgd: Mapping[str, float],
    epochs: int,
    batch_size: int,
    noise_multiplier: float,
    max_grad_norm: float,
) -> nn.Module:
    """Train with DP-SGD: clipping bounds the effect of a row, and noise conceals it.

        ḡ_i = g_i · min(1, C / ‖g_i‖),   g̃ = ( Σ_{i ∈ B} ḡ_i + σC · N(0, I) ) / batch_size

    Each of the n rows is in B with probability q = batch_size / n, in ⌈n / batch_size⌉ steps per
    epoch; noise is added even if B is empty. g̃ is the gradient of plain SGD, at a constant rate;
    g_i is that of row i alone, augmented as in ``train.fit``. Abadi et al., "Deep Learning with
    Differential Privacy" (CCS 2016, arXiv 1607.00133).

    Differs: Opacus' optimizer (arXiv 2109.12298) clips and adds noise, but ``torch.func`` computes
    the gradients. Opacus' own hooks (1.6) compute wrong gradients of convolutions for images in
    channels-last memory, and do not support the in-place sums of ResNets.

    Args:
        model: changed in place; returned in eval mode.
        batches: the training rows; its generators make all draws.
        loss: ``loss(model, x, y)``, a mean over rows.
        sgd: ``lr``, ``momentum`` and ``weight_decay`` of the step after the noise.
        epochs: average number of times a row is drawn.
        batch_size: average number of rows per step.
        noise_multiplier: σ, the standard deviation of the noise as a multiple of C.
        max_grad_norm: C, the maximum norm of the gradient of a row.

    Raises:
        ValueError: the model mixes rows or keeps their statistics, or the precision is neither
            32-true nor 64-true.
    """
    _check(model, batches.compute.precision)
    n, device = len(batches.rows), batches.rows.device
    rate = _rate(n, batch_size)
    seed = int(torch.randint(2**62, (), generator=batches.order))
    privacy = torch.Generator(device).manual_seed(seed)
    # Not fused: that kernel requires gradients in the memory layout of their parameters.
    plain = SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=sgd["lr"],
        momentum=sgd["momentum"],
        weight_decay=sgd["weight_decay"],
    )
    keeper = keeper_of(batches)
    start = keeper.begin(model, plain, order=batches.order, noise=batches.noise, privacy=privacy)
    with _optimizer(
        plain,
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        expected_batch_size=rate * n,
        generator=privacy,
    ) as optimizer:
        at_once = max(1, NUMBERS_AT_ONCE // max(1, sum(p.numel() for p in optimizer.params)))
        batches.hooks.probe(model, 0)
        model.train()
        steps = math.ceil(n / batch_size)
        for step in range(start.epoch * steps + start.batch + 1, epochs * steps + 1):
            chosen = (torch.rand(n, generator=batches.order) < rate).nonzero().flatten()
            drawn = batches.chosen(chosen)
            with batches.hooks.around(drawn.rows):
                parts = list(_parts(drawn, at_once))
                for remaining, (x, y) in zip(reversed(range(len(parts))), parts, strict=True):
                    optimizer.signal_skip_step(remaining > 0)  # accumulate until the last part
                    _set_gradients(model, x, y, loss)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            if keeper.due:
                keeper.keep(Place(*divmod(step, steps)))
            if step % steps == 0:
                batches.hooks.probe(model, step // steps)
    keeper.end(Place(epochs))
    return model.eval()


def epsilon(
    rows: int, *, epochs: int, batch_size: int, noise_multiplier: float, delta: float
) -> float:
    """ε of ``dp_sgd`` at δ, for training sets that differ by one row, present or absent.

    Rényi differential privacy of the Poisson-subsampled Gaussian (Mironov et al., arXiv
    1908.10530), turned into (ε, δ) as in Balle et al. (arXiv 1905.09982), by Opacus.

    Args:
        rows: n, the number of training rows.
        epochs: as in training.
        batch_size: as in training.
        noise_multiplier: σ, as in training; without noise ε is infinite.
        delta: δ.

    Raises:
        ValueError: δ is no probability above 0.
    """
    if not 0 < delta < 1:
        raise ValueError(f"train.privacy.delta={delta}: must be above 0 and below 1")
    steps = epochs * math.ceil(rows / batch_size)
    if not noise_multiplier:
        return math.inf if steps else 0.0
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, _rate(rows, batch_size), steps)] if steps else []
    with warnings.catch_warnings():  # ε at the first or last order is valid too
        warnings.filterwarnings("ignore", "Optimal order is the (smallest|largest) alpha")
        return float(accountant.get_epsilon(delta, alphas=ORDERS))


def _rate(n: int, batch_size: int) -> float:
    return min(1.0, batch_size / max(1, n))


def _check(model: nn.Module, precision: str) -> None:
    if precision not in ("32-true", "64-true"):
        raise ValueError(f"train=dp_sgd: needs precision=32-true or 64-true, not {precision}")
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            message = "batch norm mixes the rows of a batch; take model.call.norm=group"
            raise ValueError(f"train=dp_sgd: {message}")
        if isinstance(module, _NormBase) and module.track_running_stats:
            message = f"{type(module).__name__} keeps statistics of the rows, without noise"
            raise ValueError(f"train=dp_sgd: {message}")


@contextmanager
def _optimizer(sgd: SGD, **settings: object) -> Iterator[DPOptimizer]:
    """Opacus' optimizer; the attributes it adds to parameters are removed after the block."""
    optimizer = DPOptimizer(sgd, **settings)
    try:
        yield optimizer
    finally:
        for parameter in optimizer.params:
            for name in ("grad_sample", "summed_grad"):
                parameter.__dict__.pop(name, None)


def _parts(drawn: Batches, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows drawn for a step, ``at_once`` per part; one empty part without rows."""
    x = drawn.y.new_empty(0)
    if len(drawn.rows):
        x = drawn.data.inputs(drawn.rows)
        if drawn.data.augment is not None:
            x = drawn.data.augment(x, drawn.noise)
    yield from zip(x.split(at_once), drawn.y.split(at_once), strict=True)


def _set_gradients(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> None:
    """Set the gradients of the loss of each row on each parameter, (B, *parameter.shape)."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter, gradients in zip(
        named.values(), _gradients(model, named, x, y, loss), strict=True
    ):
        parameter.grad_sample = gradients  # type: ignore[attr-defined]


def _gradients(
    model: nn.Module, named: Mapping[str, Tensor], x: Tensor, y: Tensor, loss: Loss
) -> Sequence[Tensor]:
    if not len(y):
        return [parameter.new_zeros(0, *parameter.shape) for parameter in named.values()]

    def of_row(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        def net(x: Tensor) -> Tensor:
            return cast(Tensor, functional_call(model, weights, (x,)))

        return loss(cast(nn.Module, net), x[None], y[None])

    # Contiguous, because vmap runs some layers row by row in channels-last memory.
    weights = {name: parameter.detach().contiguous() for name, parameter in named.items()}
    of_rows = vmap(grad(of_row), in_dims=(None, 0, 0), randomness="different")
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels do not support vmap
        return list(of_rows(weights, x.contiguous(), y).values())
