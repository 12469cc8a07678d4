"""Metrics are scikit-learn's, and their intervals hold."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from pudistill import PUDistillClassifier
from pudistill.distillation.comparison import compare
from pudistill.distillation.metrics import METRICS
from pudistill.estimates.shares import weighted_mean
from pudistill.learners.calibration import LOG_EPSILON


def draw(rng, n, prior=(0.7, 0.2, 0.1), strength=2.0):
    """Draw labels and calibrated-looking predictions of them."""
    labels = rng.choice(len(prior), n, p=prior)
    logits = rng.normal(size=(n, len(prior))) + strength * np.eye(len(prior))[labels]
    proba = np.exp(logits)
    return proba / proba.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", lambda y, p: accuracy_score(y, p.argmax(axis=1))),
        ("balanced_accuracy", lambda y, p: balanced_accuracy_score(y, p.argmax(axis=1))),
        ("f1_macro", lambda y, p: f1_score(y, p.argmax(axis=1), average="macro")),
        ("neg_log_loss", lambda y, p: -log_loss(y, p, labels=range(3))),
    ],
)
def test_the_mean_of_the_scores_is_the_metric_of_scikit_learn(name, expected):
    proba, labels = draw(np.random.default_rng(0), 80)
    assert METRICS[name].scores(proba, labels).mean() == pytest.approx(expected(labels, proba))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", accuracy_score),
        ("balanced_accuracy", balanced_accuracy_score),
        ("f1_macro", lambda *args, **options: f1_score(*args, **options, average="macro")),
    ],
)
def test_weighted_scores_are_the_weighted_metric_of_scikit_learn(name, expected):
    rng = np.random.default_rng(0)
    (proba, labels), weight = draw(rng, 80), rng.uniform(0.2, 2, 80)
    scores = METRICS[name].scores(proba, labels, weight)
    found = expected(labels, proba.argmax(axis=1), sample_weight=weight)
    assert weighted_mean(scores, weight) == pytest.approx(found)


@pytest.mark.parametrize("name", METRICS)
def test_weighted_intervals_hold_the_truth(name):
    rng, metric, held = np.random.default_rng(1), METRICS[name], []
    proba, labels = draw(rng, 100_000)
    truth = metric.scores(proba, labels).mean()
    # Wrong predictions are four times as likely to be drawn.
    likely = np.where(proba.argmax(axis=1) == labels, 1.0, 4.0)
    likely /= likely.mean()
    for _ in range(100):
        rows = rng.choice(len(labels), 150, p=likely / likely.sum())
        part, codes, weight = proba[rows], labels[rows], 1 / likely[rows]
        value = weighted_mean(metric.scores(part, codes, weight), weight)
        low, high = metric.interval(value, part, codes, None, weight)
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.91


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("n", [30, 150])
def test_intervals_hold_the_truth(name, n):
    rng, metric = np.random.default_rng(1), METRICS[name]
    truth = metric.scores(*draw(rng, 100_000)).mean()
    held = []
    for _ in range(200):
        proba, labels = draw(rng, n)
        low, high = metric.interval(metric.scores(proba, labels).mean(), proba, labels, None)
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.92


@pytest.mark.parametrize("name", METRICS)
def test_intervals_of_groups_are_wider(name):
    metric, (proba, labels) = METRICS[name], draw(np.random.default_rng(0), 30)
    proba, labels = np.repeat(proba, 8, axis=0), np.repeat(labels, 8)
    value = metric.scores(proba, labels).mean()
    alone, grouped = (
        metric.interval(value, proba, labels, groups)
        for groups in (None, np.repeat(np.arange(30), 8))
    )
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


@pytest.mark.parametrize("name", METRICS)
def test_one_held_out_sample_promises_next_to_nothing(name):
    metric, proba, labels = METRICS[name], np.array([[0.9, 0.1]]), np.array([0])
    low, high = metric.interval(metric.scores(proba, labels).mean(), proba, labels, None)
    assert np.log(LOG_EPSILON) <= low <= (0.1 if metric.is_share else -1.0)
    assert high <= 1


def test_the_metric_decides_what_is_shipped_and_what_is_promised():
    # Of the common class the student is always right; of the rare class only the other model is.
    labels = np.repeat([0, 1], [180, 60])
    student, other = np.tile([0.8, 0.2], (240, 1)), np.eye(2)[labels] * 0.8 + 0.1
    other[:70] = other[:70, ::-1]
    candidates = {"student": student, "given_labels": other}
    found = {
        metric: compare(candidates, labels, metric=metric, seed=0)
        for metric in ("accuracy", "balanced_accuracy", "f1_macro")
    }
    shipped = {metric: comparison.shipped for metric, comparison in found.items()}
    assert shipped == {
        "accuracy": "student",
        "balanced_accuracy": "given_labels",
        "f1_macro": "given_labels",
    }
    balanced = found["balanced_accuracy"]
    assert balanced.expected_accuracy.metric == "balanced_accuracy"
    assert balanced.expected_accuracy.value == pytest.approx((110 / 180 + 1) / 2, abs=0.02)
    assert "had a balanced accuracy of 80.6% on the held-out trusted samples" in balanced.why


def test_a_loss_is_shown_without_its_sign():
    metric = METRICS["neg_log_loss"]
    assert metric.shown(-0.25) == "0.250"
    assert metric.shown_interval((-0.5, -0.125)) == ("0.125", "0.500")


def test_the_classifier_promises_the_metric_that_the_user_names():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    X = rng.normal(size=(120, 2)) + 3 * y[:, None]
    given = np.where(rng.random(120) < 0.2, 1 - y, y)
    trusted = np.where(rng.random(120) < 0.3, y, np.nan)
    classifier = PUDistillClassifier(
        LogisticRegression(), metric="neg_log_loss", n_members=2, max_iter=1, random_state=0
    ).fit(X, given, trusted=trusted)
    low, high = classifier.expected_accuracy_.interval
    assert classifier.expected_accuracy_.metric == "neg_log_loss"
    assert low < classifier.expected_accuracy_.value < high <= 0
    assert "had a log loss of" in classifier.comparison_.why
