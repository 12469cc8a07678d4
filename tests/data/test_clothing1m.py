"""Clothing1M's own format, on real pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from pudistill.data.lazy_pictures import is_lazy
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError


def test_clean_training_samples_are_trusted(clothing):
    data = load_dataset(clothing, image_size=32)
    assert data.X.shape == (36, 32, 32, 3)
    assert data.classes == ("Knitwear", "Shirt", "T-Shirt")
    assert data.trusted.sum() == 12
    assert list(data.verified[24:27]) == ["T-Shirt", "Shirt", "Knitwear"]
    assert list(data.y[24:27]) == [
        "Shirt",
        "Shirt",
        "Knitwear",
    ]  # the first was verified as another class
    assert data.verified[0] is None
    assert data.ids[0] == "images/0/noisy_train-0.jpg"
    assert data.name == "clothing1m"


def test_a_clean_sample_may_have_no_noisy_label(clothing):
    file = clothing / "noisy_label_kv.txt"
    lines = [line for line in file.read_text().splitlines() if "clean_train-0." not in line]
    file.write_text("\n".join(lines))
    data = load_dataset(clothing, image_size=8)
    assert data.y[24] is None
    assert data.verified[24] == "T-Shirt"


def test_lists_of_clean_keys_are_test_data(clothing):
    test = load_dataset(clothing / "clean_test_key_list.txt", image_size=32)
    assert len(test) == 12
    assert list(test.y[:3]) == ["T-Shirt", "Shirt", "Knitwear"]
    assert len(load_dataset(clothing / "clean_val_key_list.txt", image_size=32)) == 9


def test_lists_can_have_a_folder_and_pictures_none(clothing):
    (clothing / "annotations").mkdir()
    for file in clothing.glob("*.txt"):
        file.rename(clothing / "annotations" / file.name)
    expected = load_dataset(clothing, image_size=16)
    for folder in (clothing / "images").iterdir():
        folder.rename(clothing / folder.name)
    data = load_dataset(clothing, image_size=16)
    np.testing.assert_array_equal(data.X, expected.X)
    assert data.name == "clothing1m"
    assert len(load_dataset(clothing / "annotations" / "clean_val_key_list.txt", image_size=8)) == 9


def test_missing_pictures_are_counted(clothing):
    for n in range(7):
        (clothing / f"images/{n % 2}/noisy_train-{n}.jpg").unlink()
    with pytest.raises(InputError, match=r"7 of 36 pictures are missing.*noisy_train-4.jpg: fetch"):
        load_dataset(clothing, image_size=32)
    with pytest.raises(InputError, match="noisy_train-0") as error:
        load_dataset(clothing, image_size=32)
    assert str(error.value).count(".jpg") == 5
    data = load_dataset(clothing, image_size=32, skip_bad=True)
    assert len(data) == 29
    assert len(data.skipped) == 7
    assert data.ids[0] == "images/1/noisy_train-7.jpg"


def test_unreadable_pictures_are_skipped_with_the_missing(clothing):
    (clothing / "images/0/noisy_train-0.jpg").unlink()
    (clothing / "images/1/clean_train-1.jpg").write_bytes(b"nothing")
    data = load_dataset(clothing, image_size=32, skip_bad=True)
    assert len(data) == 34
    assert data.skipped[0][1] == "missing"
    assert data.trusted.sum() == 11
    assert all(data.verified[data.trusted] != np.array(None))


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("noisy_label_kv.txt", "images/0/noisy_train-0.jpg 14", "line 37: .*from 0 to 13"),
        ("noisy_label_kv.txt", "images/0/noisy_train-0.jpg", "line 37: expected a key and a label"),
        ("clean_train_key_list.txt", "images/0/other.jpg", "no label for 1 of 13 keys.*other.jpg"),
        ("clean_train_key_list.txt", "../../etc/passwd", "line 13: .*leads out"),
        ("noisy_train_key_list.txt", "images/0/noisy_train-0.jpg", "occurs 2 times"),
    ],
)
def test_the_error_names_the_wrong_line(clothing, name, line, says):
    with (clothing / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=says):
        load_dataset(clothing, image_size=8)


@pytest.mark.parametrize(
    "name", ["clean_label_kv.txt", "noisy_train_key_list.txt", "noisy_label_kv.txt"]
)
def test_a_missing_list_is_named(clothing, name):
    (clothing / name).unlink()
    with pytest.raises(InputError, match=f"{name}: this part of Clothing1M is missing"):
        load_dataset(clothing, image_size=8)


def test_from_within_the_folder_of_the_lists(clothing, monkeypatch):
    (clothing / "annotations").mkdir()
    for file in clothing.glob("*.txt"):
        file.rename(clothing / "annotations" / file.name)
    monkeypatch.chdir(clothing / "annotations")
    assert len(load_dataset("clean_val_key_list.txt", image_size=8)) == 9


def test_pictures_too_large_for_memory_stay_on_disk(clothing, monkeypatch):
    expected = load_dataset(clothing, image_size=8).X
    memory = SimpleNamespace(available=36 * 8 * 8 * 3 - 1)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    found = load_dataset(clothing, image_size=8).X
    assert is_lazy(found)
    np.testing.assert_array_equal(found, expected)
