import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pudistill.estimates.certificates import Curve, certified, with_more_verified


def draw(seed, *, n=4000, n_verified=600, sureness=1.0):
    """Draw scores, wrong labels and verified samples; too sure if `sureness` is above 1."""
    rng = np.random.default_rng(seed)
    logit = np.abs(rng.normal(2, 2, n))
    is_wrong = rng.random(n) > 1 / (1 + np.exp(-logit))
    is_verified = np.zeros(n, dtype=bool)
    is_verified[rng.permutation(n)[:n_verified]] = True
    return 1 / (1 + np.exp(-sureness * logit)), is_wrong, is_verified


def curve_of(scores, is_wrong, is_verified):
    return Curve.of(scores[is_verified], is_wrong[is_verified], scores[~is_verified])


def test_the_curve_counts_by_hand():
    rest = np.repeat([0.9, 0.5], [30, 10])
    curve = Curve.of(np.array([0.95, 0.9, 0.6, 0.4]), np.array([False, True, True, True]), rest)
    assert curve.threshold.tolist() == [0.9, 0.5]
    assert curve.n_accepted.tolist() == [30, 40]
    assert curve.n_verified.tolist() == [2, 3]
    assert curve.n_wrong.tolist() == [1, 2]
    assert curve.expected == pytest.approx([0.1, (3 + 5) / 40])
    frame = curve.frame()
    assert frame["share"].tolist() == [0.75, 1.0]
    assert frame["error"].tolist() == pytest.approx([1 / 2, 2 / 3])


@pytest.mark.parametrize(("max_error", "enough"), [(0.01, 299), (0.02, 149), (0.05, 59)])
def test_so_many_right_labels_are_needed(max_error, enough):
    # Of a very large set, the binomial distribution: 0.99 ** 299 < 0.05 < 0.99 ** 298.
    for n_verified, position in ((enough - 1, -1), (enough, 0)):
        ones = np.ones(n_verified)
        curve = Curve.of(ones, np.zeros(n_verified, dtype=bool), np.ones(1_000_000))
        assert certified(curve, max_error) == position


def test_of_a_few_others_each_wrong_label_counts():
    # Of 20 verified and 2 others, one wrong label would be verified in 10 of 11 draws.
    curve = Curve.of(np.ones(20), np.zeros(20, dtype=bool), np.ones(2))
    assert certified(curve, 0.01, confidence=0.9) == 0
    assert certified(curve, 0.01, confidence=0.92) == -1


@pytest.mark.parametrize("sureness", [0.7, 1.0, 3.0])
def test_the_promise_holds_in_95_percent_of_draws(sureness):
    n_draws, n_broken, n_accepted = 100, 0, 0
    for seed in range(n_draws):
        scores, is_wrong, is_verified = draw(seed, sureness=sureness)
        curve = curve_of(scores, is_wrong, is_verified)
        position = certified(curve, 0.05)
        if position >= 0:
            accepted = ~is_verified & (scores >= curve.threshold[position])
            n_accepted += accepted.sum()
            n_broken += is_wrong[accepted].mean() > 0.05
    assert binom.sf(n_broken - 1, n_draws, 0.05) > 0.001
    assert n_accepted > 0.1 * n_draws * 3400


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.005, 0.3))
def test_no_more_wrong_labels_were_seen_than_are_promised(seed, max_error):
    curve = curve_of(*draw(seed, n=800, n_verified=300))
    position = certified(curve, max_error)
    assert -1 <= position < len(curve.threshold)
    if position >= 0:
        assert curve.n_wrong[position] <= max_error * curve.n_verified[position] + 1e-9


def test_a_larger_error_accepts_more_in_the_mean():
    curves = [curve_of(*draw(seed, n=800, n_verified=300)) for seed in range(20)]
    shares = [
        np.mean([c.n_accepted[p] if (p := certified(c, error)) >= 0 else 0 for c in curves])
        for error in (0.05, 0.1, 0.2)
    ]
    assert 0 < shares[0] < shares[1] < shares[2]


def test_more_verified_samples_bring_more():
    scores, is_wrong, is_verified = draw(0, n_verified=150)
    advice = with_more_verified(curve_of(scores, is_wrong, is_verified), 0.02)
    assert advice
    numbers, shares = zip(*advice, strict=True)
    assert list(numbers) == sorted(numbers)
    assert list(shares) == sorted(shares)


def test_with_groups_as_many_more_samples_are_asked_for_as_they_are_worth_less():
    # 320 samples that are worth a half are 160 independent ones, and 1 % needs 299 right ones.
    independent = Curve.of(np.ones(160), np.zeros(160, dtype=bool), np.ones(10_000))
    grouped = Curve.of(np.ones(320), np.zeros(320, dtype=bool), np.ones(10_000), worth=0.5)
    assert with_more_verified(independent, 0.01) == [(160, 1.0)]
    assert with_more_verified(grouped, 0.01) == [(320, 1.0)]
    # No more can be verified than there are: 160 of 160 others can, 320 of 200 cannot.
    few = Curve.of(np.ones(320), np.zeros(320, dtype=bool), np.ones(200), worth=0.5)
    assert with_more_verified(few, 0.01) == []


def test_groups_do_not_change_the_share_of_wrong_labels():
    is_wrong = np.arange(30) == 7
    for worth in (1.0, 0.5, 0.1):
        frame = Curve.of(np.ones(30), is_wrong, np.ones(1_000), worth=worth).frame()
        assert frame["error"].tolist() == pytest.approx([1 / 30])
        assert (frame["low"] <= 1 / 30).all()
        assert (frame["high"] >= 1 / 30).all()


def test_without_samples_nothing_is_accepted():
    nothing = np.zeros(0)
    for curve in (
        Curve.of(nothing, nothing.astype(bool), np.ones(50)),
        Curve.of(np.ones(50), np.zeros(50, dtype=bool), nothing),
    ):
        assert certified(curve, 0.1) == -1
        assert with_more_verified(curve, 0.1) == []
        assert len(curve.frame()) == 0
