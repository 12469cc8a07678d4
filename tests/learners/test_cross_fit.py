"""Cross-fitted predictions, mixtures of learners, and warnings from workers."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from joblib import delayed, parallel_config
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_blobs
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from pudistill import InputError
from pudistill.learners.calibration import Temperature
from pudistill.learners.cross_fitting import calibrate_together, cross_fit, cross_fit_proba
from pudistill.learners.parallel import in_order
from pudistill.learners.scoring import Mixture
from pudistill.learners.tasks import Training, train


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(240, centers=[[0, 0], [5, 0], [0, 5]], random_state=0)


class Seen(ClassifierMixin, BaseEstimator):
    """Predicts class 1 for the samples that it was trained on, known by number; else class 0."""

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.rows_ = set(X[:, 0].astype(int).tolist())
        return self

    def predict_proba(self, X):
        seen = np.isin(X[:, 0].astype(int), list(self.rows_)).astype(float)
        return np.column_stack([1 - seen, seen, *[0 * seen] * (len(self.classes_) - 2)])


# Cross-fitting


@pytest.mark.parametrize("n_folds", [2, 5])
@pytest.mark.parametrize("n_rare", [5, 50])
def test_no_learner_predicts_a_sample_that_it_has_learned(n_folds, n_rare):
    targets = np.eye(2)[(np.arange(100) < n_rare).astype(int)]
    numbers = np.arange(100)[:, None]
    seen = cross_fit_proba(Seen(), numbers, targets, n_folds=n_folds, seed=0)[:, 1]
    np.testing.assert_array_equal(seen, 0)


def test_a_learner_that_remembers_cannot_predict_random_labels():
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(400, 3)), rng.integers(2, size=400)
    targets, memory = np.eye(2)[codes], KNeighborsClassifier(1)
    assert memory.fit(X, codes).score(X, codes) == 1
    proba = cross_fit_proba(memory, X, targets, n_folds=5, seed=0)
    assert (proba.argmax(axis=1) == codes).mean() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("learner", [LogisticRegression(C=100), LinearSVC()])
def test_soft_targets_are_learned_as_they_are(learner):
    y = np.arange(240) % 3
    targets = 0.7 * np.eye(3)[y] + 0.1
    proba = cross_fit_proba(learner, 5 * np.eye(3)[y], targets, n_folds=3, seed=0)
    np.testing.assert_allclose(proba, targets, atol=0.03)


def test_folds_have_equal_shares_of_each_class():
    class Shares(Seen):
        """Predicts the share of its samples that come from the first thirty."""

        def predict_proba(self, X):
            share = np.mean([row < 30 for row in self.rows_])
            return np.tile([share, 1 - share], (len(X), 1))

    targets = np.eye(2)[(np.arange(120) < 30).astype(int)]
    numbers = np.arange(120)[:, None]
    shares = cross_fit_proba(Shares(), numbers, targets, n_folds=5, seed=0)[:, 0]
    np.testing.assert_allclose(shares, 0.25)


@pytest.mark.parametrize("learner", [LinearSVC(), SVC()])
def test_learners_with_decisions_only_are_calibrated(learner):
    X, y = make_blobs(600, centers=[[0, 0], [2, 0], [0, 2]], random_state=0)  # they overlap
    proba = cross_fit_proba(learner, X, np.eye(3)[y], n_folds=3, seed=0)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    right = proba.argmax(axis=1) == y
    assert 0.7 < right.mean() < 0.95
    assert proba.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.04)


def test_learners_with_decisions_only_are_calibrated_for_two_classes(blobs):
    X, y = blobs[0][blobs[1] < 2], blobs[1][blobs[1] < 2]
    proba = cross_fit_proba(LinearSVC(), X, np.eye(2)[y], n_folds=3, seed=0)
    assert proba.shape == (160, 2)
    assert (proba.argmax(axis=1) == y).mean() > 0.97


@pytest.mark.parametrize("learner", [LogisticRegression(), LinearSVC(), KNeighborsClassifier(3)])
def test_a_class_of_one_sample_is_not_predicted(blobs, learner):
    X, y = blobs
    y = np.where(np.arange(240) == 7, 3, y)
    proba = cross_fit_proba(learner, X, np.eye(4)[y], n_folds=5, seed=0)
    assert proba.shape == (240, 4)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    others = np.arange(240) != 7
    assert (proba.argmax(axis=1) == y)[others].mean() > 0.95
    np.testing.assert_allclose(proba[7], 0.25)  # every learner was trained on it


def test_a_class_without_targets_gets_probability_0(blobs):
    X, y = blobs
    for learner in (LogisticRegression(), LinearSVC()):
        proba = cross_fit_proba(learner, X, np.eye(5)[y], n_folds=3, seed=0)
        assert (proba[:, 3:] == 0).all()


def test_one_of_two_classes_can_be_rare(blobs):
    X, y = blobs
    y = (np.arange(240) == 7).astype(int)
    proba = cross_fit_proba(LogisticRegression(), X, np.eye(2)[y], n_folds=5, seed=0)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_there_can_be_fewer_samples_than_folds(blobs):
    X, y = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1])
    proba = cross_fit_proba(LogisticRegression(), X, np.eye(2)[y], n_folds=5, seed=0)
    assert proba.shape == (4, 2)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, pd.DataFrame])
def test_samples_can_be_sparse_or_a_data_frame(blobs, kind):
    X, y = blobs
    args = {"n_folds": 3, "seed": 0}
    plain = cross_fit_proba(LogisticRegression(), X, np.eye(3)[y], **args)
    other = cross_fit_proba(LogisticRegression(), kind(X), np.eye(3)[y], **args)
    np.testing.assert_allclose(other, plain, atol=5e-3)  # scikit-learn fits data frames


@pytest.mark.workers
def test_workers_do_not_change_the_result(blobs):
    X, y = blobs
    args = {"n_folds": 3, "seed": 0}
    alone = cross_fit_proba(LogisticRegression(), X, np.eye(3)[y], **args)
    with parallel_config("threading"):
        parallel = cross_fit_proba(LogisticRegression(), X, np.eye(3)[y], n_jobs=2, **args)
    np.testing.assert_array_equal(alone, parallel)


@pytest.mark.parametrize("routing", [False, True])
def test_copies_that_calibrate_members_learn_with_the_weights_of_the_task(routing):
    y = np.arange(200) % 2
    X = y[:, None] + np.random.default_rng(0).normal(size=(200, 2))
    learner = make_pipeline(StandardScaler(), LinearSVC())
    task = Training(learner, X, np.eye(2)[y], "member", seed=0)
    member = train(task)

    def calibrated(sample_weight):
        with config_context(enable_metadata_routing=routing):
            tasks = [replace(task, sample_weight=sample_weight)]
            return calibrate_together([member], tasks)[0].predict_proba(X)[:, 1]

    np.testing.assert_allclose(calibrated(np.ones(len(y))), calibrated(None))
    # Copies that favour class 1 score higher than the member, so that its scores mean less.
    assert (calibrated(np.where(y == 1, 3.0, 1.0)) < calibrated(None)).mean() > 0.9


def test_learners_without_scores_are_named(blobs):
    class Scoreless(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.unique(y)
            return self

    X, y = blobs
    with pytest.raises(
        InputError, match="Scoreless has neither predict_proba nor decision_function"
    ):
        cross_fit_proba(Scoreless(), X, np.eye(3)[y], n_folds=3, seed=0)


# Mixtures


def constant(*shares):
    """Return a learner that predicts the probabilities `shares` for every sample."""
    counts = np.round(np.array(shares) * 100).astype(int)
    y = np.repeat(np.arange(len(shares)), counts)
    return DummyClassifier(strategy="prior").fit(np.zeros((len(y), 1)), y)


def test_a_mixture_is_the_weighted_mean_of_calibrated_predictions():
    members = [constant(0.75, 0.25), constant(0.2, 0.8)]
    mixture = Mixture(members, [0.3, 0.7], [Temperature(2.0), Temperature()], 2)
    # 0.75² : 0.25² is 0.9 : 0.1
    expected = [0.3 * 0.9 + 0.7 * 0.2, 0.3 * 0.1 + 0.7 * 0.8]
    np.testing.assert_allclose(mixture.predict_proba(np.zeros((3, 1))), [expected] * 3, rtol=1e-6)


def test_a_member_can_lack_classes():
    mixture = Mixture([constant(0.5, 0.5), constant(0, 0, 1)], [0.5, 0.5], [Temperature()] * 2, 3)
    np.testing.assert_allclose(
        mixture.predict_proba(np.zeros((1, 1))), [[0.25, 0.25, 0.5]], atol=1e-6
    )
    assert mixture.classes_.tolist() == [0, 1, 2]


def test_a_mixture_of_one_member_predicts_like_the_member(blobs):
    X, y = blobs
    member = LogisticRegression().fit(X, y)
    mixture = Mixture([member], [1.0], [Temperature()], 3)
    np.testing.assert_allclose(mixture.predict_proba(X), member.predict_proba(X), atol=1e-9)


def warn_of(number):
    warnings.warn(f"number {number} is odd", RuntimeWarning, stacklevel=1)
    return number


@pytest.mark.workers
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_warnings_of_workers_are_issued_in_the_users_process(n_jobs):
    with pytest.warns(RuntimeWarning) as caught:
        assert list(in_order(map(delayed(warn_of), (1, 3)), n_jobs)) == [1, 3]
    assert [str(warning.message) for warning in caught] == ["number 1 is odd", "number 3 is odd"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(RuntimeWarning):
            list(in_order([delayed(warn_of)(1)], n_jobs))


def test_starts_know_nothing_of_the_samples_that_are_predicted(monkeypatch):
    monkeypatch.setattr("pudistill.learners.cross_fitting.MANY_SAMPLES", 1)
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(200, 400)), rng.integers(2, size=200)
    learner = LogisticRegression(C=1e3, max_iter=2000)  # memorises labels that are random

    def right(found):
        return (found.proba.argmax(axis=1) == codes).mean()

    found = None
    for _ in range(3):
        found = cross_fit(learner, X, np.eye(2)[codes], n_folds=4, seed=0, previous=found)
    assert 0.35 < right(found) < 0.65
    # The models of other folds would know them.
    leaking = found._replace(models=[*found.models[1:], found.models[0]])
    assert right(cross_fit(learner, X, np.eye(2)[codes], n_folds=4, seed=0, previous=leaking)) > 0.8
