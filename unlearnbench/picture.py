"""Pictures as arrays, and their files: grids of images, and curves. Knows Pillow.

Axes: R rows of a grid, S images beside each other, C channels, H W image.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

TILE = 64
"""Pixels of an image's longer side in a grid, at least."""

GAP, TEXT = 4, 13
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#9c6b4e", "#97bbf5", "#3ca951")


def grid(images_RSCHW: NDArray[np.floating], titles: Sequence[str]) -> Picture:
    """Images in [0, 1] in rows, each magnified in whole pixels, under titles of the columns."""
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


def cumulative(
    values: Mapping[str, NDArray[np.floating]], heading: str, axis: str, low: float, high: float
) -> Picture:
    """Distribution functions as steps, one a name: the share of values up to each point.

    Args:
        values: by name; those that are not finite are left out.
        heading: above the picture.
        axis: what the values are.
        low: where the horizontal axis begins.
        high: where it ends.
    """
    left, across, down, beside = 46, 480, 320, 230
    font = ImageFont.load_default(12)
    lines = _lines(heading, font, across + beside)
    top = 14 + 16 * len(lines)
    page = Image.new("RGB", (left + across + beside, top + down + 46), "white")
    pen = ImageDraw.Draw(page)
    pen.text((left, 8), "\n".join(lines), fill="black", font=font, spacing=4)
    for part in np.linspace(0, 1, 6):
        x, y = left + part * across, top + (1 - part) * down
        pen.line([(x, top), (x, top + down)], fill="#dddddd")
        pen.line([(left, y), (left + across, y)], fill="#dddddd")
        pen.text((x - 10, top + down + 4), f"{low + part * (high - low):.2f}", "black", font)
        pen.text((left - 26, y - 8), f"{part:.1f}", "black", font)
    pen.text((left + across / 2 - 30, top + down + 24), axis, fill="black", font=font)
    for place, (name, given) in enumerate(values.items()):
        colour = COLOURS[place % len(COLOURS)]
        width = 2 if place < len(COLOURS) else 1
        sorted_n = np.sort(given[np.isfinite(given)])
        at_n = left + np.clip((sorted_n - low) / (high - low), 0, 1) * across
        corners, share = [(float(left), float(top + down))], 0.0
        for x, after in zip(at_n, np.arange(1, len(at_n) + 1) / max(1, len(at_n)), strict=True):
            corners += [(x, top + (1 - share) * down), (x, top + (1 - after) * down)]
            share = after
        corners.append((left + across, top + (1 - share) * down))
        pen.line(corners, fill=colour, width=width)
        pen.line(
            [
                (left + across + 12, top + 8 + 16 * place),
                (left + across + 30, top + 8 + 16 * place),
            ],
            fill=colour,
            width=width,
        )
        pen.text((left + across + 36, top + 1 + 16 * place), name, fill="black", font=font)
    return np.asarray(page)


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, most: float) -> list[str]:
    """The text in lines of so many pixels at most, a longer word by itself."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > most:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def save(path: Path, picture: Picture) -> Path:
    """Write a PNG; whoever looks sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        Image.fromarray(picture).save(temporary, format="PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
