from copy import deepcopy

import pytest
import torch
import torchvision.transforms.functional as TF

from unlearnbench.dataset import holdout, image
from unlearnbench.dataset.augment import PADDING, crop_flip, flip, named

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def pictures(n=64, height=12, width=10, channels=3, augment="crop_flip"):
    size = (n, height, width, channels)
    pixels = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(1))
    return image.dataset(
        pixels.to(torch.uint8),
        torch.zeros(n, dtype=torch.long),
        parts=holdout.official(n, n),
        n_classes=1,
        mean=MEAN[:channels],
        std=STD[:channels],
        augment=augment,
    )


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def one_by_one(data, seed, padding):
    """Each uint8 image through torchvision, with the same draws, and only then normalised."""
    generator, n = drawn(seed), len(data.x)
    if padding:
        shifts = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5
    height, width = data.x.shape[1:3]
    out = []
    for i, pixels in enumerate(data.x.permute(0, 3, 1, 2)):
        if padding:
            top, left = shifts[:, i].tolist()
            pixels = TF.crop(TF.pad(pixels, padding), top, left, height, width)
        out.append(TF.hflip(pixels) if mirrored[i] else pixels)
    seen = deepcopy(data)
    seen.x[:] = torch.stack(out).permute(0, 2, 3, 1)
    return seen.inputs(torch.arange(n))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "padding"), [("crop_flip", PADDING), ("flip", 0)])
def test_a_batch_is_torchvisions_image_by_image_to_the_last_bit(name, padding, channels):
    data = pictures(channels=channels, augment=name)
    batch = data.augment(data.inputs(data.train_rows), drawn(5))
    assert torch.equal(batch, one_by_one(data, 5, padding))


def test_the_padding_is_a_black_pixel_after_normalisation():
    data = pictures()
    data.x.zero_()
    black = data.inputs(data.train_rows)
    assert (black < -1).all()
    assert torch.equal(data.augment(black, drawn(0)), black)


@pytest.mark.parametrize("name", ["crop_flip", "flip"])
def test_the_generator_decides_all(name):
    data = pictures(augment=name)
    x = data.inputs(data.train_rows)
    before, state = x.clone(), torch.get_rng_state()
    first, again, other = (data.augment(x, drawn(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    generator = drawn(3)
    assert not torch.equal(data.augment(x, generator), data.augment(x, generator))


@pytest.mark.parametrize("name", ["crop_flip", "flip"])
def test_memory_stays_channels_last(name):
    data = pictures(augment=name)
    x = data.augment(data.inputs(data.train_rows), drawn(0))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_every_offset_comes_as_often_and_half_are_mirrored():
    # One bright pixel in the middle tells where each image went.
    n, padding = 8100, 4
    x = torch.zeros(n, 1, 9, 9)
    x[:, :, 4, 4] = 1
    places = crop_flip(x, drawn(0), padding=padding, black=(0.0,)).sum((0, 1))
    assert places.sum() == n
    assert places.min() > 50  # 100 expected at each of 81 places, standard deviation 10
    assert places.max() < 150
    left = torch.zeros(n, 1, 1, 2)
    left[..., 0] = 1
    assert abs(flip(left, drawn(0))[..., 1].sum() - n / 2) < 4 * (n / 4) ** 0.5


def test_without_padding_nothing_is_cut_off():
    x = torch.randn(16, 3, 5, 6, generator=drawn(0))
    out = crop_flip(x, drawn(1), padding=0, black=(9.0, 9.0, 9.0))
    same = (out == x).flatten(1).all(1)
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert same.any()
    assert mirrored.any()


def test_a_copy_does_the_same():
    data = pictures()
    x = data.inputs(data.train_rows)
    assert torch.equal(deepcopy(data.augment)(x, drawn(2)), data.augment(x, drawn(2)))


def test_names():
    assert named("none", (0.0,)) is None
    assert named("flip", (0.0,)) is flip
    with pytest.raises(ValueError, match=r"^dataset\.call\.augment=rotate: must be none, flip or"):
        named("rotate", (0.0,))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["crop_flip", "flip"])
def test_a_gpu_gives_the_same_batch(name):
    data = pictures(augment=name)
    x = data.inputs(data.train_rows)
    there = data.augment(x.cuda(), drawn(7))
    assert there.is_cuda
    assert there.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(there.cpu(), data.augment(x, drawn(7)))
