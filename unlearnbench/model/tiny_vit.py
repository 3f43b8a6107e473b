"""TinyViT-11M (Wu et al., arXiv 2207.10666), not pre-trained."""

from collections.abc import Sequence

from timm import create_model
from torch import nn

from unlearnbench.model.attention import uncache
from unlearnbench.model.norm import swap
from unlearnbench.model.shape import images
from unlearnbench.model.stages import declare

# As in the network of the authors, a stage ends with its downsampling; in timm the next stage
# starts with it. The head is the linear layer alone. The norm before it must not be in a stage that
# is trained or reset by its index, so it is in the stem.
STAGES = (
    ("patch_embed", "head.norm"),
    ("stages.0", "stages.1.downsample"),
    ("stages.1.blocks", "stages.2.downsample"),
    ("stages.2.blocks", "stages.3.downsample"),
    ("stages.3.blocks",),
    ("head.fc",),
)


def tiny_vit(shape: Sequence[int], n_classes: int, *, norm: str) -> nn.Module:
    """The network for 224 px, which accepts any size: windows are padded with zeros.

    Its drop-path draws from torch's global generator in train mode. This is the TinyViT of Deep
    Unlearn (arXiv 2410.01276).

    Args:
        shape: (C, H, W).
        n_classes: number of outputs.
        norm: ``batch`` or ``group``, for its convolutions; layer norms stay unchanged.

    Raises:
        ValueError: the shape is not that of an image, or ``norm`` is unknown.
    """
    channels, _, _ = images("tiny_vit", shape)
    net: nn.Module = create_model(
        "tiny_vit_11m_224", pretrained=False, in_chans=channels, num_classes=n_classes
    )
    return swap(declare(uncache(net), STAGES), norm)
