"""A small convolutional net, for sweeps on a CPU: about 57,000 parameters."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from unlearnbench.model.norm import swap
from unlearnbench.model.shape import images
from unlearnbench.model.stages import declare


def cnn(shape: Sequence[int], n_classes: int, *, norm: str) -> nn.Module:
    """Three 3×3 convolutions of 32, 64 and 64 channels, with 2×2 and global pooling.

    Args:
        shape: (C, H, W), at least 8×8.
        n_classes: number of outputs.
        norm: ``batch`` or ``group``.

    Raises:
        ValueError: the shape is not that of such an image, or ``norm`` is unknown.
    """
    channels, _, _ = images("cnn", shape, smallest=8)
    net = nn.Sequential(
        OrderedDict(
            stem=_convolution(channels, 32, pool=2),
            stage1=_convolution(32, 64, pool=2),
            stage2=_convolution(64, 64, pool=1),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_classes)),
        )
    )
    return swap(declare(net, (("stem",), ("stage1",), ("stage2",), ("head",))), norm)


def _convolution(before: int, after: int, *, pool: int) -> nn.Module:
    # No bias: batch norm has one. Pooling before batch norm and ReLU leaves them a quarter of the
    # pixels, which makes a step on a CPU a third faster.
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
    pooled = [nn.MaxPool2d(pool)] if pool > 1 else []
    return nn.Sequential(conv, *pooled, nn.BatchNorm2d(after), nn.ReLU())
