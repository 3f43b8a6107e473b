"""ResNet18 as torchvision has it (He et al., arXiv 1512.03385), not pre-trained."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import resnet18 as stock

from unlearnbench.model.norm import swap
from unlearnbench.model.shape import images
from unlearnbench.model.stages import declare

STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("fc",))


def resnet18(shape: Sequence[int], n_classes: int, *, norm: str) -> nn.Module:
    """The network for ImageNet, with 7×7 stem and max-pool for any image size.

    At 32 px its last feature map is 1×1. This is the ResNet18 of Deep Unlearn (arXiv 2410.01276).

    Args:
        shape: (C, H, W).
        n_classes: number of outputs.
        norm: ``batch`` or ``group``.

    Raises:
        ValueError: the shape is not that of an image, or ``norm`` is unknown.
    """
    channels, _, _ = images("resnet18", shape)
    net: nn.Module = stock(weights=None, num_classes=n_classes)
    if channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    return swap(declare(net, STAGES), norm)
