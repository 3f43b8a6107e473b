"""ResNet18 for small images: a 3×3 stem, and no pooling before the first stage."""

from collections.abc import Sequence

from torch import nn

from unlearnbench.model.resnet18 import resnet18
from unlearnbench.model.shape import images


def resnet18_cifar(shape: Sequence[int], n_classes: int, *, norm: str) -> nn.Module:
    """ResNet18 with full resolution in the stem: at 32 px its last map is 4×4, not 1×1.

    Args:
        shape: (C, H, W).
        n_classes: number of outputs.
        norm: ``batch`` or ``group``.

    Raises:
        ValueError: the shape is not that of an image, or ``norm`` is unknown.
    """
    channels, _, _ = images("resnet18_cifar", shape)
    net = resnet18(shape, n_classes, norm=norm)
    net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net
