"""Samples unlike all trusted samples: what is found, and what is left alone."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pudistill.labels.checks import MISSING
from pudistill.learners import outliers
from pudistill.learners.outliers import find_outliers


def with_junk(X, y, share, *, seed=0, far=3.0):
    """Return samples with as many junk samples as a tenth of them, and their verified labels."""
    rng = np.random.default_rng(seed)
    n_junk = len(X) // 10
    junk = X.mean(axis=0) + far * X.std(axis=0) * rng.normal(size=(n_junk, X.shape[1]))
    verified = np.where(rng.random(len(X)) < share, y, MISSING)
    verified[[np.flatnonzero(y == c)[0] for c in np.unique(y)]] = np.unique(y)
    return np.r_[X, junk], np.r_[verified, np.full(n_junk, MISSING)]


@pytest.mark.parametrize("load", [load_digits, load_wine])
@pytest.mark.parametrize("seed", range(3))
def test_hardly_any_ordinary_sample_is_an_outlier(load, seed):
    X, y = load(return_X_y=True)
    _, verified = with_junk(X, y, 0.1, seed=seed)
    found = find_outliers(X, verified[: len(X)], None, seed=seed)
    assert found.is_outlier.mean() <= 0.01
    assert found.in_a_class[~found.is_outlier].min() == 1
    assert 0.2 < np.median(found.score) < 0.6  # folds leave samples out: scores are cautious


def test_junk_is_found_in_arrays_sparse_matrices_frames_and_behind_a_pipeline():
    X, verified = with_junk(*load_digits(return_X_y=True), 0.1)
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X[::9], verified[::9])
    frame = pd.DataFrame(X).assign(word="x")
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.02, np.nan, X)
    for samples, model in (
        (X, None),
        (X, scaled),
        (csr_matrix(X), None),
        (frame, None),
        (X.astype(np.float16), None),
        (holes, None),
    ):
        found = find_outliers(samples, verified, model, seed=0)
        assert found.is_outlier[1797:].all()
        assert found.is_outlier[:1797].mean() <= 0.025
        assert found.in_a_class[1797:].max() <= 0.1


def test_samples_known_to_be_of_no_class_teach_the_score():
    X, y = load_digits(return_X_y=True)
    verified = np.where((np.arange(len(y)) % 10 == 0) & (y != 8), y, MISSING)
    eights = np.flatnonzero(y == 8)
    taught, rest = eights[:10], np.setdiff1d(np.arange(len(y)), eights[:10])
    noisy = verified[rest] == MISSING

    def area(no_class):
        found = find_outliers(X[rest], verified[rest], None, no_class=no_class, seed=0)
        assert found.is_outlier[y[rest] != 8].mean() <= 0.01
        return roc_auc_score(y[rest][noisy] == 8, found.score[noisy])

    assert area(X[taught]) > area(None) + 0.05
    assert area(X[taught[:1]]) > area(None)


def test_nothing_is_an_outlier_without_evidence():
    X, verified = with_junk(*load_wine(return_X_y=True), 0.0)  # one trusted sample a class
    assert not find_outliers(X, verified, None, seed=0).is_outlier.any()
    words = pd.DataFrame({"a": ["x", "y"] * 50})
    found = find_outliers(words, np.arange(100) % 2, None, seed=0)
    assert np.isnan(found.score).all()
    assert not found.is_outlier.any()
    same = find_outliers(np.ones((40, 3)), np.arange(40) % 4 - 1, None, seed=0)
    assert not same.is_outlier.any()


def test_distances_do_not_depend_on_how_many_are_compared_at_once(monkeypatch):
    points = np.random.default_rng(0).normal(size=(20, 3))
    for own in (False, True):
        expected = outliers._nearest(points, points, own=own)
        monkeypatch.setattr(outliers, "POINTS_AT_ONCE", 7)
        np.testing.assert_allclose(outliers._nearest(points, points, own=own), expected, atol=1e-6)
        monkeypatch.undo()
