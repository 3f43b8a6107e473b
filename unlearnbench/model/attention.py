"""Attention biases that are read from their table in every forward pass.

timm's TinyViT, LeViT, EfficientFormer and EfficientViT look their biases up once in eval mode and
keep the result. Kept with its graph, it makes the second backward pass raise; kept without one, the
biases get no gradient; and loading weights in eval mode leaves the old biases in use. Fisher
information, influence and saliency are all computed in eval mode.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn


class _ReadsItsTable(nn.Module):
    if TYPE_CHECKING:
        attention_biases: Tensor
        attention_bias_idxs: Tensor
        attention_bias_cache: dict[str, Tensor]

    def get_attention_biases(self, device: torch.device) -> Tensor:
        return self.attention_biases[:, self.attention_bias_idxs]

    def train(self, mode: bool = True) -> "_ReadsItsTable":
        super().train(mode)
        return self  # timm's returns None


@cache
def _reading_its_table(attention: type[Any]) -> type[nn.Module]:
    return type(attention.__name__, (_ReadsItsTable, attention), {})


def uncache(net: nn.Module) -> nn.Module:
    """The net, changed in place, with no bias kept between forward passes; same numbers."""
    for module in net.modules():
        if hasattr(module, "attention_bias_cache") and not isinstance(module, _ReadsItsTable):
            stock: Any = type(module)
            module.__class__ = _reading_its_table(stock)
            module.__dict__["attention_bias_cache"] = {}
    return net
