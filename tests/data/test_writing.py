"""What is written is read back the same."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pudistill.data.dataset import TrustedDataset
from pudistill.data.loading import load_dataset
from pudistill.data.tables import NO_FEATURES, TRUE_LABEL, VERIFIED_LABEL
from pudistill.data.writing import write_table
from pudistill.exceptions import InputError

PARTS = ("X", "y", "trusted", "verified", "ids", "true_labels")


def assert_same(read, written, ignored=()):
    for part in PARTS:
        if part not in ignored:
            np.testing.assert_array_equal(
                getattr(read, part), getattr(written, part), err_msg=part, strict=part == "X"
            )


def pictures(n, grey=False):
    shape = (n, 5, 4) if grey else (n, 5, 4, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@st.composite
def samples(draw):
    ids = draw(st.lists(texts, min_size=2, max_size=8, unique=True))
    label_lists = st.lists(st.none() | texts, min_size=len(ids), max_size=len(ids))
    y = np.array(draw(label_lists), dtype=object)
    y[:2] = ["first", "second"]
    verified = np.array(draw(label_lists), dtype=object)
    if draw(st.booleans()):  # only a mask is known
        verified = np.where([label is None for label in verified], verified, y)
    values = st.floats(allow_nan=False, allow_infinity=False)
    X = draw(st.lists(values, min_size=2 * len(ids), max_size=2 * len(ids)))
    return TrustedDataset(
        X=np.reshape(X, (len(ids), 2)),
        y=y,
        trusted=np.array([label is not None for label in verified]),
        verified=verified,
        ids=np.array(ids, dtype=object),
        true_labels=draw(st.none() | label_lists.map(lambda known: np.array(known, object))),
        feature_names=tuple(draw(st.lists(texts, min_size=2, max_size=2, unique=True))),
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
@settings(max_examples=40)
@given(samples())
def test_features_round_trip(suffix, data):
    reserved = {*NO_FEATURES, TRUE_LABEL, VERIFIED_LABEL}
    if reserved & {*data.feature_names}:
        data = replace(data, feature_names=("u", "v"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{suffix}"
        write_table(data, path)
        read = load_dataset(path)
    assert_same(read, data)
    assert read.feature_names == data.feature_names


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("grey", [True, False])
def test_pictures_round_trip(tmp_path, suffix, grey):
    data = replace(load_dataset("iris"), X=pictures(150, grey), feature_names=None)
    data = data.with_trusted(["3", "60"], ["virginica", "versicolor"])
    write_table(data, tmp_path / f"data{suffix}")
    assert_same(load_dataset(tmp_path / f"data{suffix}"), data)


def test_float32_stays_float32_in_parquet_and_keeps_its_values_in_csv(tmp_path):
    data = load_dataset("iris")
    data = replace(data, X=data.X.astype(np.float32))
    for suffix, dtype in ((".parquet", np.float32), (".npz", np.float32), (".csv", np.float64)):
        write_table(data, tmp_path / f"data{suffix}")
        read = load_dataset(tmp_path / f"data{suffix}")
        assert read.X.dtype == dtype
        np.testing.assert_array_equal(read.X, data.X)


def test_many_rows_are_written_in_blocks(tmp_path):
    data = load_dataset("digits")
    write_table(data, tmp_path / "digits.parquet")
    assert_same(load_dataset(tmp_path / "digits.parquet"), data)


def test_features_without_names_get_some(tmp_path):
    write_table(replace(load_dataset("wine"), feature_names=None), tmp_path / "wine.csv")
    assert load_dataset(tmp_path / "wine.csv").feature_names[:2] == ("x0", "x1")


def test_hugging_face_shows_the_pictures(tmp_path):
    hf = pytest.importorskip("datasets")
    data = replace(load_dataset("iris").take([0, 149]), X=pictures(2), feature_names=None)
    write_table(data, tmp_path / "data.parquet")
    rows = hf.Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path))
    np.testing.assert_array_equal(np.asarray(rows[1]["image"]), data.X[1])
    assert rows[1]["label"] == "virginica"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("there.csv", {}, "this file exists already"),
        ("data.txt", {}, r"ends in \.parquet, \.csv, \.npz"),
        ("nowhere/data.csv", {}, "no folder .*nowhere: create it first"),
        ("data.csv", {"X": pictures(150)}, "CSV cannot hold pictures"),
        ("data.csv", {"feature_names": ("label", "b", "c", "d")}, "a feature is called 'label'"),
        ("data.csv", {"feature_names": ("a", "truth", "c", "d")}, "a feature is called 'truth'"),
        ("data.npz", {"ids": np.array([f"{n}\0" for n in range(150)], object)}, "ends in NUL"),
    ],
)
def test_refuses(tmp_path, name, change, message):
    (tmp_path / "there.csv").write_text("precious")
    with pytest.raises(InputError, match=message):
        write_table(replace(load_dataset("iris"), **change), tmp_path / name)
    assert os.listdir(tmp_path) == ["there.csv"]  # noqa: PTH208
    assert (tmp_path / "there.csv").read_text() == "precious"


def test_refuses_nothing(tmp_path):
    with pytest.raises(InputError, match="no samples to write"):
        write_table(load_dataset("iris").take([]), tmp_path / "data.csv")


def test_nothing_is_left_of_an_interrupted_file(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pudistill.data.writing.encode_picture", interrupt)
    data = replace(load_dataset("iris"), X=pictures(150), feature_names=None)
    with pytest.raises(KeyboardInterrupt):
        write_table(data, tmp_path / "data.parquet")
    assert list(tmp_path.iterdir()) == []
