"""Any architecture of timm, by its name there, not pre-trained."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from timm import create_model, is_model, list_models
from torch import nn

from unlearnbench.model.attention import uncache
from unlearnbench.model.norm import swap
from unlearnbench.model.shape import images
from unlearnbench.model.stages import declare, matched


def timm(shape: Sequence[int], n_classes: int, *, architecture: str, norm: str) -> nn.Module:
    """A net of timm, built for the size of the images if it depends on it.

    Its stages are those of timm's ``group_matcher``.

    Args:
        shape: (C, H, W).
        n_classes: number of outputs.
        architecture: its name in timm, such as ``resnet10t``.
        norm: ``batch`` or ``group`` in place of its batch norms; other norms stay.

    Raises:
        ValueError: the name is unknown to timm, the net does not accept such images, or ``norm`` is
            unknown.
    """
    images("timm", shape)
    if not is_model(architecture):
        near = get_close_matches(architecture, list_models(), cutoff=0)
        raise ValueError(
            f"model.call.architecture: timm has no {architecture!r}; try {', '.join(near)}"
        )
    try:
        net = uncache(_created(architecture, shape, n_classes))
        with torch.no_grad():
            outputs = net.eval()(torch.zeros(1, *shape))
        if outputs.shape != (1, n_classes):
            raise ValueError(f"its outputs have the shape {tuple(outputs.shape)}")
    except Exception as error:  # architectures raise various errors for unsupported sizes
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"model.call.architecture: {architecture} cannot take images of shape {tuple(shape)} "
            f"({reason}); try resnet10t"
        ) from error
    return swap(declare(net.train(), matched(net)), norm)


def _created(architecture: str, shape: Sequence[int], n_classes: int) -> nn.Module:
    channels, height, width = shape
    settings: dict[str, Any] = {"in_chans": channels, "num_classes": n_classes}
    try:
        net: nn.Module = create_model(architecture, img_size=(height, width), **settings)
    except TypeError:  # convolutional nets accept any size and lack this argument
        net = create_model(architecture, **settings)
    return net
