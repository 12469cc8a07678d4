"""Betting tests hold what they promise, and are about as strong as exact tests of counts."""

import numpy as np
import pytest

from pudistill.estimates.betting import Bets
from pudistill.estimates.certificates import Curve, accept
from pudistill.review.drawing import draw


def drawn_bets(rng, wrong, accepted, gain, n_draws):
    drawn = draw(gain, n_draws, 0.5, rng)
    rest = np.delete(np.arange(len(wrong)), drawn.rows)
    bets = Bets(accepted[drawn.rows].astype(float), wrong[drawn.rows], drawn.weight, len(rest))
    return bets, rest


@pytest.mark.parametrize("hides", [False, True])
def test_a_true_claim_is_rarely_refuted(hides):
    rng, n, n_times, n_refuted = np.random.default_rng(0), 600, 200, 0
    accepted = np.arange(n) % 4 > 0
    for _ in range(n_times):
        wrong = np.where(accepted, rng.permutation(n) < 0.105 * n, rng.random(n) < 0.5)
        gain = np.where(wrong & accepted, 0.01, 1.0) if hides else rng.random(n)
        bets, rest = drawn_bets(rng, wrong, accepted, gain, 120)
        share = wrong[rest][accepted[rest]].mean()
        capital = bets.evidence(np.array([0.5]), np.array([0.05]), 0.1)[0]
        n_refuted += share > 0.1 and capital >= 20
    assert n_refuted <= 15  # 5 % and a standard error and a half


def test_by_hand():
    # One draw of two samples: the stake is bounded so that the capital is not negative.
    bets = Bets(np.array([1.0]), np.array([False]), np.array([1.0]), n_rest=1)
    capital = bets.evidence(np.array([0.5]), np.array([0.0]), 0.2)[0]
    assert capital == pytest.approx(1 + 1 * (-0.2 / 2 + 0.2))


def test_power_beside_the_exact_test():
    rng = np.random.default_rng(0)
    scores, rest = (1 - 0.3 * np.linspace(0, 1, n) ** 3 for n in (300, 10_000))
    n_exact = n_bets = 0
    for _ in range(30):
        order = rng.permutation(300)
        wrong = (rng.random(300) < 1 - scores)[order]
        exact = Curve.of(scores[order], wrong, rest)
        bets = Curve.of(scores[order], wrong, rest, weight=np.ones(300))
        n_exact += accept(exact, 0.05).n_accepted
        n_bets += accept(bets, 0.05).n_accepted
    assert n_exact >= n_bets >= 0.8 * n_exact


def test_samples_that_were_not_judged_prove_nothing():
    score, wrong = np.ones(100), np.zeros(100, dtype=bool)
    weight = np.tile([0.5, 1.5], 50)
    of_all = Bets(score, wrong, weight, 1000).evidence(np.array([0.5]), np.zeros(1), 0.1)[0]
    score[::2] = np.nan
    of_half = Bets(score, wrong, weight, 1000).evidence(np.array([0.5]), np.zeros(1), 0.1)[0]
    assert 1 < of_half < of_all
