"""TinyViT-11M (Wu et al., arXiv 2207.10666), not pre-trained."""

from collections.abc import Sequence

from timm import create_model
from torch import nn

from unlearnbench.model.attention import uncache
from unlearnbench.model.norm import swap
from unlearnbench.model.shape import images
from unlearnbench.model.stages import declare

# As in the authors' own network, a stage ends with what halves the map; in timm the next one starts
# with it. The head is the linear layer alone; the norm before it is of no stage that is trained or
# drawn anew by its number, and so stands with the stem.
STAGES = (
    ("patch_embed", "head.norm"),
    ("stages.0", "stages.1.downsample"),
    ("stages.1.blocks", "stages.2.downsample"),
    ("stages.2.blocks", "stages.3.downsample"),
    ("stages.3.blocks",),
    ("head.fc",),
)


def tiny_vit(shape: Sequence[int], n_classes: int, *, norm: str) -> nn.Module:
    """The network made for 224 px, which takes any size: windows are padded with zeros.

    Its drop-path draws from torch's global generator in train mode. This is the TinyViT of Deep
    Unlearn (arXiv 2410.01276).

    Args:
        shape: (C, H, W).
        n_classes: number of outputs.
        norm: ``batch`` or ``group``, of its convolutions; its layer norms stay.

    Raises:
        ValueError: the shape is not that of an image, or another word for ``norm``.
    """
    channels, _, _ = images("tiny_vit", shape)
    net: nn.Module = create_model(
        "tiny_vit_11m_224", pretrained=False, in_chans=channels, num_classes=n_classes
    )
    return swap(declare(uncache(net), STAGES), norm)
