"""Pictures: what is where in them, and whole files or none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlearnbench.core import picture


def test_a_grid_has_each_image_in_its_place() -> None:
    images = np.zeros((2, 3, 1, 8, 8))
    images[1, 2] = 1
    images[0, 0, 0, 0, 1] = 0.5
    page = picture.grid(images, ["a", "b", "c"])
    assert page.shape == (2 * 68 + 17, 3 * 68 + 4, 3)
    tiles = page[17:].reshape(2, 68, -1, 3)[:, :64]
    assert (tiles[1, :, 2 * 68 + 4 : 3 * 68] == 255).all()
    assert (tiles[0, :8, 4 + 8 : 4 + 16] == 128).all()
    assert (tiles[0, 8:, 4:68] == 0).all()


def test_each_pixel_of_each_image_lands_in_its_square() -> None:
    images = np.random.default_rng(0).random((2, 3, 3, 8, 5))
    page = picture.grid(images, ["", "", ""])
    for r, s, i, j in np.ndindex(2, 3, 8, 5):
        top, left = 17 + r * 68 + 8 * i, 4 + s * 44 + 8 * j
        square = page[top : top + 8, left : left + 8]
        assert (square == np.rint(images[r, s, :, i, j] * 255)).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channels(channels: int) -> None:
    images = np.full((1, 1, channels, 80, 70), 2.0)  # brighter than there is
    page = picture.grid(images, [""])
    assert page.shape == (84 + 17, 74 + 4, 3) or page.shape[2] == 3
    assert (page == 255).all()


def test_a_file_is_whole(tmp_path: Path) -> None:
    page = picture.grid(np.ones((1, 1, 1, 8, 8)), ["x"])
    path = picture.save(tmp_path / "new" / "one.png", page)
    assert (np.asarray(Image.open(path)) == page).all()
    assert [one.name for one in path.parent.iterdir()] == ["one.png"]
