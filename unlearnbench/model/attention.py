"""Attention biases that are read from their table in every forward pass.

timm's TinyViT, LeViT, EfficientFormer and EfficientViT cache their biases in eval mode. A cache
with its graph makes the second backward pass raise; a cache without a graph gives the biases no
gradient; and weights loaded in eval mode do not update the cache. Fisher information, influence and
saliency are all computed in eval mode.
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
    """Disable the cache of attention biases in place; outputs do not change."""
    for module in net.modules():
        if hasattr(module, "attention_bias_cache") and not isinstance(module, _ReadsItsTable):
            stock: Any = type(module)
            module.__class__ = _reading_its_table(stock)
            module.__dict__["attention_bias_cache"] = {}
    return net
