from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from pudistill import InputError, TieredPUFilter
from pudistill.pu_filter import cascade_vote, draw_training_set, settle_conflicts


@parametrize_with_checks([TieredPUFilter(n_members=3)])
@pytest.mark.filterwarnings("ignore::pudistill.TrustedWarning")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def blobs():
    """Three well separated classes, a tenth of them trusted."""
    X, y = make_blobs(300, centers=[[0, 0], [6, 0], [0, 6]], random_state=0)
    return X, y, np.arange(300) % 10 == 0


# Cascade voting -----------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    n_members=st.integers(1, 12),
    n_samples=st.integers(0, 40),
    fraction=st.floats(0, 1),
    threshold=st.floats(0.05, 0.95),
    seed=st.integers(0, 10_000),
)
def test_cascade_selects_exactly_what_full_voting_selects(
    n_members, n_samples, fraction, threshold, seed
):
    rng = np.random.default_rng(seed)
    proba = rng.random((n_members, n_samples)) ** rng.choice([0.1, 0.5, 1, 2])
    min_votes = max(1, round(fraction * n_members))
    scored = np.zeros(n_samples, dtype=int)

    def score(member, rows):
        scored[rows] += 1
        return proba[member, rows]

    votes, mean_proba = cascade_vote(range(n_members), score, n_samples, threshold, min_votes)

    full_votes = (proba >= threshold).sum(axis=0)
    elected = full_votes >= min_votes
    np.testing.assert_array_equal(~np.isnan(mean_proba), elected)
    np.testing.assert_allclose(mean_proba[elected], proba.mean(axis=0)[elected])
    complete = votes >= 0
    np.testing.assert_array_equal(votes[complete], full_votes[complete])
    assert complete[elected].all()
    # A sample is scored until its fate is sealed, and not once more.
    failures = np.cumsum(proba < threshold, axis=0)
    sealed = (failures > n_members - min_votes).argmax(axis=0) + 1
    np.testing.assert_array_equal(scored, np.where(elected, n_members, sealed))


# Training sets ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(low, 30) for low in (1, 0, 1, 0)]), seed=st.integers(0, 10_000)
)
def test_training_sets_balance_and_draw_nothing_twice(sizes, seed):
    bounds = np.cumsum([0, *sizes])
    pools = [np.arange(*pair) for pair in pairwise(bounds)]
    trusted_positives, clean, trusted_negatives, unlabeled = pools
    positives, negatives, weight = draw_training_set(np.random.default_rng(seed), *pools)

    n_trusted, n_clean = len(trusted_positives), len(clean)
    assert set(trusted_positives) <= set(positives) <= set(trusted_positives) | set(clean)
    assert len(positives) == n_trusted + min(n_trusted, n_clean)  # m_k = min(|D_c|, |P̂|)
    assert len(set(positives)) == len(positives)
    assert len(set(negatives)) == len(negatives)
    assert set(negatives) <= set(trusted_negatives) | set(unlabeled)
    assert len(negatives) == min(len(positives), len(trusted_negatives) + len(unlabeled))
    assert weight * len(negatives) == pytest.approx(len(positives))
    if len(trusted_negatives) >= len(positives) // 2 and len(unlabeled) >= len(positives) / 2:
        assert np.isin(negatives, trusted_negatives).sum() == len(positives) // 2  # |N''|


def test_conflicts_go_to_the_highest_mean_and_ties_are_dropped():
    nan = np.nan
    labels, n_conflicts = settle_conflicts(
        np.array([[0.91, nan, nan], [0.91, 0.95, 0.93], [0.9, nan, 0.9], [nan] * 3])
    )
    assert labels.tolist() == [0, 1, -1, -1]
    assert n_conflicts == 2


# The filter ---------------------------------------------------------------------------------


def test_finds_the_samples_of_separated_classes(blobs):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(threshold=0.7, random_state=0).fit(X, y, trusted)
    found = (pu_filter.clean_labels_ >= 0) & ~trusted
    assert found.sum() > 200
    assert (pu_filter.clean_labels_[found] == y[found]).mean() > 0.98
    np.testing.assert_array_equal(pu_filter.clean_labels_[trusted], y[trusted])


def test_never_reads_the_label_of_a_noisy_sample(blobs):
    X, y, trusted = blobs
    shuffled = y.copy()
    shuffled[~trusted] = np.random.default_rng(0).permutation(shuffled[~trusted])
    one, other = (
        TieredPUFilter(n_members=5, random_state=0).fit(X, labels, trusted)
        for labels in (y, shuffled)
    )
    np.testing.assert_array_equal(one.clean_labels_, other.clean_labels_)
    np.testing.assert_array_equal(one.votes_, other.votes_)


def test_history_has_the_sizes_of_algorithm_1(blobs):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(n_members=4, max_iter=3, tol=None, threshold=0.7, random_state=0)
    history = pu_filter.fit(X, y, trusted).history_
    assert len(history) == 9
    n_trusted = np.bincount(y[trusted])
    for c, rows in enumerate(history.groupby("class_name")):
        rows = rows[1].reset_index()
        before = [0, *rows["n_clean"][:-1]]
        assert rows["n_positives"].tolist() == [
            n_trusted[c] + min(n_trusted[c], size) for size in before
        ]
        assert (rows["n_negatives"] == rows["n_positives"]).all()
    assert (history["seconds"] > 0).all()
    last = history.groupby("class_name")["n_clean"].last().sum()
    assert last >= ((pu_filter.clean_labels_ >= 0) & ~trusted).sum()


