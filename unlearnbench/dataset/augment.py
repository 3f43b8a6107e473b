"""Augmentations of image batches in training, on the device of the batch, in channels-last memory.

Axes: B images, C channels, H W image, h w window of it. Draws are made by a generator on the CPU,
so they do not depend on the device.
"""

from functools import partial

import torch
from torch import Generator, Tensor

from unlearnbench.core.data import Augment

PADDING = 4


def named(name: str, black: tuple[float, ...]) -> Augment | None:
    """The augmentation with the name ``none``, ``flip`` or ``crop_flip``.

    Args:
        name: the value of ``dataset.call.augment``.
        black: the normalised value of a black pixel, per channel.

    Raises:
        ValueError: no augmentation has this name.
    """
    if name == "none":
        return None
    if name == "flip":
        return flip
    if name == "crop_flip":
        return partial(crop_flip, padding=PADDING, black=black)
    raise ValueError(f"dataset.call.augment={name}: must be none, flip or crop_flip")


def _mirrored(n: int, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) < 0.5


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability ½."""
    mirrored_B = _mirrored(len(x), generator).to(x.device)
    return torch.where(mirrored_B[:, None, None, None], x.flip(3), x)


def crop_flip(x: Tensor, generator: Generator, *, padding: int, black: tuple[float, ...]) -> Tensor:
    """Pad with black, crop a random window of the original size, mirror it with probability ½.

    torchvision pads before it normalises, so the padding is a normalised black pixel, not 0.
    One gather of pixels crops and mirrors: five times faster than a loop over the
    images (1.3 ms and 6 ms for 256 of CIFAR-10, one CPU thread).

    Args:
        x: normalised images (B, C, H, W).
        generator: draws offsets and mirroring.
        padding: number of black pixels on each side.
        black: the normalised value of a black pixel, per channel.
    """
    n, channels, height, width = x.shape
    top_B, left_B = torch.randint(0, 2 * padding + 1, (2, n), generator=generator).to(x.device)
    mirrored_B = _mirrored(n, generator).to(x.device)

    # Complete images of padding: a broadcast over the three channels alone is twice as slow.
    tall, wide = height + 2 * padding, width + 2 * padding
    padded = x.new_tensor(black).repeat(tall * wide).expand(n, -1)
    padded = padded.clone(memory_format=torch.contiguous_format).view(n, tall, wide, channels)
    inside = slice(padding, -padding or None)
    padded[:, inside, inside] = x.permute(0, 2, 3, 1)

    column_w = torch.arange(width, device=x.device)
    column_Bw = torch.where(mirrored_B[:, None], column_w.flip(0), column_w) + left_B[:, None]
    row_Bh = torch.arange(height, device=x.device) + top_B[:, None]
    row_Bh += tall * torch.arange(n, device=x.device)[:, None]
    pixel_Bhw = row_Bh[:, :, None] * wide + column_Bw[:, None, :]
    cut = padded.view(-1, channels).index_select(0, pixel_Bhw.flatten())
    return cut.view(n, height, width, channels).permute(0, 3, 1, 2)
