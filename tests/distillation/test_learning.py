"""Views, noise-free models, candidates and rounds: held-out labels are never read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import SelfTrainingClassifier

from pudistill import corrupt_labels
from pudistill.distillation.candidates import CandidateWeights
from pudistill.distillation.learning import find_originals, learn
from pudistill.distillation.network_student import likelihood_training
from pudistill.distillation.noise_free_models import (
    FirstGuess,
    NoiseFreeModels,
    self_train,
    train_noise_free_models,
)
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.peers import held_out_by_labels, model_of_labels
from pudistill.distillation.problem import Problem
from pudistill.distillation.rounds import best_round, folds_for
from pudistill.distillation.views import ENOUGH_HELD_OUT, deal_unread, held_out_rows, whole_view
from pudistill.labels.checks import check_labels
from pudistill.labels.model_selection import deal_folds
from pudistill.learners.calibration import Temperature

CENTRES = [[0, 0], [4, 0], [0, 4]]


@pytest.fixture(scope="module")
def blobs():
    """Three classes that hardly overlap, a tenth trusted, 60 % of the other labels shifted."""
    X, y = make_blobs(400, centers=CENTRES, random_state=0)
    trusted = np.arange(400) % 10 == 0
    noisy = corrupt_labels(y, "asymmetric", 0.54, trusted=trusted, random_state=0).y
    return X, y, noisy, trusted


# Views


def test_a_view_separates_verified_and_given_labels():
    view = whole_view(check_labels([0, 1, 1, -1], [0, 1, np.nan, np.nan]))
    assert view.verified.tolist() == [0, 1, -1, -1]
    assert view.given.tolist() == [-1, -1, 1, -1]
    assert view.trusted.tolist() == [0, 1]
    assert view.labelled.tolist() == [2]
    assert len(view.held_out) == 0


@pytest.mark.parametrize("known_before", [True, False])
def test_a_view_hides_the_verified_labels_of_held_out_samples(known_before):
    labels = check_labels([0, 1, 1, 0, 1], [1, np.nan, 0, 0, 1])
    whole = whole_view(labels)
    view = whole.holding_out(np.array([0, 3]), labels.given if known_before else None)
    assert view.verified.tolist() == [-1, -1, 0, -1, 1]
    # The labels that they had before somebody verified them are noisy labels like any other.
    assert view.given.tolist() == ([0, 1, -1, 0, -1] if known_before else [-1, 1, -1, -1, -1])
    assert view.held_out.tolist() == [0, 3]
    assert whole.verified.tolist() == [1, -1, 0, 0, 1]


@settings(max_examples=50)
@given(n=st.integers(0, 1500), n_folds=st.integers(2, 6), seed=st.integers(0, 100))
def test_folds_are_held_out_until_there_are_enough_samples(n, n_folds, seed):
    folds = np.random.default_rng(seed).integers(-1, n_folds, n)
    rows = held_out_rows(folds)
    held_out = np.concatenate([np.zeros(0, int), *rows])
    assert (folds[held_out] >= 0).all()
    assert len(set(held_out.tolist())) == len(held_out)
    if len(held_out) < (folds >= 0).sum():
        assert len(held_out) >= ENOUGH_HELD_OUT > len(held_out) - len(rows[-1])
    networks = held_out_rows(folds, one_or_all=True)
    assert len(networks) == (len(rows) if len(rows) < 2 else folds.max() + 1)


def test_without_folds_nothing_is_held_out():
    assert held_out_rows(np.full(20, -1)) == []


@pytest.mark.parametrize(("n", "folds"), [(10, 5), (5000, 5), (5001, 3), (20_001, 2)])
def test_small_data_sets_get_more_folds(n, folds):
    assert folds_for(n, 2) == folds


# Noise-free models


def test_noise_free_models_learn_from_verified_labels_and_the_clean_set_alone(blobs):
    X, y, noisy, trusted = blobs
    rng = np.random.default_rng(0)
    found, rows = [], np.arange(400)
    for given_labels in (noisy, np.where(trusted, y, rng.integers(3, size=400))):
        view = whole_view(check_labels(given_labels, trusted))
        clean = np.where(trusted | (np.arange(400) % 3 == 0), y, -1)
        args = {"n_teachers": "auto", "seed": 0}
        learner = LogisticRegression()
        found.append(
            train_noise_free_models(X, view.verified, clean, rows, 3, learner, learner, **args)
        )
    assert list(found[0].by_name) == [
        *("trusted_only", "teacher", "self_trained", "self_trained_teacher")
    ]
    for name, proba in found[0].held_out.items():
        np.testing.assert_array_equal(proba, found[1].held_out[name])
        assert (proba.argmax(axis=1) == y).mean() > 0.93


def test_if_the_filter_found_nothing_there_are_no_teachers(blobs):
    X, y, noisy, trusted = blobs
    view = whole_view(check_labels(noisy, trusted))
    learner = LogisticRegression()
    clean, rows = np.where(trusted, y, -1), np.arange(0)
    args = {"n_teachers": "auto", "seed": 0}
    found = train_noise_free_models(X, view.verified, clean, rows, 3, learner, learner, **args)
    assert list(found.by_name) == ["trusted_only", "self_trained"]
    assert found.members("teacher") == found.by_name["trusted_only"]
    assert found.held_out_proba("self_trained_teacher") is found.held_out["self_trained"]


def test_self_training_agrees_with_scikit_learn(blobs):
    X, y, _, trusted = blobs
    labels = np.where(trusted, y, -1)
    ours, _ = self_train(LogisticRegression(tol=1e-8), X, labels, 3, seed=0)
    theirs = SelfTrainingClassifier(LogisticRegression(tol=1e-8)).fit(X, labels)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)


def test_weights_restore_the_class_shares_of_the_trusted_samples(blobs):
    class Proportions(ClassifierMixin, BaseEstimator):
        """Predicts the weighted shares of the classes."""

        def fit(self, X, y, sample_weight=None):
            weight = np.ones(len(y)) if sample_weight is None else sample_weight
            self.classes_ = np.unique(y)
            self.shares_ = np.bincount(y, weight) / weight.sum()
            return self

        def predict_proba(self, X):
            return np.tile(self.shares_, (len(X), 1))

    X, y, noisy, trusted = blobs
    view = whole_view(check_labels(noisy, trusted))
    clean = np.where(trusted | (y == 0), y, -1)  # all of class 0, and nothing else
    args = {"n_teachers": 1, "seed": 0}
    learner, rows = Proportions(), np.arange(1)
    found = train_noise_free_models(X, view.verified, clean, rows, 3, learner, learner, **args)
    np.testing.assert_allclose(found.held_out["teacher"], found.held_out["trusted_only"])


def test_a_model_that_is_right_more_often_weighs_more_in_the_first_guess():
    rng = np.random.default_rng(0)
    known = np.eye(3)[rng.integers(3, size=200)]
    good, random = 0.7 * known + 0.1, rng.dirichlet(np.ones(3), 200)
    found = FirstGuess.fit({"trusted_only": random, "teacher": good}, known).weights
    assert found["teacher"] > 0.9
    assert sum(found.values()) == pytest.approx(1)
    temperatures = {"trusted_only": Temperature(2.0), "teacher": Temperature()}
    first_guess = FirstGuess(temperatures, {"trusted_only": 0.75, "teacher": 0.25})
    proba = {"trusted_only": np.array([[0.75, 0.25]]), "teacher": np.array([[0.2, 0.8]])}
    models = NoiseFreeModels({"trusted_only": ["a"], "teacher": ["b", "c"]}, {})
    expected = [[0.25 * 0.2 + 0.75 * 0.9, 0.25 * 0.8 + 0.75 * 0.1]]
    np.testing.assert_allclose(first_guess.mix(proba), expected)
    assert [(model, weight) for model, weight, _ in first_guess.members(models)] == [
        *(("a", 0.75), ("b", 0.125), ("c", 0.125))
    ]


def predictions_of(n, accuracy, rng):
    """Return labels, and predictions with 80 % confidence, of which a share is right."""
    truth = np.eye(2)[rng.integers(2, size=n)]
    right = rng.random(n)[:, None] < accuracy
    return truth, np.where(right, 0.6 * truth + 0.2, 0.8 - 0.6 * truth)


def test_given_labels_have_hardly_any_weight_if_the_student_is_clearly_better():
    rng = np.random.default_rng(0)
    truth, student = predictions_of(400, 0.95, rng)
    given_labels = np.where(rng.random(400)[:, None] < 0.6, truth, 1 - truth) * 0.6 + 0.2
    predictions = {"guess": np.full((400, 2), 0.5), "student": student}
    shares = CandidateWeights.fit(predictions | {"given_labels": given_labels}, truth).shares
    assert shares["given_labels"] < 0.1
    assert shares["student"] > 0.9


@pytest.mark.parametrize(("n", "is_left_out"), [(3, False), (900, True)])
def test_a_handful_of_samples_leaves_no_candidate_out(n, is_left_out):
    # The student is mostly right in two of three samples, and wrong in one; the others only guess.
    truth = np.eye(2)[np.arange(n) // 3 % 2]
    right = np.where(np.arange(n) % 3 < 2, 0.95, 0.3)[:, None]
    student, even = (1 - right) + (2 * right - 1) * truth, np.full((n, 2), 0.5)
    predictions = {"guess": even, "student": student, "given_labels": even}
    shares = CandidateWeights.fit(predictions, truth).shares
    assert (shares["given_labels"] == 0) == is_left_out


def test_given_labels_have_a_weight_if_the_student_is_not_better():
    rng = np.random.default_rng(0)
    truth, student = predictions_of(60, 0.6, rng)
    given_labels = 0.6 * truth + 0.2
    predictions = {
        "guess": np.full((60, 2), 0.5),
        "student": student,
        "given_labels": given_labels,
    }
    weights = CandidateWeights.fit(predictions, truth)
    assert weights.shares["given_labels"] > 0.5
    mixed = weights.mix(predictions)
    np.testing.assert_allclose(mixed.sum(axis=1), 1)
    assert (mixed.argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.9


def test_with_nothing_held_out_the_student_has_all_the_weight():
    nothing = np.zeros((0, 2))
    weights = CandidateWeights.fit(
        dict.fromkeys(("guess", "student", "given_labels"), nothing), nothing
    )
    assert weights.shares == {"guess": 0, "student": 1, "given_labels": 0}


# Rounds


def test_the_last_round_that_is_as_good_as_the_best_is_taken():
    truth = np.eye(2)[np.arange(200) % 2]
    wrong = np.where(np.arange(200)[:, None] < 100, 0.4 * truth + 0.3, 0.4 * (1 - truth) + 0.3)
    good, best = 0.6 * truth + 0.2, 0.9 * truth + 0.05
    assert best_round([good, best, best], truth) == 3
    assert best_round([best, good, best, wrong], truth) == 3
    assert best_round([good, best, wrong], truth) == 2
    assert best_round([wrong], truth) == 1


@pytest.mark.parametrize(("loss", "n_rounds"), [(0.02, 2), (0.2, 1)])
def test_a_difference_within_one_standard_error_does_not_count(loss, n_rounds):
    truth = np.eye(2)[np.arange(100) % 2]
    # The log-likelihoods differ by about ± 0.5: their mean has a standard error of 0.05.
    sure = np.where(np.arange(100)[:, None] % 4 < 2, 0.8, 0.5)
    first, second = (np.where(truth == 1, p, 1 - p) for p in (sure, (1.3 - sure) * (1 - loss)))
    assert best_round([first, second], truth) == n_rounds


def test_without_held_out_samples_the_last_round_is_taken():
    nothing = np.zeros((0, 2))
    assert best_round([nothing, nothing], nothing) == 2


def fit_student(blobs, n_held_out=1, learner=None, **kwargs):
    X, _, noisy, trusted = blobs
    labels = check_labels(noisy, trusted)
    whole = whole_view(labels)
    folds = deal_folds(labels.verified, 4, 0)
    views = [whole, *[whole.holding_out(rows, None) for rows in held_out_rows(folds)[:n_held_out]]]
    model = LogisticRegression()
    guesses = [
        model.fit(X[view.trusted], view.verified[view.trusted]).predict_proba(X) for view in views
    ]
    problem = Problem(X, labels, learner or model, n_jobs=None, seed=0)
    return learn(problem, views, guesses, **kwargs), views


def test_a_student_learns_through_the_noise(blobs):
    X, y, noisy, trusted = blobs
    found, views = fit_student(blobs)
    assert (found.targets.argmax(axis=1) == y).mean() > 0.95 > 0.6 > (noisy == y).mean()
    assert found.student.score(X, y) > 0.95
    np.testing.assert_allclose(found.targets.sum(axis=1), 1)
    np.testing.assert_array_equal(found.targets[trusted], np.eye(3)[y[trusted]])
    wrong = found.noise[0].T * (1 - np.eye(3))
    np.testing.assert_array_equal(wrong.argmax(axis=1), [1, 2, 0])
    assert found.held_out.shape == (len(views[1].held_out), 3)
    assert 1 <= found.n_rounds <= 6


def test_with_nothing_held_out_the_first_guess_has_no_weight(blobs):
    found, _ = fit_student(blobs, n_held_out=0)
    assert found.calibration.weight == 1
    assert found.held_out.shape == (0, 3)


def test_a_known_matrix_is_used_as_it_is(blobs):
    T = np.array([[0.4, 0.6, 0], [0, 0.4, 0.6], [0.6, 0, 0.4]])
    found, views = fit_student(blobs, transition_matrix=T)
    np.testing.assert_array_equal(found.noise[0].T, T)
    # A label that cannot come from a class rules that class out.
    rows = views[0].labelled
    impossible = T[:, views[0].given[rows]].T == 0
    assert found.targets[rows][impossible].max() < 1e-6


class Network(ClassifierMixin, BaseEstimator):
    """Stands in for a network that takes a loss, and remembers its targets."""

    accepts_soft_targets = True
    continues_training = True

    def __init__(self, role=None, loss="cross_entropy", warm_start=False):
        self.role = role
        self.loss = loss
        self.warm_start = warm_start

    def fit(self, X, y):
        self.known_ = y
        self.classes_ = np.arange(y.shape[1])
        self.model_ = LogisticRegression().fit(X, y.argmax(axis=1))
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def test_a_network_learns_the_likelihood_of_the_labels(blobs):
    _, y, noisy, trusted = blobs
    T = 0.2 + 0.4 * np.eye(3)
    found, _ = fit_student(blobs, learner=Network(), transition_matrix=T)
    network = found.student
    assert (network.role, network.loss) == ("noise_aware", "likelihood")
    np.testing.assert_array_equal(network.known_[trusted], np.eye(3)[y[trusted]])
    np.testing.assert_allclose(network.known_[~trusted], T[:, noisy[~trusted]].T)


def test_a_network_gets_the_weights_of_the_samples_that_it_learns(blobs):
    X, y, _, trusted = blobs
    whole = replace(whole_view(check_labels(y, trusted)), groups=np.arange(400) // 2)
    view = whole.holding_out(np.flatnonzero(trusted)[:2], None)
    task = likelihood_training(Network(), X, view, NoiseModel(np.eye(3)), 0, np.arange(400.0))
    np.testing.assert_array_equal(task.sample_weight, task.rows)
    assert len(task.rows) == len(task.targets) == 396


@pytest.mark.parametrize("n_views", [1, 2, 3])
def test_networks_start_from_the_semi_supervised_one_of_their_view(blobs, n_views):
    X, y, noisy, trusted = blobs
    whole = whole_view(check_labels(noisy, np.where(trusted, y, np.nan)))
    parts = np.array_split(np.flatnonzero(trusted), 2)[: n_views - 1]
    views = deal_unread([whole, *(whole.holding_out(rows, None) for rows in parts)], 0)
    learned = {}

    class Continued(Network):
        def fit(self, X, y):
            learned.setdefault(self.start_, []).append((self.role, self.warm_start, y))
            return super().fit(X, y)

    starts = [Continued().set_params(loss="likelihood") for _ in views]
    for number, start in enumerate(starts):
        start.start_ = number
    guesses = [np.full((len(X), 3), 1 / 3)] * n_views
    learn(Problem(X, check_labels(noisy, trusted), Continued(), None, 0), views, guesses,
          transition_matrix=0.2 + 0.4 * np.eye(3), trained=starts)  # fmt: skip
    for number, trainings in learned.items():
        for role, warm_start, known in trainings:
            assert role.startswith("continued")
            assert warm_start
            # A network that hides verified labels starts from one that has not read them.
            hidden = (known[trusted] == 1).all(axis=1)
            assert not hidden.any() or number > 0
    n_parts = {1: [2 + 1], 2: [2 + 1, 1], 3: [1, 1, 1]}
    assert [len(learned[number]) for number in range(n_views)] == n_parts[n_views]


class PictureNetwork(Network):
    """Stands in for a network that learns pictures."""

    def fit(self, X, y):
        return super().fit(X.reshape(len(X), -1), y)

    def predict_proba(self, X):
        return super().predict_proba(X.reshape(len(X), -1))


def test_a_network_learns_pictures_without_labels_only_if_it_is_to(blobs):
    X, y, _, trusted = blobs
    pictures = np.tile(X[:, None, :, None], (1, 2, 1, 1))
    verified, held_out = np.where(trusted, y, -1), np.flatnonzero(trusted)[:6]
    verified[held_out] = -1
    groups = np.arange(400) // 2

    def models(samples, **options):
        args = (verified, verified, held_out, 3, PictureNetwork(), PictureNetwork())
        return train_noise_free_models(samples, *args, n_teachers="auto", seed=0, **options).by_name

    (network,) = models(pictures, semi_supervised=True)["semi_supervised"]
    assert (network.role, network.loss) == ("semi_supervised", "likelihood")
    is_known = verified >= 0
    np.testing.assert_array_equal(network.known_[is_known], np.eye(3)[y[is_known]])
    np.testing.assert_array_equal(network.known_[~is_known], 1)
    # With groups, not even the pictures of held-out groups are seen.
    grouped = models(pictures, semi_supervised=True, groups=groups)["semi_supervised"][0]
    assert len(grouped.known_) == 400 - np.isin(groups, groups[held_out]).sum()
    assert "semi_supervised" not in models(pictures)
    assert "semi_supervised" not in models(X, semi_supervised=True)


class Memory(Network):
    """Predicts the target of a training sample, if it is informative; else from the features."""

    def predict_proba(self, X):
        if len(X) != len(self.known_):
            return self.model_.predict_proba(X)
        targets = self.known_ / self.known_.sum(axis=1, keepdims=True)
        uninformative = (self.known_ == self.known_[:, :1]).all(axis=1)
        return np.where(uninformative[:, None], self.model_.predict_proba(X), targets)


def test_a_network_predicts_a_sample_without_having_read_its_label(blobs):
    _, y, noisy, trusted = blobs
    found, _ = fit_student(blobs, learner=Memory(), transition_matrix=0.2 + 0.4 * np.eye(3))
    right = found.probas[0].argmax(axis=1) == y
    as_given = found.probas[0].argmax(axis=1) == noisy
    assert right[~trusted].mean() > as_given[~trusted].mean()


def test_networks_that_memorise_are_judged_by_samples_whose_labels_they_have_not_read(blobs):
    X, y, noisy, trusted = blobs
    verified = np.where(trusted, (y + 2) % 3, np.nan)  # a rule that only a memory can know
    labels = check_labels(noisy, verified)
    whole = whole_view(labels)
    rows = np.flatnonzero(trusted)[::2]
    views = [whole, whole.holding_out(rows, None)]
    problem = Problem(X, labels, Memory(), n_jobs=None, seed=0)
    guess = np.full((400, 3), 1 / 3)
    found = learn(problem, views, [guess, guess], transition_matrix=0.2 + 0.4 * np.eye(3))
    assert (found.held_out.argmax(axis=1) == verified[rows]).mean() < 0.5
    kept = np.setdiff1d(np.flatnonzero(trusted), rows)
    assert (found.student.predict_proba(X).argmax(axis=1) == verified)[kept].all()


def several_views(labels, groups=None):
    whole = replace(whole_view(labels), groups=groups)
    folds = deal_folds(labels.verified, 5, 0, groups)
    rows = held_out_rows(folds, one_or_all=True)
    return deal_unread([whole, *(whole.holding_out(held_out, None) for held_out in rows)], 0)


@pytest.mark.parametrize("groups", [None, np.arange(400) // 4])
def test_given_labels_are_dealt_among_the_views_that_hold_samples_out(blobs, groups):
    _, _, noisy, trusted = blobs
    views = several_views(check_labels(noisy, trusted), groups)
    dealt = np.concatenate([view.unread for view in views[1:]])
    assert len(views) == 6
    np.testing.assert_array_equal(np.sort(dealt), np.flatnonzero(~trusted))
    for view in views[1:] if groups is not None else ():
        of_held_out = np.isin(groups, groups[view.held_out]) & ~trusted
        assert set(np.flatnonzero(of_held_out)) <= set(view.unread)


def test_networks_of_several_views_know_as_little_of_unread_as_of_held_out_samples(blobs):
    X, y, noisy, trusted = blobs
    rule = (y + 2) % 3  # only a memory can know it
    labels = check_labels(np.where(trusted, rule, noisy), trusted)
    views = several_views(labels)
    problem = Problem(X, labels, Memory(), n_jobs=None, seed=0)
    guesses = [np.full((400, 3), 1 / 3)] * 6
    found = learn(problem, views, guesses, transition_matrix=0.2 + 0.4 * np.eye(3))
    held_out = np.concatenate([view.held_out for view in views])
    assert len(held_out) == trusted.sum() == len(found.held_out)
    assert (found.held_out.argmax(axis=1) == rule[held_out]).mean() < 0.5
    for proba, view in zip(found.probas[1:], views[1:], strict=True):
        np.testing.assert_array_equal(found.probas[0][view.unread], proba[view.unread])
        as_given = proba.argmax(axis=1) == noisy
        assert as_given[view.unread].mean() < 0.7 < as_given[~trusted].mean()
        kept = np.setdiff1d(np.flatnonzero(trusted), view.held_out)
        assert (proba[kept].argmax(axis=1) == rule[kept]).all()


def test_one_network_of_the_given_labels_that_saw_no_held_out_label_judges_all_views(blobs):
    X, y, noisy, trusted = blobs
    labels = check_labels(np.where(trusted, (y + 2) % 3, noisy), trusted)
    views = several_views(labels)
    problem = Problem(X, labels, Network(), n_jobs=None, seed=0)
    held_out = held_out_by_labels(problem, views)
    plain = LogisticRegression().fit(X[~trusted], noisy[~trusted])
    rows = np.concatenate([view.held_out for view in views])
    np.testing.assert_array_equal(held_out["given_labels"], plain.predict_proba(X[rows]))
    assert held_out["fine_tuned"].shape == held_out["given_labels"].shape


def test_the_model_of_the_given_labels_uses_verified_labels_of_trusted_samples(blobs):
    X, y, _, trusted = blobs
    given_labels = np.where(np.arange(400) % 3 == 0, (y + 1) % 3, y)  # of trusted samples, too
    labels = check_labels(given_labels, np.where(trusted, y, np.nan))
    problem = Problem(X, labels, LogisticRegression(), n_jobs=None, seed=0)
    model = model_of_labels(problem, whole_view(labels))
    plain = LogisticRegression().fit(X, np.where(trusted, y, given_labels))
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=1e-3)


def test_missing_labels_are_not_a_class(blobs):
    X, y, _, trusted = blobs
    labels = check_labels(np.where(np.arange(400) % 2 == 0, y, -1), np.where(trusted, y, np.nan))
    problem = Problem(X, labels, LogisticRegression(), n_jobs=None, seed=0)
    model = model_of_labels(problem, whole_view(labels))
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.score(X, y) > 0.93


@pytest.mark.parametrize(
    ("before", "wrong", "used", "warned"),
    [
        ("kept", 0.5, True, False),
        ("overwritten", 0.5, False, True),
        ("overwritten", 0.0, True, False),
    ],
)
def test_originals_are_used_unless_they_are_implausibly_right(before, wrong, used, warned):
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    given_labels = np.where(rng.random(600) < wrong, 1 - y, y)
    trusted = np.arange(600) < 60
    if before == "overwritten":
        given_labels[trusted] = y[trusted]
    labels = check_labels(given_labels, np.where(trusted, y, np.nan))
    originals, warning = find_originals(labels, whole_view(labels), 0.9 * np.eye(2)[y] + 0.05)
    assert (originals is not None) == used
    assert (warning is not None) == warned
