"""Temperatures and mixture weights follow the held-out samples, and the prior without samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from pudistill.learners.calibration import (
    Temperature,
    log_likelihood,
    mixture_weights,
)


def calibrated(n, n_classes=4, seed=0):
    """Return calibrated predictions, and one-hot labels drawn from them."""
    rng = np.random.default_rng(seed)
    proba = softmax(2 * rng.normal(size=(n, n_classes)), axis=1)
    labels = (rng.random((n, 1)) > proba.cumsum(axis=1)).sum(axis=1)
    return proba, np.eye(n_classes)[labels]


def sharpened(proba, power):
    return softmax(power * np.log(proba), axis=1)


# Temperature


@pytest.mark.parametrize("power", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(power):
    proba, known = calibrated(4000)
    temperature = Temperature.fit(sharpened(proba, power), known)
    assert temperature.sharpness == pytest.approx(1 / power, rel=0.08)
    np.testing.assert_allclose(temperature.apply(sharpened(proba, power)), proba, atol=0.03)


def test_without_samples_nothing_changes():
    temperature = Temperature.fit(np.zeros((0, 3)), np.zeros((0, 3)))
    assert temperature.sharpness == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("right", [0, 1])
def test_a_single_sample_is_no_proof(right):
    temperature = Temperature.fit(np.array([[0.9, 0.1]]), np.eye(2)[[1 - right]])
    assert 0.5 < temperature.sharpness < 1.5


def test_samples_without_a_label_do_not_count():
    proba, known = calibrated(60)
    too_sure = sharpened(proba, 2)
    more = np.vstack([too_sure, too_sure]), np.vstack([known, np.ones_like(known)])
    assert Temperature.fit(*more).sharpness == pytest.approx(
        Temperature.fit(too_sure, known).sharpness, rel=1e-3
    )


def test_a_prediction_that_was_certain_and_wrong_stays_finite():
    temperature = Temperature.fit(np.eye(2)[[0] * 30], np.eye(2)[[1] + [0] * 29])
    assert np.isfinite(temperature.sharpness)
    assert (temperature.apply(np.eye(2)) > 0).all()


@settings(max_examples=50)
@given(sharpness=st.floats(0.1, 5), seed=st.integers(0, 1000))
def test_calibration_keeps_probabilities_and_their_order(sharpness, seed):
    proba, _ = calibrated(10, seed=seed)
    result = Temperature(sharpness).apply(proba)
    np.testing.assert_allclose(result.sum(axis=1), 1)
    np.testing.assert_array_equal(result.argsort(axis=1), proba.argsort(axis=1))


# Mixtures


def test_without_samples_all_predictions_weigh_the_same():
    nothing = np.zeros((0, 2))
    assert mixture_weights([nothing] * 4, nothing).tolist() == [0.25] * 4


@pytest.mark.parametrize("n", [1, 8, 500])
def test_equal_predictions_weigh_the_same(n):
    proba, known = calibrated(n)
    assert mixture_weights([proba] * 3, known) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("n", [1, 8, 98])
def test_the_only_right_prediction_has_the_weight_of_all_samples_and_one(n):
    known = np.tile([1.0, 0.0], (n, 1))
    right, wrong = known, 1 - known
    assert mixture_weights([wrong, right], known)[1] == pytest.approx((n + 1) / (n + 2))
    assert mixture_weights([right, wrong], known)[1] == pytest.approx(1 / (n + 2))


def test_predictions_that_are_right_on_different_samples_share_the_weight():
    known = np.tile([1.0, 0.0], (100, 1))
    first = np.where(np.arange(100)[:, None] < 25, known, 1 - known)
    assert mixture_weights([first, 1 - first], known)[1] == pytest.approx((75 + 1) / (100 + 2))


def test_the_weight_is_the_likeliest_one():
    proba, known = calibrated(300)
    noise = np.random.default_rng(1).normal(size=proba.shape)
    first, second = sharpened(proba, 0.3), softmax(np.log(proba) + noise, axis=1)
    weight = mixture_weights([first, second], known)[1]
    grid = np.linspace(0.01, 0.99, 99)
    # The prior counts as one more sample on which only the first is right, and one for the second.
    score = [
        log_likelihood(w * second + (1 - w) * first, known).sum() + np.log(w) + np.log(1 - w)
        for w in grid
    ]
    assert weight == pytest.approx(grid[np.argmax(score)], abs=0.015)
    assert weight == pytest.approx(1 - mixture_weights([second, first], known)[1], abs=0.01)


def test_a_prediction_that_adds_nothing_has_the_weight_of_one_sample():
    known = np.tile([1.0, 0.0], (100, 1))
    first = np.where(np.arange(100)[:, None] < 25, known, 1 - known)
    weights = mixture_weights([first, 1 - first, 1 - known], known)
    assert weights == pytest.approx(np.array([26, 76, 1]) / 103)


def test_log_likelihood_is_that_of_the_labels():
    proba = np.array([[0.7, 0.2, 0.1]] * 3)
    known = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [1, 1, 1]])
    np.testing.assert_allclose(log_likelihood(proba, known), np.log([0.7, 0.45, 1]), atol=1e-9)
