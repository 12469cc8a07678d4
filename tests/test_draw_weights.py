"""Verified samples that were chosen with known probabilities: what is estimated from them."""

import numpy as np
import pandas as pd
import pytest

from pudistill import PUDistillClassifier, correct_labels
from pudistill.exceptions import InputError
from pudistill.review.drawing import draw


def reviewed(seed, n=2000, n_draws=300):
    """Draw 300 of 2000 samples to verify, mostly those with a wrong label."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    X = 2.5 * np.eye(3)[y] + rng.normal(size=(n, 3))
    given = np.where(rng.random(n) < 0.3, (y + 1) % 3, y)
    drawn = draw(np.where(given != y, 6.0, 1.0), n_draws, 0.5, rng)
    trusted = pd.Series(np.nan, index=range(n), dtype=object)
    trusted[drawn.rows] = y[drawn.rows]
    weights = pd.Series(drawn.weight, index=drawn.rows)
    return X, y, pd.Series(given), trusted, weights


def softmax(X):
    return np.exp(2.5 * X) / np.exp(2.5 * X).sum(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:The predictions treat verified samples unlike others")
def test_estimates_need_the_weights():
    errors = {"with": [], "without": []}
    n_held = 0
    for seed in range(8):
        X, y, given, trusted, weights = reviewed(seed)
        rest = trusted.isna().to_numpy()
        rate = (given[rest] != y[rest]).mean()
        noise = correct_labels(given, softmax(X), trusted).noise
        errors["without"].append(noise.rate - rate)
        corrected = correct_labels(given, softmax(X), trusted, draw_weight=weights)
        errors["with"].append(corrected.noise.rate - rate)
        right = (corrected.label_table["label"] == y)[rest].mean()
        low, high = corrected.label_accuracy.interval
        n_held += low <= right <= high
        n_held += corrected.noise.rate_interval[0] <= rate <= corrected.noise.rate_interval[1]
    assert abs(np.mean(errors["with"])) < 0.01
    assert np.mean(errors["without"]) > 0.02
    assert n_held >= 14


def test_a_fit_uses_the_weights():
    X, y, given, trusted, weights = reviewed(0)
    fast = {"n_members": 3, "max_iter": 2, "random_state": 0}
    classifier = PUDistillClassifier(**fast).fit(X, given, trusted, draw_weight=weights)
    assert classifier.held_out_labels_.doubt is None  # chosen with known weights, so no surprise
    rest = trusted.isna().to_numpy()
    rate = (given[rest] != y[rest]).mean()
    low, high = classifier.noise_.rate_interval
    assert low <= rate <= high
    accuracy = (classifier.label_table_["label"] == y)[rest].mean()
    low, high = classifier.label_accuracy_.interval
    assert low <= accuracy <= high
    assert np.diagonal(classifier.noise_.transition_matrix) == pytest.approx([0.7] * 3, abs=0.06)
    certified = classifier.certify(0.15)
    kept = certified.accepted & rest
    assert kept.sum() > 500
    assert (certified.labels != y)[kept].mean() <= 0.15


def test_a_wrong_weight_is_an_error():
    X, _, given, trusted, weights = reviewed(0)
    with pytest.raises(InputError, match="picked by hand"):
        PUDistillClassifier().fit(X, given, trusted, draw_weight=-weights)


def test_both_steps_of_a_fit_know_what_was_picked_by_hand():
    X, _, given, trusted, weights = reviewed(0)
    weights = weights.copy()
    weights.iloc[:20] = 0.0  # picked by hand
    fast = {"n_members": 3, "max_iter": 2, "random_state": 0}
    classifier = PUDistillClassifier(**fast)
    classifier.fit_teachers(X, given, trusted, draw_weight=weights)
    stepwise = classifier.fit_student(X, given, trusted, draw_weight=weights).targets_
    whole = PUDistillClassifier(**fast).fit(X, given, trusted, draw_weight=weights).targets_
    np.testing.assert_array_equal(stepwise, whole)
    with pytest.raises(InputError, match="draw_weight marks other samples as picked by hand"):
        classifier.fit_student(X, given, trusted)
