from io import BytesIO

import numpy as np
import pytest
import torch

DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 256, (20, 6, 5, 3), np.uint8)
FEATURES = DRAW.normal(3, 2, (20, 4))
CLASSES = np.arange(20) % 3


@pytest.fixture
def own(load, tmp_path):
    """``own({"call.augment": "flip"}, x_train=..., y_train=...)``: write the arrays and load."""

    def own(changes=None, /, **arrays):
        np.savez(tmp_path / "own.npz", **arrays)
        return load("npz", {"path": tmp_path / "own.npz", **(changes or {})})

    return own


def test_images_with_an_official_test_part(own):
    data = own(x_train=PIXELS[:15], y_train=CLASSES[:15], x_test=PIXELS[15:], y_test=CLASSES[15:])
    assert data.kind == "image"
    assert data.n_classes == 3
    assert data.train_rows.tolist() == list(range(15))
    np.testing.assert_array_equal(data.x, PIXELS)
    assert data.y.tolist() == CLASSES.tolist()
    x = data.inputs(data.train_rows)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3))


def test_without_a_test_part_a_fifth_is_held_out(own):
    data = own(x_train=PIXELS, y_train=CLASSES)
    permuted = np.random.default_rng(123).permutation(20)
    np.testing.assert_array_equal(data.x[data.test_rows], PIXELS[permuted[:4]])
    np.testing.assert_array_equal(data.x[data.train_rows], PIXELS[permuted[4:]])
    assert data.y[data.test_rows].tolist() == CLASSES[permuted[:4]].tolist()


def test_grey_images_get_a_channel(own):
    data = own(x_train=PIXELS[..., 0], y_train=CLASSES)
    assert data.shape == (1, 6, 5)


def test_a_constant_channel_is_only_centred(own):
    pixels = PIXELS.copy()
    pixels[..., 1] = 200
    data = own(x_train=pixels, y_train=CLASSES)
    assert data.inputs(data.train_rows)[:, 1].abs().max() < 1e-5


def test_given_constants_are_taken(own):
    data = own({"call.mean": [0.5], "call.std": [0.25]}, x_train=PIXELS, y_train=CLASSES)
    x = data.inputs(torch.tensor([3]))
    torch.testing.assert_close(x, (data.x[3:4].permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)


def test_augmentation_is_an_option(own):
    assert own(x_train=PIXELS, y_train=CLASSES).augment is None
    data = own({"call.augment": "crop_flip"}, x_train=PIXELS, y_train=CLASSES)
    x = data.inputs(data.train_rows)
    assert data.augment(x, torch.Generator()).shape == x.shape


def test_numbers_are_standardised_over_the_training_part(own):
    arrays = {"x_train": FEATURES[:15], "y_train": CLASSES[:15], "y_test": CLASSES[15:]}
    data = own(**arrays, x_test=FEATURES[15:])
    assert data.kind == "tabular"
    assert data.x.dtype == torch.float32
    expected = (FEATURES - FEATURES[:15].mean(0)) / FEATURES[:15].std(0)
    np.testing.assert_allclose(data.x, expected, rtol=1e-5, atol=1e-6)
    other = own(**arrays, x_test=FEATURES[15:] + 100)
    assert torch.equal(other.x[:15], data.x[:15])
    assert not torch.equal(other.x[15:], data.x[15:])


@pytest.mark.parametrize("x", [FEATURES, PIXELS], ids=["tabular", "image"])
def test_float_labels_are_a_regression(own, x):
    y = FEATURES[:, 0] * 100
    data = own(x_train=x, y_train=y)
    assert data.n_classes == 0
    assert data.y.dtype == torch.float32
    train = data.y[data.train_rows]
    assert train.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(data.y, y)[0, 1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": PIXELS}, "the archive lacks y_train"),
        ({"x_train": PIXELS, "y_train": CLASSES, "x_test": PIXELS}, "the archive lacks y_test"),
        ({"x_train": PIXELS, "y_train": CLASSES[:9]}, "x_train and y_train do not fit"),
        ({"x_train": PIXELS[:0], "y_train": CLASSES[:0]}, "x_train and y_train do not fit"),
        ({"x_train": PIXELS, "y_train": CLASSES[:, None]}, "x_train and y_train do not fit"),
        ({"x_train": PIXELS, "y_train": CLASSES + 1}, "labels must be 0, .* is 1 but no 0"),
        ({"x_train": PIXELS, "y_train": CLASSES * 2}, "labels must be 0, .* is 2 but no 1"),
        ({"x_train": PIXELS, "y_train": CLASSES - 1}, "labels must be 0, .* is -1 but no 0"),
        ({"x_train": PIXELS, "y_train": CLASSES.astype(str)}, "y_train must hold numbers, not <U"),
        ({"x_train": PIXELS, "y_train": CLASSES * np.nan}, "y has values that are not finite"),
        ({"x_train": FEATURES * np.inf, "y_train": CLASSES}, "x has values that are not finite"),
        ({"x_train": FEATURES.astype(str), "y_train": CLASSES}, "x_train must hold numbers"),
        ({"x_train": PIXELS / 255, "y_train": CLASSES}, "x must be uint8 .* not float64"),
        ({"x_train": PIXELS[None].repeat(20, 0), "y_train": CLASSES}, "x must be uint8 .* not"),
        ({"x_train": PIXELS.astype(object), "y_train": CLASSES}, "is no archive of plain arrays"),
        (
            {"x_train": PIXELS, "y_train": CLASSES, "x_test": FEATURES, "y_test": CLASSES},
            "x_train and x_test differ in shape or type",
        ),
        (
            {"x_train": PIXELS, "y_train": CLASSES, "x_test": PIXELS, "y_test": CLASSES * 1.0},
            "y_train and y_test differ in shape or type",
        ),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(own, arrays, message):
    with pytest.raises(ValueError, match=f"^dataset=npz: .*{message}") as caught:
        own(**arrays)
    assert "\n" not in str(caught.value)


def test_a_table_takes_no_augmentation(own):
    with pytest.raises(ValueError, match=r"^dataset\.call\.augment=flip: a table takes none"):
        own({"call.augment": "flip"}, x_train=FEATURES, y_train=CLASSES)


def test_a_missing_file_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^dataset=npz: there is no file .*x\.npz: set "):
        load("npz", {"path": tmp_path / "x.npz"})


def broken_zip():
    file = BytesIO()
    np.savez_compressed(file, x_train=np.arange(1000), y_train=np.arange(1000))
    data = bytearray(file.getvalue())
    data[100:200] = bytes(100)
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [b"", b"text, not arrays", b"PK\x03\x04 half an archive", b"\x93NUMPY\x01\x00", broken_zip()],
    ids=["empty", "text", "cut", "npy", "damaged"],
)
def test_what_is_no_archive_is_refused(load, tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"^dataset=npz: .*x\.npz is no archive of plain arrays"):
        load("npz", {"path": tmp_path / "x.npz"})


def test_a_single_array_is_no_archive(load, tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, PIXELS)
    with pytest.raises(ValueError, match=r"^dataset=npz: .*x\.npz is no archive of plain arrays"):
        load("npz", {"path": tmp_path / "x.npz"})


REFUSED = "refused before anything is trained, with what to store instead"
FIRST = r"looks like channels first: store x\.transpose\(0, 2, 3, 1\)"


@pytest.mark.tried("images with channels first, (N, 3, H, W) and the like", REFUSED)
@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (4, 9, 7), (3, 4, 4), (1, 2, 2), (3, 32, 5)]
)
def test_channels_first_are_refused(own, shape):
    x = DRAW.integers(0, 256, (20, *shape), np.uint8)
    with pytest.raises(ValueError, match=FIRST):
        own(x_train=x, y_train=CLASSES)
    assert own(x_train=x.transpose(0, 2, 3, 1), y_train=CLASSES).shape == shape


