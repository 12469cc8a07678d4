"""Groups and copies in whole fits: nothing that judges or predicts a sample has seen its group."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from pudistill import (
    InputError,
    PUDistillClassifier,
    TieredPUFilter,
    TorchClassifier,
    TrustedKFold,
    trusted_accuracy_scorer,
)
from pudistill.learners import cross_fitting
from pudistill.methods import CrossEntropyClassifier, GoldLossCorrectionClassifier

QUICK = {"n_members": 5, "max_iter": 2, "random_state": 0}


def patients(n_groups=40, size=5, noise=0.3, seed=0):
    """Return samples, numbered in the first column, true and given labels, groups and trust."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    y = rng.integers(2, size=n_groups)[groups]
    X = rng.normal(size=(n_groups, 8))[groups] + 0.1 * rng.normal(size=(len(y), 8))
    X[:, 0] += 2 * y
    given = np.where(rng.random(len(y)) < noise, 1 - y, y)
    X = np.column_stack([np.arange(len(y)), X])
    return X, y, given, groups, rng.random(len(y)) < 0.35


class Remembers(ClassifierMixin, BaseEstimator):
    """A logistic regression that remembers its samples, and tells which samples it predicts."""

    told: list = []  # shared by all clones

    def fit(self, X, y, sample_weight=None):
        self.seen_ = np.unique(X[:, 0].astype(int))
        self.model_ = LogisticRegression().fit(X[:, 1:], y, sample_weight)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X):
        self.told.append((self.seen_, np.unique(X[:, 0].astype(int))))
        return self.model_.predict_proba(X[:, 1:])


@pytest.mark.parametrize(("rule", "originals"), [("auto", True), (0.6, False)])
def test_a_held_out_group_is_seen_by_no_training(monkeypatch, rule, originals):
    X, y, given, groups, trusted = patients()
    monkeypatch.setattr(Remembers, "told", [])
    blind = []

    def checked(learner, samples, n_classes, rows):
        blind.append(not set(groups[learner.seen_]) & set(groups[rows]))
        return original(learner, samples, n_classes, rows)

    original = cross_fitting.predict_proba
    monkeypatch.setattr(cross_fitting, "predict_proba", checked)
    verified = np.where(trusted, y, np.nan) if originals else trusted
    if not originals:
        given = np.where(trusted, y, given)
    classifier = PUDistillClassifier(Remembers(), threshold=rule, min_votes=rule, **QUICK)
    classifier.fit(X, given, trusted=verified, groups=groups)
    assert len(blind) > 10  # cross-fits of the student
    assert all(blind)
    views = classifier._noise_free.views[1:]
    assert sorted(np.concatenate([view.held_out for view in views])) == list(
        np.flatnonzero(trusted)
    )
    for view in views:
        judges = [seen for seen, rows in Remembers.told if np.array_equal(rows, view.held_out)]
        # Four noise-free models (or two, if nothing was found), the model of the given labels, the
        # student; and the members of the filter's team if it chooses its rule.
        assert len(judges) >= (5 if rule == "auto" else 4)
        for seen in judges:
            assert not set(groups[seen]) & set(groups[view.held_out])
        hidden = np.isin(groups, groups[view.held_out])
        assert (view.verified[hidden] == -1).all()
        assert (np.delete(view.given, view.held_out)[np.delete(hidden, view.held_out)] == -1).all()


def test_teams_of_the_filter_leave_out_whole_groups():
    X, _y, given, groups, trusted = patients()
    pu_filter = TieredPUFilter(threshold="auto", min_votes="auto", **QUICK)
    pu_filter.fit(X[:, 1:], given, trusted, groups)
    for group in np.unique(groups):
        assert len(np.unique(pu_filter.folds_[groups == group])) == 1
    for team, labels in enumerate(pu_filter.team_labels_):
        assert (labels[pu_filter.folds_ == team] == -1).all()
    assert ((pu_filter.team_labels_ >= 0) & ~trusted).any()


