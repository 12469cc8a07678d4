"""Certificates: the largest set of labels of which at most a given share is wrong, with confidence.

Verified samples that are judged like all others, by models that have not seen their verified
labels, are a random part of each set of samples that a threshold on the score accepts. So the wrong
labels among them follow a hypergeometric distribution, whatever the model and the noise. If some
samples were more likely to be verified than others, `betting` has the test.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import gammaln
from scipy.stats import binom

from pudistill.estimates.betting import Bets, power_of_bets
from pudistill.estimates.shares import LEVEL, exact_interval

# Thresholds that are tested, and the least number of samples that one accepts.
N_THRESHOLDS, FEWEST_ACCEPTED = 100, 20

# Models are too sure of themselves: the order of the tests expects this many times the errors that
# they do. In simulations of models from too careful to three times too sure, 1 and 4 accepted less.
OVERCONFIDENCE = 2.0

# Samples that the scores count as in the advice.
PRIOR = 20

# Numbers of verified samples that the advice tries, as multiples of those there are.
MULTIPLES = 2.0 ** np.arange(1, 7)


class Curve(NamedTuple):
    """What each threshold on the score accepts, from the highest threshold to the lowest.

    Attributes
    ----------
    threshold : ndarray of shape (n_thresholds,)
        Samples with this score or a higher one are accepted.
    n_accepted : ndarray of shape (n_thresholds,), int
        Accepted samples that nobody verified.
    expected : ndarray of shape (n_thresholds,)
        Share of wrong labels among these, according to their scores.
    n_verified, n_wrong : ndarray of shape (n_thresholds,), int
        Accepted verified samples, and the wrong labels among them; with groups or weights, the
        numbers of independent samples, drawn uniformly, that these are worth.
    share_wrong : ndarray of shape (n_thresholds,)
        Share of wrong labels among the accepted verified samples; 0 without any.
    n_samples : int
        Number of samples that nobody verified.
    bets : Bets or None
        The verified samples, if not all were drawn uniformly.
    worth : float
        Number of independent samples that a verified sample is worth; less than 1 with groups.
    """

    threshold: np.ndarray
    n_accepted: np.ndarray
    expected: np.ndarray
    n_verified: np.ndarray
    n_wrong: np.ndarray
    share_wrong: np.ndarray
    n_samples: int
    bets: Bets | None = None
    worth: float = 1.0

    @classmethod
    def of(
        cls,
        scores: np.ndarray,
        is_wrong: np.ndarray,
        rest: np.ndarray,
        worth: float = 1.0,
        weight: np.ndarray | None = None,
    ) -> "Curve":
        """Count at each threshold.

        Parameters
        ----------
        scores : ndarray of shape (n_verified,)
            Score of each verified sample: the probability that its label is right, by models that
            have not seen its verified label.
        is_wrong : ndarray of shape (n_verified,), bool
            Whether the label that these models give it is wrong.
        rest : ndarray of shape (n_samples,)
            Scores of the samples that nobody verified, made in the same way.
        worth : float, default=1.0
            Number of independent samples that a verified sample is worth.
        weight : ndarray of shape (n_verified,), default=None
            Weights of the draws, see `Draws`; then verified samples are in the order of drawing,
            and the score of one that could not be judged is NaN. None: all draws were uniform.
        """
        descending = np.sort(rest)[::-1]
        if len(rest):
            first = min(max(FEWEST_ACCEPTED, len(rest) // N_THRESHOLDS), len(rest))
            last = np.ceil(np.geomspace(first, len(rest), N_THRESHOLDS)).astype(int) - 1
            threshold = np.unique(descending[np.minimum(last, len(rest) - 1)])[::-1]
        else:
            threshold = np.zeros(0)
        n_accepted = np.searchsorted(-descending, -threshold, side="right")
        doubt = np.concatenate([[0.0], np.cumsum(1 - descending)])
        expected = doubt[n_accepted] / np.maximum(n_accepted, 1)
        if weight is not None:
            bets = Bets(scores, is_wrong, weight, len(rest), worth)
            n_verified, n_wrong = bets.counts(threshold)
            counts = np.floor(n_verified).astype(int), np.ceil(n_wrong - 1e-9).astype(int)
            share = n_wrong / np.where(n_verified > 0, n_verified, 1)
            return cls(threshold, n_accepted, expected, *counts, share, len(rest), bets, worth)
        order = np.argsort(-scores, kind="stable")
        n_verified = np.searchsorted(-scores[order], -threshold, side="right")
        n_wrong = np.concatenate([[0], np.cumsum(is_wrong[order])])[n_verified]
        return cls(
            threshold,
            n_accepted,
            expected,
            np.floor(n_verified * worth).astype(int),
            np.ceil(n_wrong * worth).astype(int),
            n_wrong / np.maximum(n_verified, 1),
            len(rest),
            worth=worth,
        )

    def frame(self) -> pd.DataFrame:
        """Return ``share`` accepted, ``error`` and the ends of its 95 % interval, by threshold."""
        known = self.n_verified > 0
        if self.bets is None:
            pairs = zip(self.share_wrong[known], self.n_verified[known], strict=True)
            rows = [(error, *exact_interval(error, n)) for error, n in pairs]
        else:
            found = map(self.bets.share_wrong, self.threshold[known])
            rows = [(error, *interval) for error, interval in found]
        frame = pd.DataFrame(rows, columns=["error", "low", "high"], dtype=float)
        frame.insert(0, "share", self.n_accepted[known] / max(self.n_samples, 1))
        return frame


class Accepted(NamedTuple):
    """What can be accepted, see `CertifiedLabels`; the threshold is infinite if nothing can be."""

    threshold: float
    n_accepted: int
    n_verified: int
    n_wrong: int
    more_verified: list[tuple[int, float]]


def accept(curve: Curve, max_error: float, confidence: float = LEVEL) -> Accepted:
    """Return what `certified` accepts, and what further verified samples would bring."""
    position = certified(curve, max_error, confidence)
    counts = (curve.n_accepted, curve.n_verified, curve.n_wrong)
    threshold, n_accepted, n_verified, n_wrong = np.inf, 0, 0, 0
    if position >= 0:
        threshold = float(curve.threshold[position])
        n_accepted, n_verified, n_wrong = (int(count[position]) for count in counts)
    share = n_accepted / max(curve.n_samples, 1)
    advice = with_more_verified(curve, max_error, confidence)
    more = [(number, then) for number, then in advice if then > share]
    return Accepted(threshold, n_accepted, n_verified, n_wrong, more)


def certified(curve: Curve, max_error: float, confidence: float = LEVEL) -> int:
    """Find the largest set of labels of which, with confidence, at most `max_error` is wrong.

    Parameters
    ----------
    curve : Curve
        What each threshold accepts.
    max_error : float in (0, 1)
        Largest share of wrong labels among the accepted samples that nobody verified.
    confidence : float in (0, 1), default=0.95
        Probability, over the choice of the verified samples, that the promise holds.

    Returns
    -------
    position : int
        Position of the threshold in the curve; -1 if nothing can be accepted.

    Notes
    -----
    Thresholds are tested one after the other, down to the first that fails, so that all tests
    together are wrong as rarely as one (Learn then Test). The first is the one that promises most
    by the scores, which know nothing of the verified labels.

    References
    ----------
    A. N. Angelopoulos, S. Bates, E. J. Candès, M. I. Jordan, L. Lei, "Learn then Test: Calibrating
    Predictive Algorithms to Achieve Risk Control" (2021).

    Examples
    --------
    >>> import numpy as np
    >>> from pudistill.estimates.certificates import Curve, certified
    >>> scores, rest = np.linspace(0, 1, 400), np.linspace(0, 1, 10_000)
    >>> curve = Curve.of(scores, scores < 0.2, rest)
    >>> share = curve.n_accepted[certified(curve, max_error=0.01)] / 10_000
    >>> bool(0.7 < share < 0.8)
    True
    """
    tail = 1 - confidence
    if curve.bets is None:
        passes = _chance_of(curve.n_wrong, curve, curve.n_verified, max_error) <= tail
    else:
        expected = OVERCONFIDENCE * curve.expected
        passes = curve.bets.evidence(curve.threshold, expected, max_error) >= 1 / tail
    promise = _power(curve, curve.n_verified, OVERCONFIDENCE * curve.expected, max_error, tail)
    if not len(promise) or promise.max() <= 0:
        return -1
    start = int(promise.argmax())
    failures = np.flatnonzero(~passes[start:])
    return int(start + failures[0] if len(failures) else len(passes)) - 1 if passes[start] else -1


def with_more_verified(
    curve: Curve, max_error: float, confidence: float = LEVEL
) -> list[tuple[int, float]]:
    """Estimate how many more verified samples, chosen at random, would bring how much.

    Parameters
    ----------
    curve, max_error, confidence
        As for `certified`.

    Returns
    -------
    advice : list of tuple of int and float
        Number of further verified samples, and the share of the others that could more likely than
        not be accepted with them. Holds if labels are as often wrong, and groups as alike, as they
        were until now; empty if far more than there are would bring nothing.
    """
    n = int(curve.n_verified[-1]) if len(curve.threshold) else 0
    if n == 0:
        return []
    # Where few samples were judged, the scores count more than what was seen.
    n_wrong = curve.share_wrong * curve.n_verified
    error = (n_wrong + PRIOR * curve.expected) / (curve.n_verified + PRIOR)
    advice: list[tuple[int, float]] = []
    for multiple in MULTIPLES[(MULTIPLES - 1) * n <= curve.n_samples * curve.worth]:
        n_verified = (multiple * n * curve.n_accepted / curve.n_samples).astype(int)
        chance = _power(curve, n_verified, error, max_error, 1 - confidence)
        likely = np.flatnonzero(chance > 0.5)
        share = float(curve.n_accepted[likely[-1]] / curve.n_samples) if len(likely) else 0.0
        if share > (advice[-1][1] if advice else 0.0):
            advice.append((int(np.ceil(n * (multiple - 1) / curve.worth)), share))
    return advice


def _chance_of(
    n_wrong: np.ndarray, curve: Curve, n_verified: np.ndarray, max_error: float
) -> np.ndarray:
    """Bound the chance of so few wrong labels if more than `max_error` of the others were wrong."""
    least_wrong = np.floor(max_error * curve.n_accepted + 1e-9).astype(int) + 1 + n_wrong
    n_all = n_verified + curve.n_accepted
    chance = _hypergeometric_cdf(n_wrong, n_all, np.minimum(least_wrong, n_all), n_verified)
    # So many cannot be wrong: the promise is true.
    return np.where(least_wrong > n_all, 0.0, chance)


def _hypergeometric_cdf(
    most: np.ndarray, n_all: np.ndarray, n_wrong: np.ndarray, n_drawn: np.ndarray
) -> np.ndarray:
    """Return the chance of at most so many wrong ones among those drawn.

    The function of scipy takes milliseconds for each.
    """
    total = np.zeros(len(most))
    for k in range(int(most.max(initial=-1)) + 1):
        possible = (k <= most) & (k <= n_wrong) & (n_drawn - k <= n_all - n_wrong) & (k <= n_drawn)
        N, W, n = n_all[possible], n_wrong[possible], n_drawn[possible]
        total[possible] += np.exp(_log_choose(W, k) + _log_choose(N - W, n - k) - _log_choose(N, n))
    return np.minimum(total, 1.0)


def _log_choose(n: np.ndarray, k: Any) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _power(
    curve: Curve, n_verified: np.ndarray, error: np.ndarray, max_error: float, tail: float
) -> np.ndarray:
    """Return the chance that each threshold passes, if that share of its labels is wrong."""
    if curve.bets is not None:
        return power_of_bets(n_verified, error, max_error, tail)
    # The largest number of wrong labels that passes, by bisection between these two.
    low, high = np.full(len(n_verified), -1), np.ceil(max_error * n_verified).astype(int)
    while (low < high).any():
        middle = (low + high + 1) // 2
        passes = _chance_of(middle, curve, n_verified, max_error) <= tail
        low, high = np.where(passes, middle, low), np.where(passes, high, middle - 1)
    return np.where(low < 0, 0.0, binom.cdf(low, n_verified, np.clip(error, 0, 1)))
