"""Pictures as arrays, and their files: grids of images. Imports Pillow.

Axes: R rows of a grid, S images per row, C channels, H W image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unlearnbench.core import atomic

Picture = NDArray[np.uint8]

TILE = 64
"""Minimum number of pixels of the longer side of an image in a grid."""

GAP, TEXT = 4, 13


def grid(images_RSCHW: NDArray[np.floating], titles: Sequence[str]) -> Picture:
    """Images in [0, 1] in rows, magnified by an integer factor, under titles of the columns."""
    rows, columns, channels, height, width = images_RSCHW.shape
    each = max(1, TILE // max(height, width))
    across, down = width * each + GAP, height * each + GAP
    page = Image.new("RGB", (columns * across + GAP, rows * down + GAP + TEXT), "white")
    for row, column in np.ndindex(rows, columns):
        shown = np.clip(np.moveaxis(images_RSCHW[row, column], 0, 2), 0, 1)
        if channels not in (1, 3):
            shown = shown.mean(axis=2, keepdims=True)
        shown = np.broadcast_to(shown, (height, width, 3)).repeat(each, 0).repeat(each, 1)
        tile = Image.fromarray(np.round(shown * 255).astype(np.uint8))
        page.paste(tile, (GAP + column * across, TEXT + GAP + row * down))
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        pen.text((GAP + column * across, 1), title, fill="black", font=ImageFont.load_default(10))
    return np.asarray(page)


def save(path: Path, picture: Picture) -> Path:
    """Write a PNG atomically: readers see the complete file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.writing(path) as file:
        Image.fromarray(picture).save(file, format="PNG")
    return path
