"""CIFAR-10 in its authors' format, written here as Python 2 and Python 3 write it."""

import pickle
import struct

import numpy as np
import pytest

from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError
from pudistill.experiments.scales import SCALES

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, as in the original files."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, text):
        if len(text) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch[bytes] = save_bytes


def dump(path, content, pickler):
    with path.open("wb") as file:
        pickler(file, protocol=2).dump(content)


@pytest.fixture(params=[Python2Pickler, pickle.Pickler], ids=["python2", "python3"])
def pickler(request):
    return request.param


@pytest.fixture(scope="module")
def real(real_data):
    return load_dataset(real_data("cifar10/test-00000-of-00001.parquet")).take(range(24))


@pytest.fixture
def folder(tmp_path, real, pickler):
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = slice(4 * number, 4 * number + 4)
        batch = {
            b"batch_label": b"a batch",
            b"labels": [NAMES.index(label) for label in real.y[rows]],
            b"data": np.ascontiguousarray(real.X[rows].transpose(0, 3, 1, 2).reshape(4, -1)),
            b"filenames": [b"some.png"] * 4,
        }
        dump(root / name, batch, pickler)
    meta = {
        b"num_cases_per_batch": 4,
        b"label_names": [name.encode() for name in NAMES],
        b"num_vis": 3072,
    }
    dump(root / "batches.meta", meta, pickler)
    return root


def test_folder_holds_the_training_batches(folder, real):
    data = load_dataset(folder)
    np.testing.assert_array_equal(data.X, real.X[:20])
    assert data.X.flags.c_contiguous
    assert data.X.flags.writeable
    assert list(data.y) == list(real.y[:20])
    assert list(data.ids) == [str(row) for row in range(20)]


def test_one_batch(folder, real):
    data = load_dataset(folder / "test_batch")
    np.testing.assert_array_equal(data.X, real.X[20:])
    assert list(data.y) == list(real.y[20:])
    assert load_dataset(folder / "test_batch", image_size=16).X.shape == (4, 16, 16, 3)


def test_arrays_in_fortran_order(folder, real, pickler):
    flat = np.asfortranarray(real.X[:2].transpose(0, 3, 1, 2).reshape(2, -1))
    dump(folder / "test_batch", {b"labels": [0, 1], b"data": flat}, pickler)
    np.testing.assert_array_equal(load_dataset(folder / "test_batch").X, real.X[:2])


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_is_never_run(folder, tmp_path, protocol):
    victim = tmp_path / "victim"
    content = {b"data": Malicious(open, str(victim), "w"), b"labels": [0]}
    (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(InputError, match=r"test_batch: .* \(it asks for (io|_io|__builtin__)"):
        load_dataset(folder / "test_batch")
    assert not victim.exists()


def test_dotted_names_do_not_evade_the_check(folder):
    stream = b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93."
    (folder / "test_batch").write_bytes(stream)
    with pytest.raises(InputError, match=r"asks for numpy\.ndarray\.dumps"):
        load_dataset(folder / "test_batch")


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {b"labels": [0, 1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, b"1"]},
        {b"data": np.zeros((2, 100), np.uint8), b"labels": [0, 1]},
        {b"data": np.zeros((2, 3072)), b"labels": [0, 1]},
        {b"data": np.full((2, 3072), None), b"labels": [0, 1]},
        {b"data": b"text", b"labels": [0, 1]},
    ],
)
def test_refuses_other_contents(folder, pickler, batch):
    dump(folder / "test_batch", batch, pickler)
    with pytest.raises(InputError, match="test_batch: "):
        load_dataset(folder / "test_batch")


def test_refuses_damaged_and_missing_files(folder):
    content = (folder / "data_batch_3").read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"hello"):
        (folder / "data_batch_3").write_bytes(damaged)
        with pytest.raises(InputError, match=r"data_batch_3: this is not a file of CIFAR-10"):
            load_dataset(folder)
    (folder / "data_batch_3").unlink()
    with pytest.raises(InputError, match=r"data_batch_3: this part of CIFAR-10 is missing"):
        load_dataset(folder)


def test_experiments_find_it(folder, tmp_path):
    (tmp_path / "cifar10").mkdir()
    folder.rename(tmp_path / "cifar10" / folder.name)
    train, test, edition = SCALES["full"].load(tmp_path, False)
    assert edition is None
    assert (len(train), len(test)) == (20, 4)
    assert train.X.shape[1:] == (32, 32, 3)
