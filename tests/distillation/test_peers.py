"""Pruned labels and Gold Loss Correction: candidates that do without the first guess."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from pudistill import PUDistillClassifier
from pudistill.distillation.candidates import needs_peers
from pudistill.distillation.few_trusted import given_label_proba, measured_matrix
from pudistill.distillation.peers import (
    doubted,
    fine_tuned,
    held_out_by_labels,
    model_of_labels,
    predict_given_labels,
    pruned_view,
)
from pudistill.distillation.problem import Problem
from pudistill.distillation.views import ENOUGH_HELD_OUT, whole_view
from pudistill.labels.checks import check_labels
from pudistill.learners.calibration import Temperature
from pudistill.learners.networks.classifier import TorchClassifier
from pudistill.learners.networks.recipes import Recipe, scaled_learning_rate
from pudistill.utils.time_limit import TimeLimit, limited_by

SMALL = {"n_members": 3, "max_iter": 2, "random_state": 0}


def blobs(n=300, level=0.4, per_class=6, seed=0):
    """Three blobs with evenly spread wrong labels, and a mask of a few trusted samples."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    X = 2 * np.eye(3)[y] + rng.normal(size=(n, 3))
    given = np.where(rng.random(n) < level, (y + rng.integers(1, 3, n)) % 3, y)
    trusted = np.zeros(n, dtype=bool)
    for c in range(3):
        trusted[np.flatnonzero(y == c)[:per_class]] = True
    given[trusted] = y[trusted]
    return X, y, given, trusted


def problem_of(X, given, trusted, **options):
    labels = check_labels(given, trusted)
    return Problem(X, labels, LogisticRegression(), None, 0, **options)


def test_doubted_labels_are_mostly_wrong():
    X, y, given, trusted = blobs(1500)
    problem = problem_of(X, given, trusted)
    whole = whole_view(problem.labels)
    said = given_label_proba(problem, whole)
    rows = whole.labelled
    found = rows[doubted(said[rows], given[rows])]
    assert (given[found] != y[found]).mean() > 0.75 > 0.4 + 0.2
    pruned = pruned_view(whole, said)
    assert set(pruned.labelled.tolist()) == set(rows.tolist()) - set(found.tolist())
    assert pruned.verified.tolist() == whole.verified.tolist()  # trusted samples are kept


def test_a_fine_tuned_network_starts_from_the_given_labels_and_ends_with_the_trusted_ones():
    X, y, given, trusted = blobs()
    given[~trusted] = (y[~trusted] + 1) % 3  # all wrong
    network = TorchClassifier(recipe=Recipe(epochs=4, learning_rate=0.1, batch_size=16))
    problem = replace(problem_of(X, given, trusted), student=network)
    whole = whole_view(problem.labels)
    of_labels = model_of_labels(problem, whole)
    before = of_labels.predict_proba(X)
    tuned = fine_tuned(problem, whole, of_labels)
    np.testing.assert_array_equal(of_labels.predict_proba(X), before)
    assert tuned.recipe_.learning_rate == pytest.approx(0.01)
    assert log_loss(y[trusted], tuned.predict_proba(X[trusted])) < log_loss(
        y[trusted], before[trusted]
    )
    with scaled_learning_rate(1e-9):
        unmoved = fine_tuned(problem, whole, of_labels)
    np.testing.assert_allclose(unmoved.predict_proba(X), before, atol=1e-6)
    view = whole.holding_out(np.flatnonzero(trusted)[::2], None)
    assert set(held_out_by_labels(problem, [whole, view])) == {"given_labels", "fine_tuned"}
    linear = problem_of(X, given, trusted)
    assert set(held_out_by_labels(linear, [whole, view])) == {"given_labels"}


def test_labels_that_are_all_right_are_not_doubted():
    y = np.arange(60) % 3
    assert not doubted(np.eye(3)[y] * 0.9 + 0.1 / 3, y).any()
    assert not doubted(np.full((4, 3), 1 / 3), np.zeros(4, dtype=int)).any()


def test_the_model_of_the_given_labels_reads_no_verified_label():
    X, y, given, trusted = blobs()
    verified = np.where(trusted, y, np.nan)
    swapped = np.where(trusted, (y + 1) % 3, np.nan)
    first, second = (
        given_label_proba(problem := problem_of(X, given, codes), whole_view(problem.labels))
        for codes in (verified, swapped)
    )
    np.testing.assert_array_equal(first, second)


