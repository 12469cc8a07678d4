"""Steps of a fit are shared by threads, or by nodes of a cluster, without any effect on results."""

import threading
from functools import partial

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pudistill import PUDistillClassifier
from pudistill.exceptions import InputError
from pudistill.learners import parts
from pudistill.learners.linear import fit_in_blocks
from pudistill.learners.logistic_part import Block
from pudistill.learners.parts import dealing, dealt, is_worth_dealing, n_threads, shared_map
from pudistill.learners.tasks import Training, train
from pudistill.utils.arrays import compute_in_blocks
from pudistill.utils.threads import shared_by

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1000, 40)).astype(np.float32)
TARGETS = RNG.dirichlet(np.ones(3), size=1000)
LEARNER = make_pipeline(StandardScaler(), LogisticRegression())


@pytest.fixture(autouse=True)
def worth_it(monkeypatch):
    monkeypatch.setattr(parts, "WORTH_THREADS", 0)
    monkeypatch.setattr("pudistill.learners.tasks.BLOCK_BYTES", 2**14)


class Part:
    """Says where it was called."""

    def __init__(self, number):
        self.number = number

    def where(self, waits):
        if waits:
            BARRIER.wait()
        return self.number, threading.current_thread().name


BARRIER = threading.Barrier(2, timeout=60)


def test_threads_share_the_parts_and_results_keep_their_order():
    with shared_by(2), dealt([Part(n) for n in range(4)], work=1) as each:
        found = list(each("where", True))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert len({name for _, name in found}) == 2


def test_little_work_is_done_in_this_thread(monkeypatch):
    monkeypatch.setattr(parts, "WORTH_THREADS", 10)
    with shared_by(2), dealt([Part(0), Part(1)], work=9) as each:
        assert {name for _, name in each("where", False)} == {threading.current_thread().name}


@pytest.mark.parametrize("n_rows", [1000, 999])
@pytest.mark.parametrize("kept_bytes", [0, 2**26])
def test_a_fit_is_the_same_bits_on_any_number_of_threads(monkeypatch, kept_bytes, n_rows):
    monkeypatch.setattr("pudistill.learners.logistic_part.KEPT_BYTES", kept_bytes)
    weight = RNG.uniform(0.5, 2, n_rows)
    task = Training(LEARNER, X[:n_rows], TARGETS[:n_rows], "student", 0, sample_weight=weight)
    alone = train(task)
    for n in (2, 3):
        with shared_by(n):
            shared = train(task)
        np.testing.assert_array_equal(shared[-1].coef_, alone[-1].coef_)
        np.testing.assert_array_equal(shared[0].mean_, alone[0].mean_)


def test_a_fit_is_about_the_same_however_it_is_cut(monkeypatch):
    task = Training(LEARNER, X, TARGETS, "student", 0)
    in_blocks = train(task)
    monkeypatch.setattr("pudistill.learners.tasks.BLOCK_BYTES", 2**30)
    np.testing.assert_allclose(train(task)[-1].coef_, in_blocks[-1].coef_, atol=1e-5)


def test_threads_find_nan_in_any_part():
    gap = X.copy()
    gap[700, 3] = np.nan
    with shared_by(2), pytest.raises(InputError, match="cannot learn from NaN"):
        train(Training(LEARNER, gap, TARGETS, "student", 0))


def test_an_error_in_a_thread_ends_the_fit():
    def unreadable():
        raise InputError("X.npy ends too early: copy it again.")

    blocks = [
        Block(partial(X.__getitem__, slice(0, 500)), slice(0, 500)),
        Block(unreadable, slice(500, 1000)),
    ]
    with shared_by(2), pytest.raises(InputError, match="ends too early"):
        fit_in_blocks(LogisticRegression(), blocks, TARGETS)


def test_blocks_are_computed_by_threads_like_by_one():
    big = np.arange(50_000.0)
    np.testing.assert_array_equal(compute_in_blocks(lambda part: big[part] ** 2, 50_000, 2), big**2)


@pytest.mark.parametrize(
    ("backend", "expected"), [("loky", 2), ("threading", 2), ("sequential", 1)]
)
def test_threads_follow_the_settings_of_joblib(backend, expected):
    with parallel_config(backend), dealing(2):
        assert n_threads() == expected
        assert is_worth_dealing(2, 1) is (expected > 1)
    with parallel_config(backend), dealing(1):
        assert n_threads() == 1
    assert n_threads() == 1


@pytest.mark.parametrize("n", [1, 2])
def test_a_shared_map_keeps_the_order(n):
    with shared_by(n):
        assert list(shared_map(str, range(7))) == list("0123456")


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_labels_do_not_depend_on_the_number_of_threads(backend):
    rng = np.random.default_rng(0)
    few = X[:300]
    y = (few[:, 0] + few[:, 1] > 0).astype(int)
    given, trusted = np.where(rng.random(300) < 0.3, 1 - y, y), np.arange(300) % 5 == 0
    classifier = PUDistillClassifier(n_members=2, max_iter=1, random_state=0)
    tables = []
    for n_jobs in (1, 2):
        with parallel_config(backend):
            fitted = clone(classifier).set_params(n_jobs=n_jobs).fit(few, given, trusted)
        tables.append(fitted.label_table_)
    pd.testing.assert_frame_equal(*tables)
