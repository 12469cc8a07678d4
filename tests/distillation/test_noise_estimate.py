"""The estimate is measured on simulated labels whose noise is known."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from pudistill import correct_labels
from pudistill.distillation.noise_estimate import (
    BOUND,
    NOTHING,
    ORIGINALS,
    NoiseEstimate,
    _thin_classes,
    _with_rates,
    estimate_noise,
)
from pudistill.distillation.noise_model import NoiseModel
from pudistill.distillation.predictions import Predictions
from pudistill.distillation.transition import (
    Originals,
    combine,
    fit_transition_matrix,
    known_originals,
    smoothed,
)
from pudistill.distillation.views import whole_view
from pudistill.estimates.shares import exact_interval
from pudistill.labels.checks import check_labels
from pudistill.labels.pseudo_labels import one_hot


def symmetric(n_classes, level):
    """Return `T` of symmetric noise, whose random labels are right by chance."""
    return (1 - level) * np.eye(n_classes) + level / n_classes


def cyclic(n_classes, level):
    return (1 - level) * np.eye(n_classes) + level * np.roll(np.eye(n_classes), 1, axis=1)


def draw(rows, rng):
    """Draw a class for each row of probabilities."""
    return (rng.random((len(rows), 1)) > rows.cumsum(axis=1)[:, :-1]).sum(axis=1)


def simulate(T, n, *, seed=0, prior=None, certainty=2.0):
    """Calibrated predictions (about seven in ten right), true and given labels."""
    rng = np.random.default_rng(seed)
    prior = np.full(len(T), 1 / len(T)) if prior is None else prior
    logits = certainty * rng.normal(size=(n, len(T))) + np.log(prior)
    proba = softmax(logits, axis=1)
    true = draw(proba, rng)
    return proba, true, draw(T[true], rng)


def counted(true, labels, n_classes):
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (true, labels), 1)
    return counts


NOISES = {
    "none": symmetric(4, 0),
    "symmetric": symmetric(4, 0.5),
    "nearly random": symmetric(4, 0.9),
    "cyclic": cyclic(4, 0.4),
    "mostly flipped": cyclic(4, 0.9),
    "one class only": np.array([[0.3, 0.7, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
}


# The transition matrix


@pytest.mark.parametrize("prior", [None, np.array([0.5, 0.3, 0.15, 0.05])], ids=["even", "uneven"])
@pytest.mark.parametrize("T", NOISES.values(), ids=NOISES)
def test_a_known_matrix_is_recovered_better_than_by_counting(T, prior):
    proba, true, labels = simulate(T, 6000, prior=prior)
    predicted = proba.argmax(axis=1)
    assert 0.6 < (predicted == true).mean() < 0.85  # not sure of much
    found = fit_transition_matrix(proba, labels)
    counts = counted(predicted, labels, 4)
    by_counting = counts / counts.sum(axis=1, keepdims=True)
    share = np.bincount(true, minlength=4) / len(true)
    error = share @ np.abs(found - T).sum(axis=1) / 2
    assert error < 0.05
    if T is not NOISES["nearly random"]:  # counting finds this noise, too
        assert error < 0.5 * (share @ np.abs(by_counting - T).sum(axis=1) / 2)


def test_known_classes_are_counted():
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(3), [400, 400, 200])
    labels = draw(np.array([[0.5, 0.1, 0.4], [0.05, 0.9, 0.05], [0.7, 0.2, 0.1]])[true], rng)
    counts = counted(true, labels, 3)
    found = fit_transition_matrix(one_hot(true, 3), labels)
    np.testing.assert_allclose(found, smoothed(counts), atol=1e-6)
    np.testing.assert_allclose(found, counts / counts.sum(axis=1, keepdims=True), atol=0.02)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), n_classes=st.integers(2, 5))
def test_the_names_of_the_classes_do_not_matter(seed, n_classes):
    rng = np.random.default_rng(seed)
    T = rng.dirichlet(np.ones(n_classes), n_classes)
    proba, _, labels = simulate(T, 100, seed=seed)
    order = rng.permutation(n_classes)
    found = fit_transition_matrix(proba, labels)
    renamed = fit_transition_matrix(proba[:, order], np.argsort(order)[labels])
    np.testing.assert_allclose(renamed, found[np.ix_(order, order)], atol=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_samples_does_not_matter(seed):
    proba, _, labels = simulate(symmetric(3, 0.5), 80, seed=seed)
    order = np.random.default_rng(seed).permutation(80)
    np.testing.assert_allclose(
        fit_transition_matrix(proba[order], labels[order]),
        fit_transition_matrix(proba, labels),
        atol=1e-6,
    )


def test_where_it_starts_does_not_matter():
    proba, _, labels = simulate(cyclic(3, 0.4), 3000)
    settings = {"max_iter": 2000, "tol": 1e-7}
    found = fit_transition_matrix(proba, labels, **settings)
    for start in (symmetric(3, 0.05), cyclic(3, 0.95)):
        other = fit_transition_matrix(proba, labels, start=start, **settings)
        np.testing.assert_allclose(other, found, atol=0.01)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_without_samples_no_label_is_likelier_than_another(n_classes):
    found = fit_transition_matrix(np.zeros((0, n_classes)), np.zeros(0, dtype=int))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    off_diagonal = found[~np.eye(n_classes, dtype=bool)]
    np.testing.assert_allclose(off_diagonal, off_diagonal[0])


# Smoothing


def test_even_noise_is_estimated_from_all_rows_together():
    T, rng = symmetric(10, 0.6), np.random.default_rng(0)
    true = np.repeat(np.arange(10), 60)
    counts = counted(true, draw(T[true], rng), 10)
    off = ~np.eye(10, dtype=bool)
    raw, found = counts / 60, smoothed(counts)
    assert np.abs(found - T)[off].mean() < 0.4 * np.abs(raw - T)[off].mean()
    assert np.diag(found).std() < 0.5 * np.diag(raw).std()


def test_a_flip_that_only_one_class_has_is_not_shrunk():
    counts = 100 * cyclic(5, 0.6)
    found = smoothed(counts)
    np.testing.assert_allclose(found, counts / 100, atol=0.01)


def test_a_class_that_differs_keeps_its_rate():
    counts = np.diag([1000.0, 1000, 200]) + np.array([[0, 0, 0], [0, 0, 0], [400, 400, 0]])
    np.testing.assert_allclose(1 - np.diag(smoothed(counts)), [0, 0, 0.8], atol=0.01)


def test_a_class_without_samples_is_like_the_others():
    counts = 100 * symmetric(4, 0.4)
    counts[3] = 0
    np.testing.assert_allclose(smoothed(counts), symmetric(4, 0.4), atol=0.03)


def test_two_classes_have_rates_only():
    # Rates that differ by more than chance stay apart; similar rates are merged.
    np.testing.assert_allclose(
        smoothed(np.array([[900, 100], [600, 400]])), [[0.9, 0.1], [0.6, 0.4]], atol=0.01
    )
    alike = smoothed(np.array([[72, 28], [32, 68]]))
    np.testing.assert_allclose(alike, [[0.7, 0.3], [0.3, 0.7]], atol=0.01)


@settings(max_examples=200)
@given(
    n_classes=st.integers(2, 6), seed=st.integers(0, 10_000), scale=st.sampled_from([0, 1, 30, 1e5])
)
def test_smoothed_rows_are_probabilities_of_which_none_is_zero(n_classes, seed, scale):
    rng = np.random.default_rng(seed)
    counts = scale * rng.random((n_classes, n_classes)) * (rng.random((n_classes, n_classes)) < 0.6)
    found = smoothed(counts)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found > 0).all()


# Original labels of trusted samples


VERIFIED, ROWS = np.tile([0, 1], 30), np.arange(60)


def test_with_a_mask_earlier_labels_are_unknown():
    assert known_originals(VERIFIED, VERIFIED, ROWS, 0.0, from_mask=True) == (None, None)


def test_without_given_labels_there_are_no_originals():
    assert known_originals(VERIFIED, np.full(60, -1), ROWS, 0.5, from_mask=False) == (None, None)


def test_labels_that_were_overwritten_are_noticed():
    originals, warning = known_originals(VERIFIED, VERIFIED, ROWS, 0.4, from_mask=False)
    assert originals is None
    assert "all 60 trusted samples are right" in warning
    assert "about 40% of the others are wrong" in warning
    assert "overwritten" in warning


@pytest.mark.parametrize(
    ("n", "rate"),
    [(60, 0.0), (60, 0.1), (8, 0.5)],  # no noise; little; too few to be implausible
)
def test_right_labels_that_are_plausible_are_used(n, rate):
    originals, warning = known_originals(
        VERIFIED[:n], VERIFIED[:n], ROWS[:n], rate, from_mask=False
    )
    assert warning is None
    np.testing.assert_array_equal(originals.given, VERIFIED[:n])


def test_wrong_originals_are_used_and_missing_originals_left_out():
    before = np.where(np.arange(60) < 5, -1, 1 - VERIFIED)
    originals, warning = known_originals(VERIFIED, before, ROWS, 0.5, from_mask=False)
    assert warning is None
    np.testing.assert_array_equal(originals.verified, VERIFIED[5:])
    np.testing.assert_array_equal(originals.given, 1 - VERIFIED[5:])


# Two sources


def test_without_originals_the_model_decides():
    T = symmetric(3, 0.4)
    found = combine(T, np.zeros((3, 3)), None)
    np.testing.assert_array_equal(found, T)


def test_the_sources_are_weighed_by_how_many_samples_they_are_worth():
    T = np.full((2, 2), 0.5)
    spread = np.full((2, 2), 0.1)
    # A row of counts has variance 2 · 0.25 / n; the model's row has 2 · 0.1² and 0.02² on top.
    worth = 0.5 / (2 * 0.1**2 + 0.02**2)
    codes = np.repeat([0, 1], [30, 10])
    originals = Originals(codes, codes, np.arange(40))
    found = combine(T, spread, originals)
    expected = [(30 + worth / 2) / (30 + worth), (10 + worth / 2) / (10 + worth)]
    np.testing.assert_allclose(np.diag(found), expected)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("change", ["more originals", "a less certain model"])
def test_originals_weigh_more_if_they_are_many_or_the_model_is_uncertain(change):
    T, spread, verified = symmetric(2, 0.4), np.full((2, 2), 0.05), VERIFIED
    before = combine(T, spread, Originals(verified, verified, np.arange(60)))
    if change == "more originals":
        verified = np.tile(VERIFIED, 4)
    else:
        spread = 3 * spread
    after = combine(T, spread, Originals(verified, verified, np.arange(len(verified))))
    assert after[0, 0] > before[0, 0] + 0.02  # all originals are right


def test_a_class_without_originals_keeps_the_models_row():
    T = symmetric(3, 0.4)
    originals = Originals(np.zeros(50, int), np.full(50, 2), np.arange(50))
    found = combine(T, np.full((3, 3), 0.05), originals)
    np.testing.assert_allclose(found[1:], T[1:])
    assert found[0, 2] > T[0, 2]


# The estimate


def estimated(
    T, n=600, n_verified=100, *, seed=0, hard=1.0, mask=False, groups=None, hold_out=True
):
    """Estimate the noise of simulated labels, of which many more are wrong for hard samples.

    Returns the estimate, and true and given labels of the samples that are not verified.
    """
    rng = np.random.default_rng(seed)
    proba, true, labels = simulate(T, n, seed=seed)
    n_classes = len(T)
    is_hard = proba.max(axis=1) < np.median(proba.max(axis=1))
    again = is_hard & (rng.random(n) < 1 - 1 / hard)
    labels = np.where(again, draw(T[true], rng), labels)
    labels = np.where(~is_hard & (rng.random(n) < 1 - 1 / hard), true, labels)
    verified = np.arange(n) < n_verified
    given_labels = np.where(verified & mask, true, labels)
    trusted = verified if mask else np.where(verified, true, np.nan)
    checked = check_labels(np.r_[given_labels], trusted)
    whole = whole_view(checked)
    originals = None
    if not mask:
        originals = Originals(true[:n_verified], labels[:n_verified], np.arange(n_verified))
    # Five views, each of which holds a fifth of the verified samples out.
    held_out = np.array_split(np.arange(n_verified), 5) if hold_out else []
    views = [whole, *(whole.holding_out(rows, None if mask else labels) for rows in held_out)]
    by_view = [Predictions(view, proba, NoiseModel(T)) for view in views]
    assert checked.n_classes == n_classes
    return estimate_noise(checked, by_view, originals), true[n_verified:], labels[n_verified:]


def coverage(draws):
    """Share of the intervals that hold: of the rate, of the rates by class, of the matrix."""
    inside = []
    for found, true, labels in draws:
        n_classes = len(found.classes)
        counts = counted(true, labels, n_classes)
        matrix = counts / counts.sum(axis=1, keepdims=True)
        of_class = 1 - np.diagonal(matrix)
        low, high = found.class_rate_interval.T
        least, most = found.transition_interval
        inside.append(
            (
                found.rate_interval[0] <= (true != labels).mean() <= found.rate_interval[1],
                ((low <= of_class) & (of_class <= high)).mean(),
                ((least <= matrix) & (matrix <= most)).mean(),
            )
        )
    return np.mean(inside, axis=0)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("hard", [1.0, 4.0], ids=["by class", "by sample"])
def test_intervals_hold_whatever_the_noise(hard, mask):
    draws = (estimated(symmetric(3, 0.4), seed=seed, hard=hard, mask=mask) for seed in range(40))
    assert (coverage(draws) >= 0.9).all()


def test_originals_and_predictions_tell_more_than_originals():
    found, _, _ = estimated(symmetric(3, 0.4), n_verified=200, n=2000)
    wrong = found.rate
    low, high = exact_interval(wrong, 200)
    assert found.basis == ORIGINALS
    assert found.rate_interval[1] - found.rate_interval[0] < high - low


def test_a_mask_bounds_the_rate_by_the_error_of_the_predictions():
    found, true, labels = estimated(symmetric(3, 0.4), mask=True)
    proba, all_true, all_labels = simulate(symmetric(3, 0.4), 600)
    predicted = proba.argmax(axis=1)
    disagreement = (predicted != all_labels)[100:].mean()
    n_wrong = (predicted != all_true)[:100].mean()
    error = exact_interval(n_wrong, 1 / (1 / 100 + 1 / 500), 0.9)[1]
    ends = max(0, disagreement - error), min(1, disagreement + error)
    expected = np.floor(500 * ends[0]) / 500, np.ceil(500 * ends[1]) / 500  # of 500 samples
    assert found.basis == BOUND
    assert found.rate_interval == pytest.approx(expected)
    assert found.rate == pytest.approx((true != labels).mean(), abs=0.05)  # noise depends on class


def test_a_mask_without_held_out_samples_bounds_nothing():
    found, _, _ = estimated(symmetric(3, 0.4), mask=True, hold_out=False)
    assert found.rate_interval == (0, 1)


@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
def test_the_class_that_a_class_is_confused_with_is_found(level):
    found, _, _ = estimated(cyclic(3, level), 1500)
    others = np.where(np.eye(3, dtype=bool), 0, found.transition_matrix)
    np.testing.assert_array_equal(others.argmax(axis=1), [1, 2, 0])


@pytest.mark.parametrize("mask", [False, True])
def test_values_lie_in_their_intervals(mask):
    found, _, _ = estimated(cyclic(3, 0.3), mask=mask)
    assert found.rate_interval[0] <= found.rate <= found.rate_interval[1]
    low, high = found.transition_interval
    assert ((low <= found.transition_matrix) & (found.transition_matrix <= high)).all()
    low, high = found.class_rate_interval.T
    assert ((low <= found.class_rate) & (found.class_rate <= high)).all()
    np.testing.assert_allclose(found.transition_matrix.sum(axis=1), 1)


def test_a_matrix_gets_the_rates_of_its_classes_in_its_own_proportions():
    T = np.array([[0.7, 0.2, 0.1], [0, 1, 0], [0.5, 0.5, 0]])
    found = _with_rates(T, np.array([0.6, 0.4, 0.0]))
    np.testing.assert_allclose(found, [[0.4, 0.4, 0.2], [0.2, 0.6, 0.2], [0, 0, 1]])


def test_a_class_with_few_samples_is_named():
    found, _, _ = estimated(symmetric(3, 0.4), n=110)
    assert "too few to estimate how noisy their labels are: 0, 1, 2." in found.warnings[0]
    (one,) = _thin_classes(np.array(["cat", "dog"]), np.array([3.2, 50.0]))
    assert one.startswith("Only about 3 of the samples that are not trusted seem to be of class 'c")
    (many,) = _thin_classes(np.arange(500), np.full(500, 2.0))
    assert many.endswith(" 8, 9 and 490 more.")


def test_without_other_samples_nothing_is_estimated():
    found, _, _ = estimated(symmetric(3, 0.4), n=100)
    assert found.basis == NOTHING
    assert np.isnan(found.rate)
    assert found.rate_interval == (0, 1)


def test_it_can_be_written_as_json():
    found, _, _ = estimated(symmetric(3, 0.4))
    restored = json.loads(json.dumps(found.to_dict()))
    assert restored["rate"] == found.rate
    assert restored["basis"] == ORIGINALS
    assert np.shape(restored["transition_interval"]) == (2, 3, 3)
    assert "classes" not in restored


def test_a_group_without_verified_samples_is_null_in_json():
    y, rng = np.arange(600) % 2, np.random.default_rng(0)
    given = np.where(rng.random(600) < 0.2, 1 - y, y)
    groups = np.repeat(["a", "b"], 300)
    verified = np.where((groups == "a") & (rng.random(600) < 0.2), y, np.nan)
    proba = np.where(y[:, None] == [0, 1], 0.9, 0.1)
    noise = correct_labels(given, proba, verified, noise_groups=groups).noise
    stored = json.loads(json.dumps(noise.to_dict(), allow_nan=False))
    assert stored["group_rate"][1] is None
    again = NoiseEstimate.from_dict(stored, noise.classes)
    np.testing.assert_array_equal(again.group_rate, noise.group_rate)
