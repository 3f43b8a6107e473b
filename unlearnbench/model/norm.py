"""The normalisation of a net: batch norm that can bear one row, or group norm.

``batch`` is batch norm as the architecture has it, but a batch of one row is treated as in eval
mode: its own statistics crash on a 1×1 map (stock ResNet18 at 32 px) and elsewhere say nothing of
the data. ``group`` is group norm, which knows no other row (Wu & He, arXiv 1803.08494).
"""

from functools import cache
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

GROUPS = 32
"""At most so many groups, as in the paper."""

MEMBERS = 4
"""At least so many channels a group: on a 1×1 map a group of one is always 0, one of two ±1."""


class _BearsOneRow(_BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or len(x) != 1:
            return super().forward(x)
        # Not self.eval(): the dropout that timm puts inside its batch norms stays as it is.
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
        # The same parameters: some nets start a block's last norm at zero.
        self.weight, self.bias = norm.weight, norm.bias
        self.drop, self.act = (getattr(norm, name, nn.Identity()) for name in ("drop", "act"))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.drop(super().forward(x))))


@cache
def _bearing_one_row(batch_norm: type[Any]) -> type[_BatchNorm]:
    return type(f"OneRow{batch_norm.__name__}", (_BearsOneRow, batch_norm), {})


def groups(channels: int) -> int:
    """How many groups: the largest divisor up to ``GROUPS`` that leaves ``MEMBERS`` to each."""
    most = max(1, min(GROUPS, channels // MEMBERS))
    return next(count for count in range(most, 0, -1) if channels % count == 0)


def swap(net: nn.Module, norm: str) -> nn.Module:
    """The net, changed in place, with each of its batch norms replaced.

    A row is an entry of the batch norm's own input: nets that put tokens beside rows in front of a
    batch norm (LeViT) count each token.

    Args:
        net: any net, timm's included; one without batch norm comes back as it is.
        norm: ``batch`` (same parameters, same keys, same numbers for two rows and more) or
            ``group``.

    Raises:
        ValueError: another word for ``norm``.
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