@pytest.mark.tried("class labels stored as whole floats", "refused: says how to say which")
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_whole_floats_as_labels_are_refused_unless_the_task_is_said(own, kind):
    y = CLASSES.astype(kind)
    with pytest.raises(ValueError, match=r"dataset\.call\.task=classes or dataset\.call\.task=reg"):
        own(x_train=FEATURES, y_train=y)
    classes = own({"call.task": "classes"}, x_train=FEATURES, y_train=y)
    assert (classes.n_classes, classes.y.tolist()) == (3, CLASSES.tolist())
    for labels in (y, CLASSES):
        assert own({"call.task": "regression"}, x_train=FEATURES, y_train=labels).n_classes == 0
    with pytest.raises(ValueError, match="not whole"):
        own({"call.task": "classes"}, x_train=FEATURES, y_train=y + 0.5)
    with pytest.raises(ValueError, match=r"^dataset\.call\.task=other: must be null, classes or"):
        own({"call.task": "other"}, x_train=FEATURES, y_train=y)


@pytest.mark.tried("a column of ±1e300, of ±1e-300, or a test value of 1e300", REFUSED)
@pytest.mark.parametrize("scale", [1e300, 1e200, 1e-300])
def test_columns_that_cannot_be_standardised_are_refused(own, scale):
    x = FEATURES.copy()
    x[:, 2] = np.where(CLASSES, 1, -1) * scale
    with pytest.raises(ValueError, match="column 2 cannot be standardised: its values, -1e"):
        own(x_train=x, y_train=CLASSES)
    with pytest.raises(ValueError, match="the target cannot be standardised"):
        own(x_train=FEATURES, y_train=x[:, 2] * (1 + FEATURES[:, 0] / 100))
    tested = FEATURES.copy()
    tested[3, 1] = 1e300
    with pytest.raises(ValueError, match="column 1 cannot be standardised"):
        own(x_train=FEATURES, y_train=CLASSES, x_test=tested, y_test=CLASSES)


@pytest.mark.tried("one class only, no feature, no pixel, constant targets", REFUSED)
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": FEATURES, "y_train": CLASSES * 0}, "two classes at least"),
        ({"x_train": FEATURES, "y_train": CLASSES * 0 + 0.5}, "nothing to learn"),
        ({"x_train": FEATURES[:, :0], "y_train": CLASSES}, "nothing in it"),
        ({"x_train": PIXELS[:, :0], "y_train": CLASSES}, "no pixel"),
        ({"x_train": PIXELS.astype(int), "y_train": CLASSES}, r"astype\(np\.uint8\)"),
        ({"x_train": FEATURES, "y_train": np.eye(3)[CLASSES]}, "do not fit"),
    ],
)
def test_what_cannot_be_learnt_is_refused(own, arrays, message):
    with pytest.raises(ValueError, match=message):
        own(**arrays)


@pytest.mark.tried("a `dataset.call.std` or `mean` that is not finite", "refused, with the key")
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_constants_that_are_not_finite_are_refused(own, value):
    for name in ("std", "mean"):
        with pytest.raises(ValueError, match=rf"^dataset\.call\.{name}=\["):
            own({f"call.{name}": [value]}, x_train=PIXELS, y_train=CLASSES)
