import numpy as np
import pytest
import torch
from PIL import Image

AGES = [1, 19, 20, 39, 40, 59, 60, 79, 80, 116, 26]


@pytest.fixture
def faces(tmp_path):
    """One grey level an age; written out of order, under the names of the real files."""
    for i in (5, 2, 9, 0, 10, 7, 1, 8, 3, 6, 4):
        age = AGES[i]
        face = Image.new("RGB", (20, 20), (age * 2, 0, 0))
        face.save(tmp_path / f"{age}_0_1_2017011617452{i:02}.jpg.chip.jpg", quality=95)
    (tmp_path / ".DS_Store").touch()
    return tmp_path


def test_ages_become_five_classes(load, faces):
    data = load("utkface", {"path": faces, "call.size": 24})
    assert data.x.shape == (11, 24, 24, 3)
    assert data.n_classes == 5
    assert data.augment is None
    ages = (data.x[..., 0].float().mean((1, 2)) / 2).round()
    assert sorted(ages.tolist()) == sorted(AGES)
    assert data.y.tolist() == [min(int(age) // 20, 4) for age in ages]


def test_files_are_sorted_by_name_and_a_fifth_of_them_is_drawn(load, faces):
    data = load("utkface", {"path": faces, "call.size": 4})
    names = sorted(str(age) + "_" for age in AGES)  # as text: 116_ before 19_ before 1_
    assert data.y.tolist() == [min(int(name[:-1]) // 20, 4) for name in names]
    permuted = [int(names[i][:-1]) for i in np.random.default_rng(123).permutation(11)]
    ages = (data.x[..., 0].float().mean((1, 2)) / 2).round().tolist()
    assert [ages[i] for i in data.test_rows] == permuted[:2]
    assert [ages[i] for i in data.train_rows] == permuted[2:]


def test_the_size_of_the_option_and_its_constants(load, faces):
    data = load("utkface", {"path": faces})
    assert data.shape == (3, 224, 224)
    expected = (data.x[:1, 0, 0].float() / 255 - torch.tensor([0.485, 0.456, 0.406])) / (
        torch.tensor([0.229, 0.224, 0.225])
    )
    torch.testing.assert_close(data.inputs(torch.tensor([0]))[:, :, 0, 0], expected)


@pytest.mark.parametrize("name", ["young_0_1.jpg", "39.jpg", "-3_0.jpg"])
def test_a_name_without_an_age_is_an_error_that_names_it(load, faces, name):
    Image.new("RGB", (4, 4)).save(faces / name)
    with pytest.raises(ValueError, match=f"^dataset=utkface: .*{name} does not begin with an age"):
        load("utkface", {"path": faces})


def test_a_file_that_is_no_image_is_named(load, faces):
    (faces / "33_0_0_1.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"^dataset=utkface: .*33_0_0_1\.jpg cannot be read: "):
        load("utkface", {"path": faces, "call.size": 4})


def test_a_missing_folder_is_said(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^dataset=utkface: put the aligned and cropped"):
        load("utkface", {"path": tmp_path / "nowhere"})
