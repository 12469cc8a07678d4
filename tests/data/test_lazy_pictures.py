"""Pictures on disk give the same results, and their number does not increase the memory."""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.utils import _safe_indexing
from torch import nn

from pudistill import PUDistillClassifier, TorchClassifier
from pudistill.data.hashing import key_of
from pudistill.data.lazy_pictures import DECODED, FOLDER, PictureWriter, is_lazy
from pudistill.data.loading import load_dataset
from pudistill.data.pictures import decode_pictures
from pudistill.exceptions import InputError
from pudistill.runs.fit import fit_run
from pudistill.runs.settings import Settings
from tests.helpers.pictures import digit_pictures, saved

RNG = np.random.default_rng(0)
N_DIGITS = 90


def decode(contents, **options):
    ids = [f"p{number}" for number in range(len(contents))]
    return decode_pictures(Path("table.parquet"), ids, contents, **options)


def in_shards(folder, encoded, labels, n_shards=3):
    """Write pictures as Hugging Face does; every fifth picture is trusted."""
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(labels)), n_shards)):
        table = {
            "image": [{"bytes": encoded[row], "path": None} for row in rows],
            "label": [str(label) for label in labels[rows]],
            "trusted": [bool(row % 5 == 0) for row in rows],
        }
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table["image"] = pa.array(table["image"], kind)
        pq.write_table(pa.table(table), folder / f"train-{number:05d}-of-{n_shards:05d}.parquet")
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits in shards; the files and what they hold."""
    pictures, y = digit_pictures(N_DIGITS, 3)
    encoded = [saved(picture, "JPEG") for picture in pictures]
    return in_shards(tmp_path_factory.mktemp("data") / "digits", encoded, y)


@pytest.mark.parametrize("n_in_cache", [0, 3, 5, 100])
@pytest.mark.parametrize("kinds", ["grey", "colour", "mixed", "damaged"])
def test_pictures_on_disk_are_those_of_the_array(kinds, n_in_cache, tmp_path):
    grey, colour = (RNG.integers(0, 256, (8, 6, 4, *c), dtype=np.uint8) for c in ((), (3,)))
    some = {"grey": list(grey), "colour": list(colour)}
    some["mixed"] = some["damaged"] = [*grey[:4], *colour[:2], *grey[4:6]]
    contents = [saved(picture) for picture in some[kinds]]
    if kinds == "damaged":
        contents[2:5] = b"no picture", None, contents[4]
    for number, content in enumerate(contents):
        if number % 2 and content is not None:  # every other one is a file of its own
            contents[number] = tmp_path / f"{number}.png"
            contents[number].write_bytes(content)
    skip_bad = kinds == "damaged"
    expected = decode(contents, skip_bad=skip_bad)
    room = n_in_cache * expected.X[0].nbytes
    found = decode(contents, skip_bad=skip_bad, lazy=True, cache=room)
    assert is_lazy(found.X)
    assert (found.X.shape, found.X.dtype) == (expected.X.shape, expected.X.dtype)
    assert found.skipped == expected.skipped
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.X, expected.X)
    assert (found.X._folder / DECODED).stat().st_size <= room

    n = len(expected.X)
    mask = np.arange(n) % 2 == 1
    for key in (slice(1, 4), slice(None, None, -1), [3, -1, 0, 3], mask, np.array([], int), 2, -1):
        np.testing.assert_array_equal(found.X[key], expected.X[key])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(found.X))[key], expected.X[key])
    np.testing.assert_array_equal(_safe_indexing(found.X, mask), expected.X[mask])
    np.testing.assert_array_equal(found.X[mask][::-1][:2], expected.X[mask][::-1][:2])
    np.testing.assert_array_equal(found.X[1:, 1:5, 2:], expected.X[1:, 1:5, 2:])
    np.testing.assert_array_equal(found.X[..., None][2:], expected.X[..., None][2:])
    for wrong in ([n], [-n - 1], np.ones(n + 1, bool)):
        with pytest.raises(IndexError):
            found.X[wrong]


def test_errors_are_those_of_pictures_in_memory():
    small, large = (saved(np.zeros((size, 4), np.uint8)) for size in (4, 5))
    pictures = [small, b"no picture", large]
    with pytest.raises(InputError, match=r"id 'p1'.*no known picture format"):
        decode(pictures, lazy=True)
    with pytest.raises(InputError, match=r"p0' 4 x 4 and .*p2' 4 x 5"):
        decode(pictures, lazy=True, skip_bad=True)
    assert decode([b"no picture"], lazy=True, skip_bad=True).X.shape == (0, 0, 0)


def test_the_error_names_a_file_that_has_changed(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(saved(np.zeros((4, 4), np.uint8)))
    X = decode([file], lazy=True, cache=0).X
    np.asarray(X)
    for content in (saved(np.zeros((5, 4), np.uint8)), b"no picture"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.png could be read at first"):
            np.asarray(X)


def test_the_folder_is_removed_with_the_last_view():
    X = decode([saved(np.zeros((4, 4), np.uint8))] * 3, lazy=True).X
    folder, view = X._folder, X[1:]
    copy = pickle.loads(pickle.dumps(view))
    del X, copy
    assert np.asarray(view).shape == (2, 4, 4)
    del view
    assert not folder.exists()


def test_stages_identify_pictures_by_content():
    contents = [saved(picture) for picture in RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)]
    pictures = [decode(contents, lazy=True, cache=room).X for room in (0, None)]
    assert key_of(pictures[0]) == key_of(pictures[1]) != key_of(decode(contents[1:], lazy=True).X)
    assert key_of(pictures[0][1:]) == key_of(pictures[1][1:]) != key_of(pictures[0][:3])


@pytest.mark.workers
def test_workers_decode_for_themselves():
    contents = [saved(picture) for picture in RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)]
    X = decode(contents, lazy=True, cache=0).X
    parts = joblib.Parallel(2)(joblib.delayed(np.asarray)(X[start::2]) for start in range(2))
    np.testing.assert_array_equal(np.concatenate(parts), np.asarray(X)[[0, 2, 1, 3]])


@pytest.mark.workers
def test_processes_read_shards_as_threads_do(digits, tmp_path, monkeypatch):
    found = [load_dataset(digits, lazy=True).X]
    monkeypatch.setattr("pudistill.data.pictures.PATIENCE", 0)
    monkeypatch.setattr("pudistill.data.pictures.usable_processes", lambda: 2)
    found.append(load_dataset(digits, lazy=True).X)
    assert key_of(found[0]) == key_of(found[1])
    np.testing.assert_array_equal(*found)

    encoded = [saved(picture) for picture in np.asarray(found[0])]
    encoded[40] = b"no picture"  # in the second shard
    folder = in_shards(tmp_path / "damaged", encoded, np.arange(N_DIGITS) % 3)
    with pytest.raises(InputError, match=r"damaged, id '40': this picture cannot be read"):
        load_dataset(folder, lazy=True)


def tiny(in_shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(in_shape)), n_classes))


@pytest.fixture
def streaming(monkeypatch):
    """Treat any number of pictures on disk as too many to be decoded once for a training."""
    monkeypatch.setattr("pudistill.data.lazy_pictures.FEW_BYTES", 0)


def test_classifiers_are_the_same_wherever_the_pictures_are(digits, streaming):
    half = N_DIGITS * 32 / 2**30
    found = []
    for options in ({}, {"lazy": True, "picture_cache": half}):
        data = load_dataset(digits, **options)
        classifier = PUDistillClassifier(
            TorchClassifier(tiny, epochs=2), n_members=2, n_teachers=1, max_iter=1, random_state=0
        )
        classifier.fit(data.X, *data.for_fit())
        found.append((classifier.label_table_, classifier.predict_proba(data.X)))
    pd.testing.assert_frame_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.usefixtures("brief_training")
def test_runs_are_the_same_wherever_the_pictures_are(digits, streaming, tmp_path):
    options = {"data": str(digits), "method": "cross_entropy", "test_fraction": 0.3}
    runs = [
        fit_run(Settings.read(options | {"compare": False, "lazy": lazy}), tmp_path / str(lazy))
        for lazy in (False, True)
    ]
    tables = [run.read_table("labels") for run in runs]
    pd.testing.assert_frame_equal(*tables)
    assert len({str(run.read_json("metrics.json")["test_accuracy"]) for run in runs}) == 1


def test_pictures_that_would_fill_the_memory_stay_on_disk(digits, monkeypatch):
    available = 2 * 3 * N_DIGITS * 64  # half of the memory would hold the pictures in colour
    memory = type("Memory", (), {"available": available})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert not is_lazy(load_dataset(digits).X)
    memory.available -= 1
    assert is_lazy(load_dataset(digits).X)


KILLED = """
import os, signal
import numpy as np
from pudistill.data.lazy_pictures import PictureWriter
with PictureWriter(decode=None) as writer:
    writer.append(np.zeros((2, 2), np.uint8), b"")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_pictures_of_a_process_that_was_killed_are_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ours = PictureWriter(decode=None)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    left = set(tmp_path.glob(f"{FOLDER}*"))
    assert len(left) == 3  # their processes live, or might only have begun
    young, *others = left - {ours._folder}
    for folder in (ours._folder, *others):
        os.utime(folder, (0, 0))
    PictureWriter(decode=None)
    assert {*tmp_path.iterdir()} == {young, ours._folder}
    del ours
    assert [*tmp_path.iterdir()] == [young]


PEAK = """
import resource, sys
from torch import nn
import pudistill.data.lazy_pictures
from pudistill import TorchClassifier
from pudistill.data.loading import load_dataset

def tiny(in_shape, n_classes):
    return nn.Sequential(nn.AvgPool2d(96), nn.Flatten(), nn.Linear(3, n_classes))

pudistill.data.lazy_pictures.FEW_BYTES = 0  # decode pictures whenever they are needed
for folder in sys.argv[1:]:
    dataset = load_dataset(folder, lazy=True, picture_cache=0.005)
    network = TorchClassifier(tiny, epochs=1, random_state=0).fit(dataset.X, dataset.y)
    network.predict_proba(dataset.X)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    # Pictures of a single colour are decoded fast, and a comment makes their files large.
    picture = saved(Image.new("RGB", (96, 96), "teal"), "JPEG", comment=RNG.bytes(15_000))
    folders = [in_shards(tmp_path / str(n), [picture] * n, np.arange(n) % 2) for n in (300, 1500)]
    command = [sys.executable, "-c", PEAK, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    few, many = map(float, done.stdout.split())
    # As an array, they would take 32 MiB more. The cache holds 5 MiB of decoded pictures.
    assert many < few + 16
