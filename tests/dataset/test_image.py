import pytest
import torch

from unlearnbench.dataset import holdout, image


def build(**changes):
    pixels = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3)
    arguments = {
        "x": pixels,
        "y": torch.tensor([0, 1]),
        "parts": holdout.official(1, 2),
        "n_classes": 2,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.1, 0.3],
        "augment": "none",
    }
    arguments.update(changes)
    return image.dataset(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_inputs_are_normalised_as_torchvision_does():
    data = build()
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.1, 0.3])
    expected = ((data.x / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(data.inputs(torch.tensor([0, 1])), expected)


def test_one_value_serves_all_channels():
    one, three = build(mean=[0.5], std=[0.2]), build(mean=[0.5] * 3, std=[0.2] * 3)
    rows = torch.tensor([0, 1])
    assert torch.equal(one.inputs(rows), three.inputs(rows))


def test_the_unit_scales_mean_and_std():
    assert build(unit=1.0).mean.tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert build().std.tolist() == pytest.approx([51.0, 25.5, 76.5])


def test_the_training_part_comes_first():
    data = build()
    assert data.train_rows.tolist() == [0]
    assert data.test_rows.tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.5, 0.5]}, r"^dataset\.call\.mean: must be one value or 3"),
        ({"std": []}, r"^dataset\.call\.std: must be one value or 3"),
        ({"std": [0.1, 0.0, 0.1]}, r"^dataset\.call\.std=\[0\.1, 0\.0, 0\.1\]: must be positive"),
    ],
)
def test_wrong_constants_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)
