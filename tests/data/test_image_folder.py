"""Image folders."""

import numpy as np
import pytest

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from tests.helpers.pictures import write_picture


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    for row, name in enumerate(["dog/b.PNG", "cat/2.jpeg", "cat/10.bmp", "cat/ä ö.gif"]):
        write_picture(root / name, row)
    return root


def test_labels_are_folders_and_ids_are_paths(folder):
    (folder / "README.md").write_text("pictures of pets")
    (folder / "cat" / ".DS_Store").write_text("x")
    (folder / "cat" / "Thumbs.db").write_text("x")
    (folder / ".cache").mkdir()
    data = load_dataset(folder)
    assert list(data.ids) == ["cat/10.bmp", "cat/2.jpeg", "cat/ä ö.gif", "dog/b.PNG"]
    assert list(data.y) == ["cat", "cat", "cat", "dog"]
    assert data.X.shape == (4, 4, 5)
    assert [int(picture[0, 0]) for picture in data.X] == [2, 1, 3, 0]
    assert data.name == "pets"
    assert not data.trusted.any()


def test_real_pictures(real_data, tmp_path):
    data = load_dataset(real_data("cifar10/test-00000-of-00001.parquet")).take(range(60))
    for picture, label, name in zip(data.X, data.y, data.ids, strict=True):
        write_picture(tmp_path / label / f"{name}.png", picture)
    read = load_dataset(tmp_path)
    order = [list(data.ids).index(name.split("/")[1].removesuffix(".png")) for name in read.ids]
    np.testing.assert_array_equal(read.X, data.X[order])
    assert list(read.y) == list(data.y[order])


def test_trusted_file_names_paths(folder, tmp_path):
    trusted = tmp_path / "trusted.csv"
    trusted.write_text("id,label\ncat/2.jpeg,dog\ndog/b.PNG,dog\n")
    data = load_dataset(folder, trusted=trusted)
    assert list(data.y) == ["cat", "cat", "cat", "dog"]
    assert list(data.verified) == [None, "dog", None, "dog"]


def test_flat_folder_where_no_labels_are_required(tmp_path):
    write_picture(tmp_path / "new.png")
    data = load_dataset(tmp_path, labels_required=False)
    assert list(data.ids) == ["new.png"]
    assert list(data.y) == [None]
    with pytest.raises(InputError, match=r"new\.png: this picture has no label"):
        load_dataset(tmp_path)


def test_unreadable_picture_is_named_or_skipped(folder, tmp_path):
    (folder / "cat" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "cat" / "notes.txt").write_text("mice")
    with pytest.raises(InputError, match=r"notes\.txt: this file is not a pic.*--skip-bad.* table"):
        load_dataset(folder)
    (folder / "cat" / "notes.txt").unlink()
    with pytest.raises(InputError, match=r"cat/a\.png: this picture cannot be read.*--skip-bad"):
        load_dataset(folder)
    trusted = tmp_path / "trusted.csv"
    trusted.write_text("id\ncat/a.png\ndog/b.PNG\n")
    data = load_dataset(folder, skip_bad=True, trusted=trusted)
    assert [name for name, _ in data.skipped] == ["cat/a.png"]
    assert list(data.ids[data.trusted]) == ["dog/b.PNG"]


def test_nothing_is_left_when_all_are_skipped(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"no samples \(2 were skipped\)"):
        load_dataset(tmp_path, skip_bad=True)


def test_different_sizes(folder):
    write_picture(folder / "dog" / "z.png", size=(9, 9))
    with pytest.raises(InputError, match=r"10\.bmp 5 x 4 and .*dog/z\.png 9 x 9: .*--image-size N"):
        load_dataset(folder)
    assert load_dataset(folder, image_size=3).X.shape == (5, 3, 3)


def test_one_class_only(tmp_path):
    write_picture(tmp_path / "dog" / "1.png")
    with pytest.raises(InputError, match="only one class, 'dog'"):
        load_dataset(tmp_path)


def test_refuses_other_shapes_of_folders(folder):
    with pytest.raises(InputError, match=r"lies too deep: .*<label>/<file>; .* name .*pets as"):
        load_dataset(folder.parent)
    stray = write_picture(folder / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png: this picture lies beside"):
        load_dataset(folder)
    stray.unlink()
    empty = folder.parent / "empty"
    (empty / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="there is no picture in this folder"):
        load_dataset(empty)
    with pytest.raises(InputError, match="not a table and has no columns: leave --label-column"):
        load_dataset(folder, label_column="label")