def test_the_expected_accuracy_is_that_of_new_groups():
    n_held = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(60), 8)
        y = rng.integers(2, size=60)[groups]
        X = rng.normal(size=(60, 30))[groups] + 0.05 * rng.normal(size=(480, 30))
        X[:, 0] += y
        trusted = rng.permutation(480) < 120
        given = np.where(trusted | (rng.random(480) > 0.2), y, 1 - y)
        new_y = rng.integers(2, size=2000)
        new = rng.normal(size=(2000, 30))
        new[:, 0] += new_y
        classifier = PUDistillClassifier(**QUICK).fit(X, given, trusted, groups)
        low, high = classifier.expected_accuracy_.interval
        n_held += low <= classifier.score(new, new_y) <= high
        assert high < 0.9  # samples of known groups are all predicted right
        assert len(classifier.label_table_) == 480
    # Fewer hold in one of ten thousand cases, if each holds with 95 %.
    assert n_held >= 6


def test_networks_keep_groups_apart():
    X, y, given, groups, trusted = patients(n_groups=16)
    network = TorchClassifier("mlp", epochs=1)
    classifier = PUDistillClassifier(network, n_members=2, max_iter=1, random_state=0)
    classifier.fit(X[:, 1:].astype(np.float32), given, np.where(trusted, y, np.nan), groups)
    assert classifier.expected_accuracy_.n > 0


@pytest.mark.parametrize("n_groups", [3])
def test_few_groups_are_enough_to_learn(n_groups):
    X, y, given, groups, trusted = patients(n_groups=40)
    groups = groups % n_groups
    classifier = PUDistillClassifier(**QUICK).fit(X[:, 1:], given, trusted & (y == given), groups)
    assert classifier.score(X[:, 1:], y) > 0.8
    low, high = classifier.expected_accuracy_.interval
    assert high - low > 0.2  # so few groups tell little about new ones


def test_a_group_may_hold_all_of_a_class():
    X, y, given, groups, trusted = patients()
    y, given = (np.where(groups == 0, 2, labels) for labels in (y, given))
    trusted |= groups == 0
    X[groups == 0, 1:] += 8
    classifier = PUDistillClassifier(**QUICK)
    classifier.fit(X[:, 1:], given, np.where(trusted, y, np.nan), groups)
    assert (classifier.predict(X[groups == 0, 1:]) == 2).all()
    assert classifier.expected_accuracy_.n > 0  # of the other groups


def test_teachers_and_student_need_the_same_groups():
    X, _y, given, groups, trusted = patients()
    classifier = PUDistillClassifier(n_members=2, max_iter=1, compare=False, random_state=0)
    classifier.fit_teachers(X[:, 1:], given, trusted, groups)
    with pytest.raises(InputError, match="The groups are not those"):
        classifier.fit_student(X[:, 1:], given, trusted)
    classifier.fit_student(X[:, 1:], given, trusted, groups)
    assert hasattr(classifier, "student_")


@pytest.mark.parametrize("method", [CrossEntropyClassifier, GoldLossCorrectionClassifier])
def test_methods_accept_groups(method):
    X, y, given, groups, trusted = patients()
    classifier = method(random_state=0).fit(X[:, 1:], given, trusted & (y == given), groups)
    assert classifier.score(X[:, 1:], y) > 0.7


def test_groups_are_routed_to_fits_and_splits():
    X, _y, given, groups, trusted = patients()
    classifier = PUDistillClassifier(n_members=2, max_iter=1, compare=False, random_state=0)
    with config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            classifier,
            X[:, 1:],
            given,
            cv=TrustedKFold(2, random_state=0),
            scoring=trusted_accuracy_scorer(),
            params={"trusted": trusted, "groups": groups},
            error_score="raise",
        )
    assert len(scores) == 2


@pytest.mark.parametrize("method", ["default", "paper"])
def test_copies_of_a_verified_sample_end_with_its_label(method):
    rng = np.random.default_rng(0)
    X, y, given, _groups, trusted = patients(n_groups=60, size=1)
    X = np.vstack([X[:, 1:]] * 3)
    given = np.concatenate([given, *(np.where(rng.random(60) < 0.3, 1 - y, y) for _ in range(2))])
    given[:60][trusted] = y[trusted]
    mask = np.r_[trusted, np.zeros(120, dtype=bool)]
    classifier = PUDistillClassifier(method=method, **QUICK).fit(X, given, mask)
    labels = classifier.label_table_.label.to_numpy().reshape(3, 60)
    assert (labels[:, trusted] == y[trusted]).all()
    assert classifier.pseudo_labels(given, mask).shape == (180, 2)
    if method == "default":
        assert classifier.expected_accuracy_.n <= trusted.sum()  # copies are not counted again
