"""Checks of the input shapes of models."""

from collections.abc import Sequence


def images(option: str, shape: Sequence[int], *, smallest: int = 1) -> tuple[int, int, int]:
    """Return the shape as (C, H, W), for a model that accepts only images.

    Args:
        option: name of the model option.
        shape: shape of one input.
        smallest: minimal height and width.

    Raises:
        ValueError: the inputs are not images, or smaller than ``smallest``.
    """
    if len(shape) != 3:
        got = tuple(shape)
        raise ValueError(
            f"model={option} needs images of shape (C, H, W), got {got}; try model=mlp"
        )
    channels, height, width = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"model={option} needs images of at least {smallest}×{smallest}, "
            f"got {height}×{width}; try model=mlp"
        )
    return channels, height, width
