"""The filter: voting, training sets, chosen rules, teams, and members that fail."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from pudistill import InputError, TieredPUFilter, TorchClassifier
from pudistill.exceptions import DivergedError, RecoveredWarning
from pudistill.labels.checks import check_labels
from pudistill.labels.model_selection import deal_folds
from pudistill.learners.tasks import _train, train_all
from pudistill.pu_filter.members import draw_training_set
from pudistill.pu_filter.plan import THRESHOLDS, VOTE_SHARES
from pudistill.pu_filter.rules import PRIOR_PRECISION, PRIOR_SAMPLES, choose_rule
from pudistill.pu_filter.voting import ClassAssignment, cascade_vote


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


@settings(max_examples=200)
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
    accepted = full_votes >= min_votes
    np.testing.assert_array_equal(~np.isnan(mean_proba), accepted)
    np.testing.assert_allclose(mean_proba[accepted], proba.mean(axis=0)[accepted])
    complete = votes >= 0
    np.testing.assert_array_equal(votes[complete], full_votes[complete])
    assert complete[accepted].all()
    # A sample is scored until it can no longer be accepted, and not once more.
    failures = np.cumsum(proba < threshold, axis=0)
    n_needed = (failures > n_members - min_votes).argmax(axis=0) + 1
    np.testing.assert_array_equal(scored, np.where(accepted, n_members, n_needed))


# Training sets ------------------------------------------------------------------------------


@settings(max_examples=200)
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
    assignment = ClassAssignment(4)
    for mean_proba in ([0.91, 0.91, 0.9, nan], [nan, 0.95, nan, nan], [nan, 0.93, 0.9, nan]):
        assignment.add_class(np.array(mean_proba))
    labels, n_conflicts = assignment.resolve()
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
    first, second = (
        TieredPUFilter(n_members=5, random_state=0).fit(X, labels, trusted)
        for labels in (y, shuffled)
    )
    np.testing.assert_array_equal(first.clean_labels_, second.clean_labels_)
    np.testing.assert_array_equal(first.votes_, second.votes_)


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
    assert pu_filter.fit(X[train], y[train], trusted[train]).eval_labels_ is None


def test_eval_set_of_the_noisy_samples_themselves_gives_the_same_clean_set(blobs):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(n_members=5, threshold=0.7, random_state=0)
    pu_filter.fit(X, y, trusted, eval_set=X[~trusted])
    np.testing.assert_array_equal(pu_filter.eval_labels_, pu_filter.clean_labels_[~trusted])


@pytest.mark.workers
@pytest.mark.parametrize(
    ("backend", "n_jobs"),  # three classes: in parallel, or one after the other
    [
        ("loky", 4),
        ("threading", 2),
        pytest.param("loky", 2, marks=pytest.mark.slow),
        pytest.param("threading", 4, marks=pytest.mark.slow),
    ],
)
def test_workers_do_not_change_the_result(blobs, n_jobs, backend):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(n_members=4, max_iter=2, threshold="auto", random_state=0)
    alone = pu_filter.fit(X, y, trusted)
    with parallel_config(backend, n_jobs=n_jobs):
        together = clone(pu_filter).fit(X, y, trusted)
    np.testing.assert_array_equal(together.votes_, alone.votes_)
    np.testing.assert_array_equal(together.team_labels_, alone.team_labels_)
    assert together.settings_.equals(alone.settings_)


@pytest.mark.parametrize("learner", [LinearSVC(), KNeighborsClassifier()])
def test_members_need_neither_probabilities_nor_sample_weights(blobs, learner):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(learner, n_members=5, threshold=0.6, random_state=0)
    found = pu_filter.fit(X, y, trusted).clean_labels_[~trusted]
    assert (found == y[~trusted])[found >= 0].mean() > 0.95
    assert (found >= 0).any()


class CountingNetwork(ClassifierMixin, BaseEstimator):
    """Stands in for a network: takes soft targets, and counts how often training continued."""

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


# Chosen rules: folds --------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    n_noisy=st.integers(0, 20),
    n_folds=st.integers(2, 6),
    seed=st.integers(0, 10_000),
)
def test_folds_spread_each_class_and_leave_out_rare_classes(sizes, n_noisy, n_folds, seed):
    rng = np.random.default_rng(seed)
    verified = np.repeat([-1, *range(len(sizes))], [n_noisy, *sizes])
    verified = rng.permutation(verified)
    folds = deal_folds(verified, n_folds, seed)
    assert (folds[verified == -1] == -1).all()
    assert folds.max() < n_folds
    for c, size in enumerate(sizes):
        own = folds[verified == c]
        if size <= 1:  # a learner needs a sample of each class
            assert own.tolist() == [-1] * size
        else:
            counts = np.bincount(own, minlength=n_folds)
            assert counts.sum() == size
            assert np.ptp(counts) <= 1
            assert size - counts.max() >= 1  # no team leaves out all of a class
    dealt = np.bincount(folds[folds >= 0], minlength=n_folds)
    assert np.ptp(dealt) <= 1
    np.testing.assert_array_equal(folds, deal_folds(verified, n_folds, seed))


def test_a_single_fold_holds_nothing_out():
    assert deal_folds(np.array([0, 0, 1, -1]), 1, 0).tolist() == [-1] * 4


# Chosen rules: the choice ---------------------------------------------------------------------


def shrunk(n_right, n_accepted):
    return (n_right + PRIOR_SAMPLES * PRIOR_PRECISION) / (n_accepted + PRIOR_SAMPLES)


def test_a_rule_accepts_as_many_samples_as_the_target_allows():
    # One member. At 0.8, forty samples are accepted, all right; at 0.5, forty more, four wrong.
    scores = np.repeat([0.8, 0.5, 0.5], [40, 36, 4])[None]
    positive = np.repeat([True, True, False], [40, 36, 4])
    lax = choose_rule(scores, positive, [0.5, 0.8], [1.0], 0.9)
    assert lax[:2] == (0.5, 1)
    assert lax.precision == pytest.approx(shrunk(76, 80))
    strict = choose_rule(scores, positive, [0.5, 0.8], [1.0], 0.95)
    assert strict[:2] == (0.8, 1)
    assert strict.precision == pytest.approx(shrunk(40, 40))


def test_votes_are_chosen_like_thresholds():
    # Two of four members vote for the wrong samples.
    scores = np.array([[0.9] * 60, [0.9] * 60, [0.9] * 30 + [0.1] * 30, [0.9] * 30 + [0.1] * 30])
    positive = np.repeat([True, False], 30)
    assert choose_rule(scores, positive, [0.7], VOTE_SHARES, 0.95)[:2] == (0.7, 4)
    assert choose_rule(scores, np.ones(60, bool), [0.7], VOTE_SHARES, 0.95)[:2] == (0.7, 2)


@pytest.mark.parametrize(("n", "accepts"), [(6, True), (200, False)])
def test_one_mistake_in_six_is_accepted_and_many_are_not(n, accepts):
    wrong = n // 6
    scores = np.full((3, n), 0.9)
    positive = np.arange(n) >= wrong
    rule = choose_rule(scores, positive, [0.8], [1.0], 0.94)
    assert (rule.min_votes == 3) == accepts
    assert shrunk(n - wrong, n) > 0.94 if accepts else shrunk(n - wrong, n) < 0.94


def test_if_no_rule_reaches_the_target_nothing_is_accepted():
    scores = np.full((4, 300), 0.999)  # right and wrong samples look the same
    rule = choose_rule(scores, np.arange(300) < 150, THRESHOLDS, VOTE_SHARES, 0.95)
    assert rule.min_votes == 5  # of four
    assert np.isnan(rule.precision)


def test_the_strictest_of_equal_rules_is_chosen():
    scores = np.repeat([0.995, 0.001], [20, 20])[None].repeat(4, axis=0)
    rule = choose_rule(scores, np.arange(40) < 20, THRESHOLDS, VOTE_SHARES, 0.95)
    assert rule[:2] == (max(THRESHOLDS), 4)


def test_if_no_rule_accepts_anything_the_laxest_is_chosen():
    rule = choose_rule(np.full((4, 10), 0.1), np.ones(10, bool), THRESHOLDS, VOTE_SHARES, 0.95)
    assert rule[:2] == (min(THRESHOLDS), 2)
    assert np.isnan(rule.precision)  # nothing was accepted, so nothing is measured


@settings(max_examples=100)
@given(
    n_members=st.integers(1, 5),
    n_samples=st.integers(0, 120),
    target=st.floats(0.5, 0.99),
    seed=st.integers(0, 10_000),
)
def test_a_chosen_rule_reaches_the_target_and_no_other_gains_more(
    n_members, n_samples, target, seed
):
    rng = np.random.default_rng(seed)
    positive = rng.random(n_samples) < 0.5
    scores = np.clip(rng.normal(0.3 + 0.4 * positive, 0.3, (n_members, n_samples)), 0, 1)

    def gain(threshold, min_votes):
        accepted = (scores >= threshold).sum(axis=0) >= min_votes
        n = accepted.sum()
        return n * (shrunk((accepted & positive).sum(), n) - target)

    rule = choose_rule(scores, positive, THRESHOLDS, VOTE_SHARES, target)
    if not positive.any():  # nothing can be measured: the paper's rule
        assert rule[:2] == (0.9, max(1, math.ceil(0.95 * n_members)))
        return
    counts = {max(1, int(np.ceil(share * n_members))) for share in VOTE_SHARES}
    gains = [gain(threshold, votes) for threshold in THRESHOLDS for votes in counts]
    if rule.min_votes > n_members:
        assert np.isnan(rule.precision)
        assert max(gains) < 0 or (max(gains) == 0 and n_samples > 0)
    else:
        assert rule.precision >= target or not gain(*rule[:2])
        assert gain(*rule[:2]) == pytest.approx(max(gains))


# Chosen rules: the filter ---------------------------------------------------------------------

AUTO = {"threshold": "auto", "min_votes": "auto", "n_members": 10, "max_iter": 3}


@pytest.fixture(scope="module")
def overlapping():
    """Two classes that overlap and one apart, a sixth of them trusted."""
    X, y = make_blobs(600, centers=[[0, 0], [2, 0], [0, 9]], random_state=0)
    return X, y, np.arange(600) % 6 == 0


@pytest.fixture(scope="module")
def auto(overlapping):
    return TieredPUFilter(random_state=0, **AUTO).fit(*overlapping)


def precision(pu_filter, y, trusted):
    found = (pu_filter.clean_labels_ >= 0) & ~trusted
    return (pu_filter.clean_labels_[found] == y[found]).mean()


def test_chosen_rules_are_more_precise_than_a_lax_one(overlapping, auto):
    X, y, trusted = overlapping
    lax = TieredPUFilter(
        n_members=10, max_iter=3, threshold=0.5, min_votes=0.5, random_state=0
    ).fit(X, y, trusted)
    assert precision(lax, y, trusted) < 0.93 < precision(auto, y, trusted)
    assert ((auto.clean_labels_ >= 0) & ~trusted).sum() > 150
    # The third class does not overlap: nearly all of it is found.
    assert (auto.clean_labels_[(y == 2) & ~trusted] == 2).mean() > 0.9


def test_the_chosen_settings_are_recorded(auto, overlapping):
    _, _, trusted = overlapping
    table = auto.settings_
    assert list(table) == [
        "class_name", "threshold", "min_votes", "n_members", "precision", "n_clean"
    ]  # fmt: skip
    assert table["class_name"].tolist() == [0, 1, 2]
    assert table["threshold"].isin(THRESHOLDS).all()
    assert (table["n_members"] == 2).all()  # ten, in five teams
    sizes = np.bincount(auto.clean_labels_[~trusted] + 1, minlength=4)[1:]
    np.testing.assert_array_equal(table["n_clean"], sizes)
    assert table.loc[2, "precision"] > 0.97


def test_a_class_that_cannot_reach_the_target_adds_nothing():
    rng = np.random.default_rng(0)
    X, y = make_blobs(900, centers=[[0, 0], [0, 0], [0, 9]], random_state=0)
    trusted = rng.random(900) < 0.3
    # A tree is always sure, so that no threshold keeps it from being wrong half the time.
    pu_filter = TieredPUFilter(DecisionTreeClassifier(), random_state=0, **AUTO)
    found = pu_filter.fit(X, y, trusted).clean_labels_[~trusted]
    table = pu_filter.settings_.set_index("class_name")
    assert (found == 2).any()
    assert not np.isin(found, [0, 1]).any()  # these two are the same
    assert table.loc[[0, 1], "precision"].isna().all()
    assert (table.loc[[0, 1], "n_clean"] == 0).all()
    assert table.loc[2, "precision"] > 0.95


def test_teams_leave_out_their_fold_and_find_similar_samples(overlapping, auto):
    _, y, trusted = overlapping
    assert auto.team_labels_.shape == (5, 600)
    assert (auto.folds_[~trusted] == -1).all()
    assert set(auto.folds_[trusted]) == set(range(5))
    for team, labels in enumerate(auto.team_labels_):
        hidden = auto.folds_ == team
        assert (labels[hidden] == -1).all()
        np.testing.assert_array_equal(labels[trusted & ~hidden], y[trusted & ~hidden])
        found = (labels >= 0) & ~trusted
        assert found.sum() > 100
        assert (labels[found] == y[found]).mean() > 0.9


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("torch")
    from pudistill import TorchClassifier

    return TorchClassifier("mlp", epochs=10, device="cpu")


@pytest.mark.parametrize("share_trunk", [False, True])
def test_a_team_learns_nothing_from_the_labels_of_its_fold(
    overlapping, request, monkeypatch, share_trunk
):
    X, y, trusted = overlapping
    # With a single rule to choose from and all iterations, a fold's labels could reach a team only
    # through its members.
    monkeypatch.setattr("pudistill.pu_filter.plan.THRESHOLDS", (0.6,))
    monkeypatch.setattr("pudistill.pu_filter.plan.VOTE_SHARES", (0.5,))
    pu_filter = TieredPUFilter(
        request.getfixturevalue("network") if share_trunk else None,
        share_trunk=share_trunk,
        random_state=0,
        target_precision=0.01,
        tol=None,
        **AUTO | {"n_members": 5, "max_iter": 2},
    )
    before = pu_filter.fit(X, y, trusted)
    folds, team_labels = before.folds_, before.team_labels_
    swapped = np.where(folds == 3, (y + 1) % 3, y)
    monkeypatch.setattr("pudistill.pu_filter.estimator.deal_folds", lambda *args: folds)
    after = pu_filter.fit(X, swapped, trusted).team_labels_
    np.testing.assert_array_equal(after[3], team_labels[3])
    assert (after[2] != team_labels[2])[~trusted].any()


def test_more_than_half_of_the_teams_must_agree(auto, overlapping):
    _, _, trusted = overlapping
    claims = (auto.team_labels_[:, ~trusted] >= 0).sum(axis=0)
    found = auto.clean_labels_[~trusted] >= 0
    assert (claims[found] >= 3).all()
    assert not found[claims == 0].any()


def test_a_filter_that_chooses_never_reads_the_label_of_a_noisy_sample(overlapping, auto):
    X, y, trusted = overlapping
    shuffled = y.copy()
    shuffled[~trusted] = np.random.default_rng(0).permutation(shuffled[~trusted])
    other = TieredPUFilter(random_state=0, **AUTO).fit(X, shuffled, trusted)
    np.testing.assert_array_equal(other.team_labels_, auto.team_labels_)
    pd.testing.assert_frame_equal(other.settings_, auto.settings_)


def test_one_of_threshold_and_min_votes_can_be_given(overlapping):
    X, y, trusted = overlapping
    found = TieredPUFilter(random_state=0, **(AUTO | {"threshold": 0.8})).fit(X, y, trusted)
    assert (found.settings_["threshold"] == 0.8).all()
    found = TieredPUFilter(random_state=0, **(AUTO | {"min_votes": 1.0})).fit(X, y, trusted)
    assert (found.settings_["min_votes"].isin([2, 3])).all()  # the whole team, or unreachable


def test_a_given_rule_needs_no_teams(blobs):
    X, y, trusted = blobs
    faithful = TieredPUFilter(threshold=0.9, min_votes=0.95, random_state=0).fit(X, y, trusted)
    assert (faithful.folds_ == -1).all()
    assert faithful.team_labels_.shape == (1, 300)
    np.testing.assert_array_equal(faithful.team_labels_[0], faithful.clean_labels_)
    table = faithful.settings_
    assert (table["threshold"] == 0.9).all()
    assert (table["min_votes"] == 19).all()  # 0.95 of 20
    assert (table["n_members"] == 20).all()
    assert table["precision"].isna().all()
    by_default = TieredPUFilter(random_state=0).fit(X, y, trusted)
    np.testing.assert_array_equal(by_default.votes_, faithful.votes_)


def test_a_single_member_forms_no_teams_and_keeps_the_papers_rule(blobs):
    found = TieredPUFilter(random_state=0, **(AUTO | {"n_members": 1})).fit(*blobs)
    assert (found.folds_ == -1).all()
    assert (found.settings_["threshold"] == 0.9).all()


def test_a_class_with_one_trusted_sample_can_have_a_chosen_rule(blobs):
    X, y, trusted = blobs
    trusted = trusted & (y < 2)
    trusted[np.flatnonzero(y == 2)[0]] = True
    found = TieredPUFilter(random_state=0, **AUTO).fit(X, y, trusted)
    assert precision(found, y, trusted) > 0.95


def test_votes_do_not_depend_on_the_blocks(blobs, monkeypatch):
    X, y, trusted = blobs
    pu_filter = TieredPUFilter(n_members=4, max_iter=2, threshold="auto", random_state=0)
    at_once = pu_filter.fit(X, y, trusted, eval_set=X)
    monkeypatch.setattr("pudistill.utils.arrays.BLOCK_SIZE", 37)
    in_blocks = clone(pu_filter).fit(X, y, trusted, eval_set=X)
    for name in ("votes_", "team_labels_", "eval_labels_"):
        np.testing.assert_array_equal(getattr(in_blocks, name), getattr(at_once, name))


@pytest.mark.slow
@pytest.mark.workers
def test_members_that_share_a_trunk_find_clean_samples(overlapping, network):
    X, y, trusted = (values[::2] for values in overlapping)
    trusted = np.arange(300) % 4 == 0
    shared = TieredPUFilter(
        network, share_trunk=True, random_state=0, **AUTO | {"n_members": 5, "max_iter": 2}
    )
    shared.fit(X, y, trusted, eval_set=X)
    assert precision(shared, y, trusted) > 0.95
    assert ((shared.clean_labels_ >= 0) & ~trusted).sum() > 50
    assert (shared.eval_labels_ == y)[shared.eval_labels_ >= 0].mean() > 0.95
    parallel = clone(shared).set_params(n_jobs=2).fit(X, y, trusted)
    np.testing.assert_array_equal(shared.votes_, parallel.votes_)
    pd.testing.assert_frame_equal(shared.settings_, parallel.settings_)


def test_trunks_learn_with_the_weights_of_the_samples(overlapping, network, monkeypatch):
    X, y, trusted = overlapping
    tasks = []

    def record(found, n_jobs):
        tasks.extend(found)
        return train_all(tasks, n_jobs)

    monkeypatch.setattr("pudistill.pu_filter.trunks.train_all", record)
    labels = replace(check_labels(y, trusted), sample_weight=np.linspace(0.5, 1.5, 600))
    quick = clone(network).set_params(epochs=1)
    settings = AUTO | {"n_members": 5, "max_iter": 1}
    TieredPUFilter(quick, share_trunk=True, random_state=0, **settings).fit_checked(X, labels)
    assert len(tasks) == 5
    for task in tasks:
        np.testing.assert_array_equal(task.sample_weight, labels.sample_weight[task.rows])


def test_a_trunk_can_be_the_end_of_a_pipeline(overlapping, network):
    X, y, trusted = overlapping
    pipeline = make_pipeline(StandardScaler(), network)
    shared = TieredPUFilter(pipeline, share_trunk=True, random_state=0, **AUTO)
    assert precision(shared.fit(X, y, trusted), y, trusted) > 0.95


@pytest.mark.parametrize("rule", [{}, {"threshold": 0.7, "min_votes": 0.5}])
def test_other_learners_and_given_rules_share_no_trunk(overlapping, network, rule):
    estimator = clone(network).set_params(epochs=1) if rule else None
    votes = [
        TieredPUFilter(estimator, share_trunk=share_trunk, random_state=0, **AUTO | rule)
        .fit(*overlapping)
        .votes_
        for share_trunk in (False, True)
    ]
    np.testing.assert_array_equal(*votes)


def test_trunks_are_cached_with_the_votes(overlapping, network, tmp_path, monkeypatch):
    settings = {"share_trunk": True, "random_state": 0, **AUTO}
    first = TieredPUFilter(network, memory=str(tmp_path), **settings).fit(*overlapping)
    monkeypatch.setattr("pudistill.learners.tasks.train", None)  # cached trunks need no training
    again = TieredPUFilter(network, memory=str(tmp_path), **settings).fit(*overlapping)
    np.testing.assert_array_equal(first.votes_, again.votes_)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"threshold": 0.6, "min_votes": 2}, marks=pytest.mark.slow),
        {"threshold": "auto"},
    ],
)
def test_stacked_members_find_what_members_one_by_one_find(rule, monkeypatch):
    pytest.importorskip("torch")
    from pudistill.learners.networks.classifier import TorchClassifier
    from pudistill.learners.networks.fitting import fit_together

    X, y = load_digits(return_X_y=True)
    X, y = X[y < 2].reshape(-1, 8, 8, 1).astype(np.uint8), y[y < 2]
    trusted = np.arange(len(y)) % 5 == 0
    network = TorchClassifier("small_cnn", epochs=4, precision="fp32")
    settings = {"n_members": 3, "max_iter": 2, "tol": None, "random_state": 0} | rule
    found = []
    stacks = []
    together = fit_together

    def stack(*args):
        stacks.append(len(args[0]))
        return together(*args, stack=lambda _: True)

    for can_be_stacked in (False, True):
        monkeypatch.setattr(
            "pudistill.learners.tasks._can_be_stacked", lambda _, can=can_be_stacked: can
        )
        monkeypatch.setattr("pudistill.learners.networks.fitting.fit_together", stack)
        found.append(TieredPUFilter(network, **settings).fit(X, y, trusted).clean_labels_ >= 0)
    assert stacks == [3] * 4
    alone, together_found = found
    assert alone[~trusted].any()
    assert (alone & together_found).sum() >= 0.98 * (alone | together_found).sum()


# Members that fail --------------------------------------------------------------------------


class Moody(LogisticRegression):
    """Logistic regression that, for some seeds, gives all samples the same probability."""

    def __init__(self, mood=0.999, share=0.2, random_state=None):
        super().__init__(random_state=random_state)
        self.mood = mood
        self.share = share

    def predict_proba(self, X):
        proba = super().predict_proba(X)
        if np.random.default_rng(self.random_state).random() < self.share:
            proba[:] = [1 - self.mood, self.mood]
        return proba


def as_good(pu_filter, good, y):
    """Whether a filter found about as many samples as a good filter, about as precisely."""
    (size, precision), (good_size, good_precision) = (
        ((found := fitted.clean_labels_ >= 0).sum(), (fitted.clean_labels_ == y)[found].mean())
        for fitted in (pu_filter, good)
    )
    return size > 0.85 * good_size and precision > good_precision - 0.02


@pytest.mark.parametrize(
    ("mood", "vote", "rule"),
    [
        (0.999, "everything", {}),
        (0.001, "nothing", {"threshold": "auto", "min_votes": "auto"}),
        pytest.param(0.001, "nothing", {}, marks=pytest.mark.slow),
        pytest.param(
            0.999, "everything", {"threshold": "auto", "min_votes": "auto"}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_bad_member_does_not_spoil_the_vote(blobs, mood, vote, rule):
    X, y, trusted = blobs
    options = {"n_members": 15, "max_iter": 1, "random_state": 0, **rule}
    good = TieredPUFilter(Moody(share=0.0), **options).fit(X, y, trusted)
    message = rf"class 1, iteration 1, .*member \d+ votes for {vote}: others vote in their place"
    with pytest.warns(RecoveredWarning, match=message):
        mixed = TieredPUFilter(Moody(mood), **options).fit(X, y, trusted)
    assert as_good(mixed, good, y)


def test_if_all_members_vote_alike_none_is_replaced(blobs):
    X, y, trusted = blobs
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecoveredWarning)
        alike = TieredPUFilter(Moody(0.001, share=1.0), n_members=5, random_state=0)
        assert ((alike.fit(X, y, trusted).clean_labels_ >= 0) == trusted).all()


@pytest.fixture
def some_diverge(monkeypatch):
    """Let the training of a share of all members diverge, at any learning rate."""

    def set_share(share):
        train = _train

        def diverge(task):
            if task.may_diverge and np.random.default_rng(task.seed).random() < share:
                raise DivergedError("The training loss became nan.")
            return train(task)

        monkeypatch.setattr("pudistill.learners.tasks._train", diverge)

    return set_share


def test_members_that_diverge_are_left_out(blobs, some_diverge):
    X, y, trusted = blobs
    network = TorchClassifier(epochs=3)
    pu_filter = TieredPUFilter(network, n_members=6, max_iter=3, threshold=0.6, random_state=0)
    good = clone(pu_filter).fit(X, y, trusted)
    some_diverge(0.3)
    message = r"class \d, iteration \d, .*member \d knows nothing, as its training diverged: others"
    with pytest.warns(RecoveredWarning, match=message):
        mixed = clone(pu_filter).fit(X, y, trusted)
    assert as_good(mixed, good, y)


def test_if_all_members_diverge_nothing_is_found(blobs, some_diverge):
    X, y, trusted = blobs
    some_diverge(1.0)
    found = TieredPUFilter(TorchClassifier(epochs=1), n_members=3, max_iter=2, random_state=0)
    with pytest.warns(
        RecoveredWarning, match="member 3 knows nothing, as its training diverged: they abstain"
    ):
        found.fit(X, y, trusted)
    assert ((found.clean_labels_ >= 0) == trusted).all()


class CountingForest(RandomForestClassifier):
    """A random forest that notes its number of trees."""

    n_trees: list[int] = []

    def fit(self, X, y, sample_weight=None):
        self.n_trees.append(self.n_estimators)
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(("rule", "n_members", "n_trees"), [("auto", 20, 3), (0.9, 5, 10)])
def test_members_of_a_team_share_the_trees_of_a_forest(
    blobs, rule, n_members, n_trees, monkeypatch
):
    monkeypatch.setattr(CountingForest, "n_trees", [])
    forest = make_pipeline(StandardScaler(), CountingForest(10))
    options = {"n_members": n_members, "max_iter": 1, "random_state": 0}
    TieredPUFilter(forest, threshold=rule, **options).fit(*blobs)
    assert set(CountingForest.n_trees) == {n_trees}
