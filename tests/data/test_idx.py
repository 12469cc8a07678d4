"""IDX files."""

import gzip
import shutil

import numpy as np
import pytest

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from tests.helpers.pictures import idx

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 3, 2), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PICTURES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([3, 0, 9, 3], np.uint8)))
    return tmp_path


def test_real_files(real_data):
    train = load_dataset(real_data("fashion-mnist"))
    assert train.X.shape == (60_000, 28, 28)
    assert list(train.y[:4]) == ["Ankle boot", "T-shirt/top", "T-shirt/top", "Dress"]
    test = load_dataset(real_data("fashion-mnist") / "t10k-images-idx3-ubyte.gz")
    assert test.X.shape == (10_000, 28, 28)
    assert test.classes == train.classes
    assert {int((test.y == name).sum()) for name in test.classes} == {1_000}


def test_plain_files(folder):
    for source in (folder, folder / "train-images-idx3-ubyte"):
        data = load_dataset(source)
        np.testing.assert_array_equal(data.X, PICTURES)
        assert list(data.y) == ["3", "0", "9", "3"]
        assert data.X.flags.writeable


def test_compressed_images_beside_plain_labels(folder):
    plain = folder / "train-images-idx3-ubyte"
    plain.with_suffix(".gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert len(load_dataset(folder)) == 4


def test_names_are_known_for_fashion(folder):
    fashion = folder / "Fashion"
    fashion.mkdir()
    for file in list(folder.glob("train*")):
        shutil.copy(file, fashion)
    assert list(load_dataset(fashion).y) == ["Dress", "T-shirt/top", "Ankle boot", "Dress"]


def test_labels_may_be_absent_where_none_are_required(folder):
    (folder / "train-labels-idx1-ubyte").unlink()
    assert list(load_dataset(folder, labels_required=False).y) == [None] * 4
    with pytest.raises(InputError, match="no file of labels beside it"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(PICTURES)[:-1], "23 bytes of data where .* says 24"),
        ("train-images-idx3-ubyte", b"", "not an IDX file"),
        ("train-images-idx3-ubyte", b"\x00\x00\x0d\x03" + bytes(12), "not an IDX file of bytes"),
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03", "not an IDX file"),
        ("train-images-idx3-ubyte", idx(PICTURES[0]), "these data have 2"),
        ("train-labels-idx1-ubyte", idx(np.zeros(3, np.uint8)), "3 labels for 4 images"),
    ],
)
def test_refuses(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        load_dataset(folder)


def test_refuses_truncated_archives_and_labels_alone(folder):
    images = folder / "train-images-idx3-ubyte"
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images.read_bytes())[:-12])
    with pytest.raises(InputError, match=r"ubyte\.gz: cannot be read .*: fetch the file again"):
        load_dataset(folder / "train-images-idx3-ubyte.gz")
    with pytest.raises(InputError, match=r"labels-idx1-ubyte: these are not images"):
        load_dataset(folder / "train-labels-idx1-ubyte")
    images.rename(folder / "t10k-images-idx3-ubyte")
    (folder / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(InputError, match="no training images: name the file"):
        load_dataset(folder)
