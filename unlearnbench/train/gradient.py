"""Gradients in eval mode, and vectors over all parameters of a net.

A gradient is one tensor per parameter, zero if the loss does not depend on the parameter; a vector
(P,) is their concatenation. Axes: B rows of a batch, P parameters.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from unlearnbench.core.data import Batches, Loss

BATCH = 256
"""Rows per batch where the size affects results by rounding only."""

ROWS_AT_ONCE = 16
"""Rows whose gradients are in memory at once: 0.7 GB for a ResNet-18."""


def gradient(net: nn.Module, batches: Batches, loss: Loss) -> list[Tensor]:
    """Gradient of the mean loss over all rows of a part."""
    net.eval()
    parameters = list(net.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for x, y in batches:
        share = len(y) / len(batches.rows)
        gradients = torch.autograd.grad(loss(net, x, y), parameters, materialize_grads=True)
        for total, parameter_gradient in zip(sums, gradients, strict=True):
            total.add_(parameter_gradient, alpha=share)
    return sums


def influence_gradient(
    net: nn.Module, retain: Batches, forget: Batches, loss: Loss
) -> list[Tensor]:
    """n_F/n · ( ∇ CE(D_F) − ∇ CE(D_R) ), n = n_F + n_R: change of the gradient by forgetting."""
    share = len(forget.rows) / (len(forget.rows) + len(retain.rows))
    pairs = zip(gradient(net, forget, loss), gradient(net, retain, loss), strict=True)
    return [share * (of_forget - of_retain) for of_forget, of_retain in pairs]


def gradients_of_rows(net: nn.Module, batches: Batches, loss: Loss) -> Iterator[list[Tensor]]:
    """Gradient of the loss of each row, batch by batch: tensors (B, *parameter.shape)."""
    net.eval()
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def of_row(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        def model(x: Tensor) -> Tensor:
            return cast(Tensor, functional_call(net, weights, (x,)))

        return loss(cast(nn.Module, model), x[None], y[None])

    of_rows = vmap(grad(of_row), in_dims=(None, 0, 0))
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels do not support vmap
        for x, y in batches.batched(ROWS_AT_ONCE):
            yield list(of_rows(weights, x, y).values())


def curvature(net: nn.Module, batches: Batches, loss: Loss) -> Callable[[Tensor], Tensor]:
    """Products of a vector over all parameters (P,) with the Fisher matrix of the batches' rows.

    It is the mean of Jᵀ H J, J the Jacobian of the logits and H the Hessian of the loss in them.
    """
    net.eval()
    theta = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def of_batch(x: Tensor, y: Tensor, k: dict[str, Tensor]) -> Tensor:
        def logits(theta: dict[str, Tensor]) -> Tensor:
            return cast(Tensor, functional_call(net, theta, (x,)))

        slope = grad(lambda z: loss(cast(nn.Module, lambda _: z), x, y))
        z, J_k = cast(Any, jvp(logits, (theta,), (k,)))
        # vjp, as H is symmetric: squared error does not support a jvp of its gradient.
        (H_J_k,) = cast(Any, vjp(slope, z))[1](J_k)
        (product,) = cast(Any, vjp(logits, theta))[1](H_J_k)
        return flat(product.values())

    def product(k: Tensor) -> Tensor:
        parts = dict(zip(theta, unflat(k, theta.values()), strict=True))
        n = len(batches.rows)
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels do not support jvp
            return sum(
                (of_batch(x, y, parts) * (len(y) / n) for x, y in batches), torch.zeros_like(k)
            )

    return product


def hessian_products(
    net: nn.Module, parts: Iterable[tuple[Tensor, Tensor]], loss: Loss, v_KP: Tensor
) -> Tensor:
    """Σ_j ∇²ℓ(θ; x_j, y_j) v (K, P) for K directions, by differentiating the gradient.

    Args:
        net: the net, in the precision of the result.
        parts: batches (x, y); the sum is over their rows.
        loss: the mean loss of a batch.
        v_KP: the directions.
    """
    net.eval()
    parameters = list(net.parameters())
    total_KP = torch.zeros_like(v_KP)
    for x, y in parts:
        value = loss(net, x, y) * len(y)
        slope_P = flat(
            torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
        )
        for total_P, v_P in zip(total_KP, v_KP, strict=True):
            # Hᵀv, as H is symmetric.
            bent = torch.autograd.grad(
                slope_P, parameters, v_P, retain_graph=True, materialize_grads=True
            )
            total_P += flat(bent)
    return total_KP


def largest(tensors: list[Tensor], share: float) -> list[Tensor]:
    """Masks of the ⌊share · P⌋ entries with the largest magnitude among all P of them."""
    magnitude = flat(tensors).abs()
    mask = torch.zeros_like(magnitude, dtype=torch.bool)
    mask[magnitude.topk(int(share * len(magnitude))).indices] = True
    return unflat(mask, tensors)


def smallest(scores: Tensor, share: float) -> Tensor:
    """Mask of the round(share · n) smallest of n scores, in their shape."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(round(share * scores.numel()), largest=False).indices] = True
    return mask.reshape(scores.shape)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors as one vector, each in the order of its indices, for any memory layout."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflat(vector: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """A vector split into tensors with the shapes of ``like``."""
    shapes = [tensor.shape for tensor in like]
    flat_tensors = vector.split([shape.numel() for shape in shapes])
    return [
        flat_tensor.reshape(shape) for flat_tensor, shape in zip(flat_tensors, shapes, strict=True)
    ]


@torch.no_grad()
def shift(net: nn.Module, by: Tensor) -> None:
    """Add a vector over all parameters to the net."""
    for parameter, change in zip(net.parameters(), unflat(by, net.parameters()), strict=True):
        parameter.add_(change)


def head(net: nn.Module) -> nn.Linear | None:
    """The last linear layer if it has a bias; else None."""
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear and linear[-1].bias is not None else None


def theta(net: nn.Module) -> Tensor:
    """All parameters (P,), on the CPU."""
    return flat(parameter.detach() for parameter in net.parameters()).cpu()


def buffers(net: nn.Module) -> Tensor:
    """All floating-point buffers (S,), which are statistics without counts, on the CPU."""
    statistics = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
    return flat([*statistics, torch.zeros(0)]).cpu()


def outputs(net: nn.Module, theta_P: Tensor, buffers_S: Tensor, x: Tensor) -> Tensor:
    """Outputs (B, C) with other parameters and statistics than the net's own."""
    own = dict(net.named_parameters())
    statistics = {
        name: buffer for name, buffer in net.named_buffers() if buffer.is_floating_point()
    }
    tensors = dict(zip(own, unflat(theta_P, own.values()), strict=True))
    tensors |= dict(zip(statistics, unflat(buffers_S, statistics.values()), strict=True))
    return cast(Tensor, functional_call(net, tensors, (x,)))
