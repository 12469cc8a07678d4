"""Arrays with one row per sample do not depend on the block size, nor on where they lie."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pandas as pd
import pytest
from joblib import delayed
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from pudistill import PUDistillClassifier
from pudistill.labels.corruption import corrupt_labels
from pudistill.learners.parallel import _fill, in_order, rows_in_order
from pudistill.utils import arrays
from pudistill.utils.mapped import MappedArray


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Compute blocks of 7 rows, and put every array into a file."""
    monkeypatch.setattr("pudistill.utils.arrays.BLOCK_SIZE", 7)
    monkeypatch.setattr("pudistill.utils.arrays.MIN_FILE_BYTES", 0)
    monkeypatch.setattr(
        "pudistill.utils.arrays._files", WeakSet()
    )  # without the files of other tests


@pytest.fixture
def files(monkeypatch):
    """Files that this test has opened."""
    opened = []
    open_file = tempfile.TemporaryFile

    def record():
        opened.append(open_file())
        return opened[-1]

    monkeypatch.setattr("tempfile.TemporaryFile", record)
    return opened


def n_descriptors(stat):
    """Count the descriptors of this process that belong to the file of an `os.stat` result."""
    found = [file for file in Path("/proc/self/fd").iterdir() if file.exists()]
    return sum(os.path.samestat(file.stat(), stat) for file in found)


@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 20])
def test_a_function_of_rows_is_applied_to_all(tiny_blocks, n_rows):
    a, b = np.arange(3.0 * n_rows).reshape(n_rows, 3), np.arange(n_rows)
    result = arrays.rowwise(lambda x, y: x[:, :2] * y[:, None], a, b)
    np.testing.assert_array_equal(result, a[:, :2] * b[:, None])
    assert arrays.is_in_file(result) == (n_rows > 7)
    np.testing.assert_array_equal(arrays.take_rows(a, b[::-1]), a[::-1])
    whole = arrays.rowwise(lambda x: x > 3, b)
    assert whole.dtype == bool


def test_files_are_removed_with_their_arrays(tiny_blocks, files):
    array = arrays.empty((5, 2), np.int16)
    part = array[1:]
    part[:] = 7
    del array
    assert (part == 7).all()  # a part keeps the whole
    (file,) = files
    stat = os.fstat(file.fileno())
    assert n_descriptors(stat) == 2
    del part
    assert file.closed
    assert n_descriptors(stat) == 0


def test_nothing_is_left_of_a_process_that_was_killed(tmp_path):
    code = (
        "import os, signal; from pudistill.utils import arrays; arrays.MIN_FILE_BYTES = 0\n"
        "array = arrays.empty((1000, 10)); array[:] = 1; assert arrays.is_in_file(array)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code]
    killed = subprocess.run(command, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacking", ["folder", "room", "proc", "descriptors"])
def test_an_array_is_in_memory_if_no_file_can_be_made(tiny_blocks, files, monkeypatch, lacking):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if lacking == "folder":
        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    elif lacking == "room":
        monkeypatch.setattr("os.posix_fallocate", refuse)
    elif lacking == "proc":
        monkeypatch.setattr("os.getpid", lambda: 1)  # of another process, or of none
    else:
        monkeypatch.setattr("pudistill.utils.arrays.MAX_FILES", 1)
        others = [arrays.empty((5, 2)) for _ in range(2)]
        assert list(map(arrays.is_in_file, others)) == [True, False]
    before = len(files)
    array = arrays.empty((5, 2))
    array[:] = 1
    assert not arrays.is_in_file(array)
    assert [file.closed for file in files[before:]] == [True] * (lacking in ("room", "proc"))


def test_temporary_files_are_not_mapped_by_other_machines(tiny_blocks):
    assert MappedArray.of(arrays.empty((5, 2))) is None


def squares(n):
    return np.arange(20.0)[:, None] ** n


def doubled(array):
    with pytest.MonkeyPatch.context() as patch:  # the worker serves other tests, too
        patch.setattr("pudistill.utils.arrays.MIN_FILE_BYTES", 1)
        patch.setattr("pudistill.utils.arrays.BLOCK_SIZE", 1)
        return arrays.rowwise(lambda block: block * 2, array)


@pytest.mark.workers
def test_results_of_workers_are_sent(tiny_blocks):
    array = arrays.empty((5, 2))
    array[:] = 1
    for found in in_order([delayed(doubled)(array)] * 4, 2):
        np.testing.assert_array_equal(found, np.full((5, 2), 2.0))
        assert not arrays.is_in_file(found)


@pytest.mark.workers
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_workers_write_results_to_files(tiny_blocks, n_jobs):
    found = list(rows_in_order([delayed(squares)(n) for n in (1, 2)], n_jobs, (20, 1)))
    np.testing.assert_array_equal(found, [squares(1), squares(2)])
    assert all(map(arrays.is_in_file, found))


def test_a_backend_that_sends_copies_of_arrays_returns_results(tiny_blocks):
    call, args, kwargs = pickle.loads(pickle.dumps(delayed(squares)(2)))
    output = pickle.loads(pickle.dumps(arrays.empty((20, 1))))
    np.testing.assert_array_equal(_fill(output, call, args, kwargs), squares(2))


@pytest.mark.workers
def test_workers_cannot_change_their_arguments(tiny_blocks):
    array = arrays.rowwise(lambda block: block, np.ones((20, 2)))
    assert list(in_order([delayed(is_writeable)(array)] * 2, 2)) == [False, False]


def is_writeable(array):
    return array.flags.writeable


@pytest.mark.parametrize(
    ("learner", "n_jobs", "compare", "n"),
    [(LogisticRegression(), 2, True, 150), (LinearSVC(), 1, False, 150)],
)
def test_labels_do_not_depend_on_block_size_and_files(monkeypatch, learner, n_jobs, compare, n):
    X, y = make_blobs(n, centers=3, cluster_std=3, random_state=0)
    trusted = np.arange(n) % 5 == 0
    noisy = corrupt_labels(y, "symmetric", 0.4, trusted=trusted, random_state=0).y

    def fitted():
        classifier = PUDistillClassifier(
            learner, n_members=3, max_iter=1, compare=compare, n_jobs=n_jobs, random_state=0
        )
        return classifier.fit(X, noisy, trusted)

    expected = fitted()
    monkeypatch.setattr("pudistill.utils.arrays.BLOCK_SIZE", 37)
    monkeypatch.setattr("pudistill.utils.arrays.MIN_FILE_BYTES", 0)
    found = fitted()
    np.testing.assert_allclose(found.targets_, expected.targets_, rtol=1e-9)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-9)
    assert arrays.is_in_file(found.targets_)
    assert found.shipped_ == expected.shipped_
    pd.testing.assert_frame_equal(found.label_table_, expected.label_table_, rtol=1e-9)


@pytest.mark.parametrize("n_rows", [3, 7, 50])
def test_threads_fill_the_same_array(tiny_blocks, n_rows):
    X = np.arange(3.0 * n_rows).reshape(-1, 3)
    found = arrays.compute_in_blocks(lambda part: X[part] ** 2, n_rows, n_threads=2)
    np.testing.assert_array_equal(found, X**2)
