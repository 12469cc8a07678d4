"""Intervals of shares hold what they promise, with predictions of any quality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import binomtest

from pudistill.data.draws import Draws
from pudistill.estimates.shares import exact_interval, rectified_share
from pudistill.review.drawing import draw

NONE = np.full(1000, np.nan)  # no predictions


@pytest.mark.parametrize(("n_counted", "n"), [(0, 20), (3, 20), (20, 20), (250, 1000)])
def test_without_predictions_it_is_the_exact_interval(n_counted, n):
    value, interval, _ = rectified_share(np.arange(n) < n_counted, NONE[:n], np.inf)
    expected = binomtest(n_counted, n).proportion_ci(method="exact")
    assert value == n_counted / n
    np.testing.assert_allclose(interval, expected)
    np.testing.assert_allclose(exact_interval(n_counted / n, n), expected)


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 300),
    n_rest=st.integers(1, 10_000),
    share=st.floats(0, 1),
)
def test_intervals_are_possible_and_hold_the_value(seed, n, n_rest, share):
    rng = np.random.default_rng(seed)
    outcomes = rng.random(n) < share
    controls = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n) + outcomes)
    value, (low, high), _ = rectified_share(outcomes, controls, n_rest)
    assert 0 <= low <= value <= high <= 1


def simulated(rng, share, sharpness, n, *, distorted):
    """Draw outcomes that differ by sample, and predictions of them, which can be distorted."""
    proba = rng.beta(share * sharpness, (1 - share) * sharpness, size=n)
    proba = np.clip(proba, 1e-9, 1 - 1e-9)
    predicted = expit(0.5 * logit(proba) - 2) if distorted else proba
    return rng.random(n) < proba, predicted


@pytest.mark.parametrize("distorted", [False, True])
@pytest.mark.parametrize(("share", "n"), [(0.02, 40), (0.1, 100), (0.4, 40)])
def test_intervals_hold_for_few_samples_and_wrong_models(share, n, distorted):
    rng, n_rest, n_draws, sharpness = np.random.default_rng(1), 9 * n, 200, 0.3
    inside = 0
    for _ in range(n_draws):
        outcomes, predicted = simulated(rng, share, sharpness, n + n_rest, distorted=distorted)
        controls = predicted[:n] - predicted[n:].mean()
        _, (low, high), _ = rectified_share(outcomes[:n], controls, n_rest)
        inside += low <= outcomes[n:].mean() <= high
    assert inside / n_draws >= 0.895  # two standard errors below 93 %


@pytest.mark.parametrize("n_rest", [1, 5, 20])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_intervals_hold_for_few_samples_that_are_not_verified(share, n_rest):
    rng, n, n_draws = np.random.default_rng(2), 100, 100
    inside = 0
    for _ in range(n_draws):
        outcomes = rng.random(n + n_rest) < share
        low, high = rectified_share(outcomes[:n], NONE[:n], n_rest).interval
        inside += low <= outcomes[n:].mean() <= high
    assert inside / n_draws >= 0.93


def test_good_predictions_narrow_the_interval_and_correct_the_share():
    outcomes, controls = np.arange(200) % 5 == 0, np.where(np.arange(200) % 5 == 0, 0.7, -0.2)
    controls[::7] *= -0.2
    plain, *_ = rectified_share(outcomes, NONE[:200], 10_000)
    _, (low, high), _ = rectified_share(outcomes, controls - controls.mean(), 10_000)
    _, (lowest, highest), _ = rectified_share(outcomes, NONE[:200], 10_000)
    assert high - low < 0.8 * (highest - lowest)
    # Verified samples are predicted to count more often than others: there are fewer elsewhere.
    value, *_ = rectified_share(outcomes, controls - controls.mean() + 0.1, 10_000)
    assert value < plain - 0.04


def test_predictions_of_some_samples_help_less():
    rng = np.random.default_rng(0)
    outcomes, predicted = simulated(rng, 0.3, 0.5, 1000, distorted=False)
    controls = predicted - predicted.mean()
    widths = []
    for n_predicted in (0, 200, 1000):
        some = np.where(np.arange(1000) < n_predicted, controls, np.nan)
        low, high = rectified_share(outcomes, some, 100_000).interval
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]


def test_a_share_among_some_counts_only_these():
    among = np.arange(300) % 3 == 0
    outcomes = among & (np.arange(300) % 6 == 0)
    for among_controls in (NONE[:300], None):
        value, interval, _ = rectified_share(
            outcomes, NONE[:300], np.inf, among=among, among_controls=among_controls
        )
        assert value == 0.5
        np.testing.assert_allclose(interval, exact_interval(0.5, 100))


def test_few_samples_that_are_not_verified_have_a_wide_interval():
    outcomes = np.arange(199) < 40
    low, high = rectified_share(outcomes, NONE[:199], 1).interval
    assert low == pytest.approx(0, abs=0.05)
    assert high > 0.9


def test_samples_of_groups_are_worth_less():
    outcomes = np.arange(100) < 30
    (low, high), (least, most) = (
        rectified_share(outcomes, NONE[:100], np.inf, worth=worth).interval for worth in (1, 0.2)
    )
    assert least < low < high < most


@pytest.mark.parametrize(("n", "n_rest"), [(0, 10), (10, 0)])
def test_nothing_is_known_without_samples(n, n_rest):
    value, interval, _ = rectified_share(np.zeros(n, bool), NONE[:n], n_rest)
    assert np.isnan(value)
    assert interval == (0, 1)


@pytest.mark.parametrize("distorted", [False, True])
@pytest.mark.parametrize(("share", "n"), [(0.02, 40), (0.1, 100), (0.4, 40)])
def test_intervals_hold_for_unequal_draws(share, n, distorted):
    rng, n_all, n_times, inside, errors = np.random.default_rng(1), 10 * n, 100, 0, []
    for _ in range(n_times):
        outcomes, predicted = simulated(rng, share, 0.3, n_all, distorted=distorted)
        drawn = draw(predicted + 0.01, n, 0.5, rng)
        rest = np.delete(np.arange(n_all), drawn.rows)
        weight = Draws(drawn.weight, np.arange(n)).for_means(len(rest))
        controls = predicted[drawn.rows] - predicted[rest].mean()
        value, (low, high), _ = rectified_share(
            outcomes[drawn.rows], controls, len(rest), weight=weight
        )
        inside += low <= outcomes[rest].mean() <= high
        errors.append(value - outcomes[rest].mean())
    assert inside / n_times >= 0.93
    assert abs(np.mean(errors)) < 0.01


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), share=st.floats(0, 1))
def test_weighted_intervals_hold_the_value(seed, n, share):
    rng = np.random.default_rng(seed)
    outcomes, weight = rng.random(n) < share, rng.uniform(0.2, 2, n)
    controls = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n) + outcomes)
    value, (low, high), _ = rectified_share(outcomes, controls, 1000, weight=weight)
    assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize("n_counted", [0, 3, 50, 100])
def test_equal_weights_are_as_none(n_counted):
    outcomes = np.arange(100) < n_counted
    plain = rectified_share(outcomes, NONE[:100], 1000)
    weighted = rectified_share(outcomes, NONE[:100], 1000, weight=np.full(100, 3.0))
    np.testing.assert_allclose(weighted.interval, plain.interval)
    assert weighted.value == pytest.approx(plain.value)