def test_stops_early_when_the_clean_set_settles(blobs):
    X, y, trusted = blobs
    settings = {"n_members": 5, "threshold": 0.7, "random_state": 0}
    assert TieredPUFilter(tol=0.5, **settings).fit(X, y, trusted).n_iter_.max() < 10
    assert TieredPUFilter(tol=None, max_iter=4, **settings).fit(X, y, trusted).n_iter_.min() == 4


def test_eval_set_is_scored_and_not_kept(blobs):
    X, y, trusted = blobs
    train, new = np.arange(300) < 250, np.arange(300) >= 250
    pu_filter = TieredPUFilter(n_members=5, threshold=0.7, random_state=0)
    alone = pu_filter.fit(X[train], y[train], trusted[train]).clean_labels_
    pu_filter.fit(X[train], y[train], trusted[train], eval_set=X[new])
    np.testing.assert_array_equal(pu_filter.clean_labels_, alone)
    labels = pu_filter.eval_labels_
    assert (labels >= 0).mean() > 0.5
    assert (labels == y[new])[labels >= 0].mean() > 0.95
    assert pu_filter.history_.groupby("class_name")["n_eval"].last().sum() >= (labels >= 0).sum()


def test_eval_set_of_the_noisy_samples_themselves_gives_the_same_clean_set(blobs):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(n_members=5, threshold=0.7, random_state=0)
    pu_filter.fit(X, y, trusted, eval_set=X[~trusted])
    np.testing.assert_array_equal(pu_filter.eval_labels_, pu_filter.clean_labels_[~trusted])


def test_workers_do_not_change_the_result(blobs):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(n_members=4, max_iter=2, random_state=0)
    alone = pu_filter.fit(X, y, trusted).votes_
    np.testing.assert_array_equal(pu_filter.set_params(n_jobs=2).fit(X, y, trusted).votes_, alone)


@pytest.mark.parametrize("learner", [LinearSVC(), KNeighborsClassifier()])
def test_members_may_lack_probabilities_or_sample_weights(blobs, learner):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(learner, n_members=5, threshold=0.6, random_state=0)
    found = pu_filter.fit(X, y, trusted).clean_labels_[~trusted]
    assert (found == y[~trusted])[found >= 0].mean() > 0.95
    assert (found >= 0).any()


class CountingNetwork(ClassifierMixin, BaseEstimator):
    """Stands for a network: knows soft targets and counts how often it was trained on."""

    accepts_soft_targets = True
    continues_training = True

    def __init__(self, role=None, warm_start=False, random_state=None):
        self.role = role
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X, y):
        assert self.role == "member"
        assert y.shape == (len(X), 2)
        self.n_fits_ = self.n_fits_ + 1 if self.warm_start else 1
        self.classes_ = np.arange(2)
        self.model_ = LogisticRegression().fit(X, y.argmax(axis=1))
        return self

    def predict_proba(self, X):
        CountingNetwork.seen = self.n_fits_
        return self.model_.predict_proba(X)


def test_networks_continue_from_their_weights(blobs):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(CountingNetwork(), n_members=2, max_iter=3, tol=None, random_state=0)
    pu_filter.fit(X, y, trusted)
    assert CountingNetwork.seen == 3


def test_two_classes_and_a_rare_class():
    X, y = load_digits(n_class=2, return_X_y=True)
    trusted = np.zeros(len(y), dtype=bool)
    trusted[np.flatnonzero(y == 0)[:40]] = True
    trusted[np.flatnonzero(y == 1)[:1]] = True  # 40 positives against one trusted negative
    labels = TieredPUFilter(n_members=5, threshold=0.6, random_state=0).fit(X, y, trusted)
    found = (labels.clean_labels_ >= 0) & ~trusted
    assert (labels.clean_labels_[found] == y[found]).mean() > 0.9


def test_data_frames_stay_data_frames(blobs):
    X, y, trusted = blobs
    frame = pd.DataFrame(X, columns=["a", "b"])
    settings = {"n_members": 3, "max_iter": 2, "random_state": 0}
    named = TieredPUFilter(**settings).fit(frame, y, trusted)
    plain = TieredPUFilter(**settings).fit(X, y, trusted)
    assert named.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(named.clean_labels_, plain.clean_labels_)


def test_more_votes_than_members_is_refused(blobs):
    X, y, trusted = blobs
    with pytest.raises(InputError, match="min_votes=21 can never be reached with n_members=20"):
        TieredPUFilter(min_votes=21).fit(X, y, trusted)


@pytest.mark.parametrize("threshold", [0, 1, 1.5])
def test_threshold_outside_its_range_is_refused(blobs, threshold):
    X, y, trusted = blobs
    with pytest.raises(ValueError, match="'threshold' parameter"):
        TieredPUFilter(threshold=threshold).fit(X, y, trusted)
