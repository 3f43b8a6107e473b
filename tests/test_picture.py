"""Pictures: what is where in them, and whole files or none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlearnbench import picture


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


def test_curves_rise_where_values_are() -> None:
    values = {"low": np.full(5, 0.25), "high": np.array([0.75, np.nan, 0.75]), "none": np.ones(0)}
    page = picture.cumulative(values, "title", "axis", 0.0, 1.0)
    blue = tuple(int(picture.COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    at = np.argwhere((page[30:350, :526] == blue).all(axis=2))
    risen = at[at[:, 0] == 160]  # halfway up: where the step is
    assert len(risen)
    assert abs(risen[:, 1].mean() - (46 + 0.25 * 480)) <= 2


def test_a_long_heading_takes_the_lines_it_needs() -> None:
    """The picture below it stays the same, and nothing of it is cut off at the right."""
    words = " ".join(f"option.number.{place}=1234567890" for place in range(12))
    short, long = (picture.cumulative({}, text, "axis", 0.0, 1.0) for text in ("title", words))
    added = len(long) - len(short)
    assert added > 0
    assert (long[30 + added :] == short[30:]).all()
    assert (long[: 30 + added, -6:] == 255).all()


def test_a_file_is_whole(tmp_path: Path) -> None:
    page = picture.grid(np.ones((1, 1, 1, 8, 8)), ["x"])
    path = picture.save(tmp_path / "new" / "one.png", page)
    assert (np.asarray(Image.open(path)) == page).all()
    assert [one.name for one in path.parent.iterdir()] == ["one.png"]
