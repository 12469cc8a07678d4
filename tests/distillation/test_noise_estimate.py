"""The estimate is measured on simulated labels whose noise is known."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from pudistill.distillation.noise_estimate import estimate_noise, systematic_error
from pudistill.distillation.transition import (
    SYSTEMATIC_ERROR,
    Originals,
    combine,
    fit_transition_matrix,
    known_originals,
    smoothed,
)
from pudistill.labels.pseudo_labels import one_hot
from pudistill.learners.calibration import Temperature


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A quarter of the bootstrap is enough here."""
    monkeypatch.setattr("pudistill.distillation.noise_estimate.NOISE_BOOTSTRAPS", 50)


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


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n_classes=st.integers(2, 5))
def test_the_names_of_the_classes_do_not_matter(seed, n_classes):
    rng = np.random.default_rng(seed)
    T = rng.dirichlet(np.ones(n_classes), n_classes)
    proba, _, labels = simulate(T, 100, seed=seed)
    order = rng.permutation(n_classes)
    found = fit_transition_matrix(proba, labels)
    renamed = fit_transition_matrix(proba[:, order], np.argsort(order)[labels])
    np.testing.assert_allclose(renamed, found[np.ix_(order, order)], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_samples_does_not_matter(seed):
    proba, _, labels = simulate(symmetric(3, 0.5), 80, seed=seed)
    order = np.random.default_rng(seed).permutation(80)
    np.testing.assert_allclose(
        fit_transition_matrix(proba[order], labels[order]),
        fit_transition_matrix(proba, labels),
        atol=1e-6,
    )


def test_weights_are_repetitions():
    proba, _, labels = simulate(cyclic(3, 0.4), 150)
    times = np.random.default_rng(0).integers(1, 4, size=150)
    repeated = np.repeat(np.arange(150), times)
    np.testing.assert_allclose(
        fit_transition_matrix(proba, labels, weights=times.astype(float)),
        fit_transition_matrix(proba[repeated], labels[repeated]),
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


@settings(max_examples=200, deadline=None)
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


VERIFIED = np.tile([0, 1], 30)


def test_with_a_mask_earlier_labels_are_unknown():
    assert known_originals(VERIFIED, VERIFIED, 0.0, from_mask=True) == (None, None)


def test_without_given_labels_there_are_no_originals():
    assert known_originals(VERIFIED, np.full(60, -1), 0.5, from_mask=False) == (None, None)


def test_labels_that_were_overwritten_are_noticed():
    originals, warning = known_originals(VERIFIED, VERIFIED, 0.4, from_mask=False)
    assert originals is None
    assert "all 60 trusted samples are right" in warning
    assert "about 40% of the others are wrong" in warning
    assert "overwritten" in warning


@pytest.mark.parametrize(
    ("n", "rate"),
    [(60, 0.0), (60, 0.1), (8, 0.5)],  # no noise; little; too few to be implausible
)
def test_right_labels_that_are_plausible_are_used(n, rate):
    originals, warning = known_originals(VERIFIED[:n], VERIFIED[:n], rate, from_mask=False)
    assert warning is None
    np.testing.assert_array_equal(originals.given, VERIFIED[:n])


def test_wrong_originals_are_used_and_missing_originals_left_out():
    before = np.where(np.arange(60) < 5, -1, 1 - VERIFIED)
    originals, warning = known_originals(VERIFIED, before, 0.5, from_mask=False)
    assert warning is None
    np.testing.assert_array_equal(originals.verified, VERIFIED[5:])
    np.testing.assert_array_equal(originals.given, 1 - VERIFIED[5:])


# Two sources


def test_without_originals_the_model_decides():
    T = symmetric(3, 0.4)
    found, share = combine(T, np.zeros((3, 3)), None)
    assert share == 0
    np.testing.assert_array_equal(found, T)


def test_the_sources_are_weighed_by_how_many_samples_they_are_worth():
    T = np.full((2, 2), 0.5)
    spread = np.full((2, 2), 0.1)
    # A row of counts has variance 2 · 0.25 / n; the model's row has 2 · 0.1² and 0.02² on top.
    worth = 0.5 / (2 * 0.1**2 + 0.02**2)
    originals = Originals(np.repeat([0, 1], [30, 10]), np.repeat([0, 1], [30, 10]))
    found, share = combine(T, spread, originals)
    expected = [(30 + worth / 2) / (30 + worth), (10 + worth / 2) / (10 + worth)]
    np.testing.assert_allclose(np.diag(found), expected)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert share == pytest.approx((30 / (30 + worth) + 10 / (10 + worth)) / 2)


@pytest.mark.parametrize("n", [40, 4000])
def test_a_model_that_the_originals_contradict_has_a_larger_error(n):
    T = symmetric(2, 0.6)  # 70 % right
    draws = np.tile(T, (5, 1, 1))
    verified = np.tile([0, 1], n // 2)
    originals = Originals(verified, np.where(np.arange(n) % 10 < 6, verified, 1 - verified))
    # 60 % right. With 40 originals this is no contradiction: two standard errors are 14 points.
    excess = 0.1**2 - 4 * 0.7 * 0.3 / n
    expected = 2 * np.sqrt(excess) if n == 4000 else SYSTEMATIC_ERROR
    assert systematic_error(draws, T, originals) == pytest.approx(expected)
    assert systematic_error(draws, T, None) == SYSTEMATIC_ERROR
    doubtful = draws + np.array([-0.2, -0.1, 0, 0.1, 0.2])[:, None, None] * np.array(
        [[1, -1], [-1, 1]]
    )
    assert systematic_error(doubtful, T, originals) == SYSTEMATIC_ERROR


def test_a_model_that_is_wrong_does_not_outweigh_many_originals():
    T = cyclic(10, 0.4)
    proba, true, labels = simulate(T, 40_000)
    known = np.arange(20_000)
    originals = Originals(true[known], labels[known])
    too_sure = Temperature(1.2).apply(proba[20_000:])
    found = estimate_noise(
        np.arange(10), too_sure, labels[20_000:], originals, Temperature(1.0, 0.01), seed=0
    )
    low, high = found.rate_interval
    assert found.sources["trusted originals"] > 0.8
    assert found.rate == pytest.approx(0.4, abs=0.006)
    assert low <= 0.4 <= high


@pytest.mark.parametrize("change", ["more originals", "a less certain model"])
def test_originals_weigh_more_if_they_are_many_or_the_model_is_uncertain(change):
    T, spread, originals = symmetric(2, 0.4), np.full((2, 2), 0.05), Originals(VERIFIED, VERIFIED)
    _, before = combine(T, spread, originals)
    if change == "more originals":
        originals = Originals(np.tile(VERIFIED, 4), np.tile(VERIFIED, 4))
    else:
        spread = 3 * spread
    assert combine(T, spread, originals)[1] > before + 0.1


def test_a_class_without_originals_keeps_the_models_row():
    T = symmetric(3, 0.4)
    originals = Originals(np.zeros(50, int), np.full(50, 2))
    found, _ = combine(T, np.full((3, 3), 0.05), originals)
    np.testing.assert_allclose(found[1:], T[1:])
    assert found[0, 2] > T[0, 2]


# The estimate


def estimated(T, n=600, *, seed=0, originals=None, prior=None, **kwargs):
    proba, true, labels = simulate(T, n, seed=seed, prior=prior)
    classes = np.array([f"class {c}" for c in range(len(T))])
    temperature = Temperature(1.0, 0.1)
    found = estimate_noise(classes, proba, labels, originals, temperature, seed=seed, **kwargs)
    return found, true, labels


@pytest.mark.parametrize("T", [symmetric(3, 0.5), cyclic(3, 0.3)], ids=["symmetric", "cyclic"])
def test_intervals_contain_the_truth(T):
    in_rate, in_class_rate, in_matrix, zeros = [], [], [], []
    for seed in range(20):
        found, true, labels = estimated(T, 200, seed=seed)
        low, high = found.rate_interval
        in_rate.append(low <= (true != labels).mean() <= high)
        low, high = found.class_rate_interval.T
        in_class_rate.append((low <= 1 - np.diag(T)) & (1 - np.diag(T) <= high))
        low, high = found.transition_interval
        in_matrix.append(((low <= T) & (high >= T))[T > 0])
        zeros.append(low[T == 0])  # no label is impossible: intervals start just above 0
    assert np.mean(in_rate) > 0.85
    assert np.mean(in_class_rate) > 0.85
    assert np.mean(in_matrix) > 0.8
    assert (np.array(zeros) < 0.05).all()


@pytest.mark.parametrize("sharpness", [0.95, 1.05])
def test_the_interval_of_many_samples_allows_for_predictions_that_are_off(sharpness):
    proba, true, labels = simulate(symmetric(10, 0.4), 40_000)
    proba = Temperature(sharpness).apply(proba)
    found = estimate_noise(np.arange(10), proba, labels, None, Temperature(1.0, 0.01), seed=0)
    low, high = found.rate_interval
    assert abs(found.rate - (true != labels).mean()) > 0.01
    assert low <= (true != labels).mean() <= high
    assert high - low < 0.06


def test_the_rate_is_the_share_of_wrong_labels_whatever_the_shares_of_the_classes():
    T = np.array([[0.9, 0.1, 0], [0, 0.5, 0.5], [0.1, 0.1, 0.8]])
    prior = np.array([0.7, 0.2, 0.1])
    found, true, labels = estimated(T, 4000, prior=prior)
    assert found.rate == pytest.approx((true != labels).mean(), abs=0.03)
    np.testing.assert_allclose(found.class_prior, np.bincount(true) / 4000, atol=0.03)
    np.testing.assert_allclose(found.class_rate, 1 - np.diag(found.transition_matrix))
    assert found.rate == pytest.approx(found.class_rate @ found.class_prior)


@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
def test_the_class_that_a_class_is_confused_with_is_found(level):
    found, _, _ = estimated(cyclic(6, level), 2000)
    wrong = found.transition_matrix * (1 - np.eye(6))
    np.testing.assert_array_equal(wrong.argmax(axis=1), (np.arange(6) + 1) % 6)


def test_values_lie_in_their_intervals():
    found, _, _ = estimated(cyclic(4, 0.4), 1000)
    low, high = found.rate_interval
    assert 0 <= low <= found.rate <= high <= 1
    assert (found.class_rate_interval[:, 0] <= found.class_rate + 0.02).all()
    assert (found.class_rate <= found.class_rate_interval[:, 1] + 0.02).all()
    low, high = found.transition_interval
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (low <= high).all()


def test_intervals_narrow_with_more_samples_and_widen_with_doubt():
    def width(n, spread):
        proba, _, labels = simulate(symmetric(3, 0.4), n)
        temperature = Temperature(1.0, spread)
        found = estimate_noise(np.arange(3), proba, labels, None, temperature, seed=0)
        return found.rate_interval[1] - found.rate_interval[0]

    assert width(2000, 0.02) < width(150, 0.02) < width(150, 0.8)
    assert width(2000, 0.02) < width(2000, 0.5)


def test_originals_of_the_trusted_samples_narrow_the_interval():
    T = cyclic(3, 0.4)
    _, true, labels = simulate(T, 300, seed=7)
    without, _, _ = estimated(T, 150)
    with_them, _, _ = estimated(T, 150, originals=Originals(true, labels))
    assert without.sources == {"trusted originals": 0.0, "model of the given labels": 1.0}
    assert sum(with_them.sources.values()) == pytest.approx(1)
    assert with_them.sources["trusted originals"] > 0.3
    assert np.ptp(with_them.rate_interval) < np.ptp(without.rate_interval)
    error, error_without = (
        np.abs(estimate.transition_matrix - T).mean() for estimate in (with_them, without)
    )
    assert error < error_without


def test_a_class_with_few_samples_is_named():
    found, true, _ = estimated(
        symmetric(3, 0.2), 300, prior=np.array([0.7, 0.297, 0.003]), notes=("Be careful.",)
    )
    assert (true == 2).sum() < 10
    first, second = found.warnings
    assert first == "Be careful."
    assert "of class 'class 2': too few to estimate how noisy its labels are" in second


def test_enough_samples_need_no_warning():
    assert estimated(symmetric(3, 0.4))[0].warnings == []


def test_without_given_labels_the_estimate_uses_the_originals_alone():
    originals = Originals(np.tile([0, 1], 30), np.tile([0, 0, 1, 1], 15))
    nothing = np.zeros((0, 2)), np.zeros(0, dtype=int)
    found = estimate_noise(np.arange(2), *nothing, originals, Temperature(), seed=0)
    assert found.rate == pytest.approx(0.5, abs=0.05)
    assert found.sources["trusted originals"] > 0.9


def test_it_can_be_written_as_json():
    found, _, _ = estimated(symmetric(3, 0.5), 200)
    read = json.loads(json.dumps(found.to_dict()))
    assert "classes" not in read
    assert np.shape(read["transition_interval"]) == (2, 3, 3)
    assert np.shape(read["class_rate_interval"]) == (3, 2)
    assert read["rate"] == found.rate
    np.testing.assert_array_equal(read["transition_matrix"], found.transition_matrix)


def test_one_seed_gives_one_estimate():
    first, second = (estimated(cyclic(3, 0.4), 200, seed=2)[0].to_dict() for _ in range(2))
    assert first == second
