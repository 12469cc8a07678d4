"""NumPy archives."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

from pudistill import PUDistillClassifier
from pudistill.data.loading import load_dataset
from pudistill.exceptions import InputError


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return path

    return write


X = np.arange(8.0).reshape(4, 2)
Y = np.array(["a", "b", "a", ""])


def test_features_with_everything(save):
    data = load_dataset(
        save(
            X=X.astype(np.float16),
            y=Y,
            trusted=np.array([True, False, False, False]),
            ids=np.array(["i", "j", "k", "l"]),
            true_labels=np.array(["a", "a", "a", "b"]),
            feature_names=np.array(["u", "v"]),
        )
    )
    assert data.X.dtype == np.float32
    np.testing.assert_array_equal(data.X, X)
    assert list(data.y) == ["a", "b", "a", None]
    assert list(data.verified) == ["a", None, None, None]
    assert list(data.ids) == ["i", "j", "k", "l"]
    assert list(data.true_labels) == ["a", "a", "a", "b"]
    assert data.feature_names == ("u", "v")


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_array_stays_in_its_file(save, order):
    wide = np.asarray(np.random.default_rng(0).normal(size=(4, 5)), np.float16, order=order)
    path = save(X=wide, y=Y)
    found, expected = load_dataset(path, lazy=True).X, load_dataset(path).X
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    for dtype in (np.float64, np.int32, np.uint8):
        path = save(X=X.astype(dtype), y=Y)
        np.testing.assert_array_equal(load_dataset(path, lazy=True).X, load_dataset(path).X)
    np.savez_compressed(path, X=X, y=Y)
    np.testing.assert_array_equal(load_dataset(path, lazy=True).X, X)
    np.savez(path, X=np.array([["a", None]]), y=Y)
    with pytest.raises(InputError, match="'X' holds Python objects"):
        load_dataset(path, lazy=True)


def test_float16_features_in_a_file_train_the_same_model_as_in_memory(save):
    features, labels = load_wine(return_X_y=True)
    path = save(X=features.astype(np.float16), y=labels, trusted=np.arange(len(labels)) % 5 == 0)
    tables = []
    for lazy in (False, True):
        data = load_dataset(path, lazy=lazy)
        classifier = PUDistillClassifier(n_members=2, max_iter=1, compare=False, random_state=0)
        tables.append(classifier.fit(data.X, *data.for_fit()).label_table_)
    assert isinstance(data.X, np.memmap)
    pd.testing.assert_frame_equal(*tables)


def test_verified_labels_say_who_is_trusted(save):
    data = load_dataset(save(X=X, y=[0, 1, 1, 0], verified=[np.nan, 0, np.nan, 0]))
    assert list(data.y) == ["0", "1", "1", "0"]
    assert list(data.verified) == [None, "0", None, "0"]
    assert list(data.trusted) == [False, True, False, True]


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3)])
def test_pictures(save, shape):
    pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = load_dataset(save(X=pictures, y=[0, 1, 0, 1]))
    np.testing.assert_array_equal(data.X, pictures.reshape(data.X.shape))
    assert data.is_pictures
    assert data.X.shape == (shape if shape[-1] != 1 else shape[:3])
    assert load_dataset(save(X=pictures, y=[0, 1, 0, 1]), image_size=4).X.shape[1:3] == (4, 4)


def test_labels_may_be_absent_where_none_are_required(save):
    path = save(X=X)
    assert list(load_dataset(path, labels_required=False).y) == [None] * 4
    with pytest.raises(InputError, match=r"no array 'y' \(found: X\)"):
        load_dataset(path)


def test_real_features(real_data):
    data = load_dataset(real_data("cifar10-features/features.npz"))
    assert data.X.shape == (50_000, 256)
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": Y}, "no array 'X'"),
        ({"X": X, "y": Y.astype(object)}, r"'y' holds Python objects: save text with .astype\(str"),
        ({"X": X, "y": Y, "trusted": [0, 1, 0, 0]}, "'trusted' is of type int64 .*boolean mask"),
        ({"X": X, "y": Y, "trusted": [True]}, r"shape \(1,\): save .*\(4,\)"),
        ({"X": X, "y": [0.5, 1, 0, 1]}, "'y' holds 0.5, which is not a class"),
        ({"X": X, "y": Y.astype(bytes)}, r"'y' is of type \|S1"),
        ({"X": X, "y": Y[:3]}, "4 samples but 3 entries in y"),
        ({"X": X, "y": X}, r"'y' has shape \(4, 2\)"),
        ({"X": np.ones((4, 3, 8, 8), np.uint8), "y": Y}, r"'X' has shape \(4, 3, 8, 8\)"),
        ({"X": X.astype(str), "y": Y}, "'X' is of type <U"),
        ({"X": X, "y": Y, "ids": np.array(["a", "", "b", "c"])}, "entry 1 of 'ids' is missing"),
        (
            {"X": X, "y": Y, "feature_names": np.array(["u"])},
            "'feature_names' does not hold one name",
        ),
        ({"X": X / [1, np.nan], "y": Y}, "'0', column 1 holds nan"),
        (
            {"X": X, "y": Y, "trusted": [True, True, False, False], "verified": Y},
            "not the samples with a verified label",
        ),
    ],
)
def test_refuses(save, arrays, message):
    with pytest.raises(InputError, match=message):
        load_dataset(save(**{name: np.array(values) for name, values in arrays.items()}))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"hello"])
def test_refuses_files_that_are_not_archives(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.npz: "):
        load_dataset(path)


def test_image_size_is_for_pictures(save):
    with pytest.raises(InputError, match="holds features, not pictures: leave --image-size out"):
        load_dataset(save(X=X, y=Y), image_size=8)
