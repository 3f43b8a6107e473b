"""What shapes of inputs a model takes, and what is said of the others."""

from collections.abc import Sequence


def images(option: str, shape: Sequence[int], *, smallest: int = 1) -> tuple[int, int, int]:
    """The shape as (C, H, W), of a model that takes nothing else.

    Args:
        option: the model as the user typed it.
        shape: of one input.
        smallest: height and width that it needs.

    Raises:
        ValueError: these are no images, or smaller ones than it needs.
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