def test_with_groups_each_view_hides_the_given_labels_of_held_out_groups():
    X, _, given, trusted = blobs()
    labels = check_labels(given, trusted)
    groups = np.arange(300) % 150
    problem = problem_of(X, given, trusted)
    problem = replace(problem, labels=replace(labels, groups=groups))
    whole = whole_view(problem.labels)
    views = [whole, whole.holding_out(np.flatnonzero(trusted)[:4], None)]
    said = predict_given_labels(problem, views)
    assert (said[0] != said[1]).any()
    assert not set(groups[views[1].labelled]) & set(groups[views[1].held_out])


def test_the_measured_matrix_is_what_the_model_calls_the_trusted_samples():
    y = np.arange(80) % 2
    labels = check_labels(y, np.arange(80) < 60)
    said = np.array([[0.2, 0.8], [0.1, 0.9]])[y]  # class 0 is mostly called 1
    T = measured_matrix(said, whole_view(labels))
    np.testing.assert_allclose(T, said[:2], atol=0.05)


def test_both_are_compared_where_few_samples_are_held_out():
    X, y, given, trusted = blobs()
    classifier = PUDistillClassifier(LogisticRegression(), **SMALL).fit(X, given, trusted=trusted)
    names = {candidate["name"] for candidate in classifier.comparison_.candidates}
    assert {"pruned_labels", "gold_loss_correction"} <= names
    assert classifier.adapted_["pruned_labels_share"] >= 0
    assert classifier.score(X, y) > 0.75


@pytest.mark.parametrize("name", ["pruned_labels", "gold_loss_correction"])
def test_each_can_be_shipped(monkeypatch, name):
    monkeypatch.setattr("pudistill.distillation.comparison.choose", lambda *_: name)
    X, y, given, trusted = blobs()
    classifier = PUDistillClassifier(LogisticRegression(), **SMALL).fit(X, given, trusted=trusted)
    assert classifier.shipped_ == name
    assert classifier.score(X, y) > 0.7


def judged(n, accuracy):
    """Return codes, and predictions of a student and of a simpler model of some accuracy."""
    codes = np.arange(n) % 3
    wrong = np.eye(3)[(codes + 1) % 3]
    right = np.eye(3)[codes]
    is_right = {"student": np.arange(n) < 0.6 * n, "given_labels": np.arange(n) < accuracy * n}
    return codes, {k: np.where(v[:, None], right, wrong) for k, v in is_right.items()}


@pytest.mark.parametrize(
    ("n", "accuracy", "expected"),
    [
        (60, 0.57, True),  # of few held-out samples, the student leads by two
        (60, 0.5, False),  # and here by six, which is clear
        (ENOUGH_HELD_OUT, 0.5, False),  # the student leads
        (ENOUGH_HELD_OUT, 0.7, True),  # a simpler model leads clearly
        (0, 0.5, False),  # nothing could judge them
    ],
)
def test_they_are_trained_where_the_first_guess_can_be_weak(n, accuracy, expected):
    X, _, given, trusted = blobs()
    problem = problem_of(X, given, trusted)
    codes, candidates = judged(n, accuracy)
    whole = whole_view(problem.labels)
    assert needs_peers(problem, whole, candidates, codes, None) == expected
    with limited_by(TimeLimit(0.0, {"student": 0.0})):
        assert not needs_peers(problem, whole, candidates, codes, None)


@pytest.mark.parametrize("name", ["student", "teacher", "gold_loss_correction"])
def test_candidates_are_judged_as_they_are_shipped(monkeypatch, name):
    X, y, given, trusted = blobs()
    judged_by = {}

    def chosen(scores, *_):
        judged_by.update(scores)
        return name

    monkeypatch.setattr("pudistill.distillation.comparison.choose", chosen)
    soft = Temperature(0.05)  # calibration that nobody would mistake for none
    monkeypatch.setattr(Temperature, "fit", staticmethod(lambda *_: soft))
    classifier = PUDistillClassifier(LogisticRegression(), metric="neg_log_loss", **SMALL)
    classifier.fit(X, given, trusted=trusted)
    shipped = classifier.predict_proba(X[~trusted])[np.arange((~trusted).sum()), y[~trusted]]
    assert judged_by[name].mean() == pytest.approx(np.log(shipped).mean(), abs=0.2)
