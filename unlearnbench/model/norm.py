"""Normalisation layers: batch norm that accepts a batch of one row, and group norm.

``batch`` is the batch norm of the architecture, except that a batch of one row is normalised as in
eval mode: its own statistics raise on a 1×1 map (stock ResNet18 at 32 px) and are meaningless
elsewhere. ``group`` is group norm, which treats rows independently (Wu & He, arXiv 1803.08494).
"""

from functools import cache
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

GROUPS = 32
"""Maximal number of groups, as in the paper."""

MEMBERS = 4
"""Minimal number of channels in a group: on a 1×1 map a group of one is always 0, of two ±1."""


class _BearsOneRow(_BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or len(x) != 1:
            return super().forward(x)
        # Not self.eval(): it would also switch the dropout inside the batch norms of timm.
        self.training = False
        try:
            return super().forward(x)
        finally:
            self.training = True


class _GroupNorm(nn.GroupNorm):
    """Group norm with the dropout and the activation that timm fuses into batch norms."""

    def __init__(self, norm: _BatchNorm) -> None:
        channels = norm.num_features
        super().__init__(groups(channels), channels, eps=norm.eps, affine=norm.affine)
        # Keep the parameters: some nets initialise the last norm of a block with zeros.
        self.weight, self.bias = norm.weight, norm.bias
        self.drop, self.act = (getattr(norm, name, nn.Identity()) for name in ("drop", "act"))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.drop(super().forward(x))))


@cache
def _bearing_one_row(batch_norm: type[Any]) -> type[_BatchNorm]:
    return type(f"OneRow{batch_norm.__name__}", (_BearsOneRow, batch_norm), {})


def groups(channels: int) -> int:
    """Number of groups: the largest divisor up to ``GROUPS`` with ``MEMBERS`` channels each."""
    most = max(1, min(GROUPS, channels // MEMBERS))
    return next(count for count in range(most, 0, -1) if channels % count == 0)


def swap(net: nn.Module, norm: str) -> nn.Module:
    """Replace each batch norm of a net, in place.

    A row is an entry of the first axis of the input of the batch norm: in nets that merge tokens
    into this axis (LeViT) each token is a row.

    Args:
        net: any net, including those of timm; a net without batch norm stays unchanged.
        norm: ``batch`` (same parameters, same keys, same outputs for two or more rows) or
            ``group``.

    Raises:
        ValueError: ``norm`` is unknown.
    """
    if norm not in ("batch", "group"):
        raise ValueError(f"model.call.norm is {norm!r}; try batch or group")
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if not isinstance(child, _BatchNorm):
                continue
            if norm == "group":
                setattr(module, name, _GroupNorm(child))
            elif not isinstance(child, _BearsOneRow):
                stock: Any = type(child)
                child.__class__ = _bearing_one_row(stock)
    return net
